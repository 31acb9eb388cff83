"""Sessions as the command line finds and tells them."""

from __future__ import annotations

from datetime import UTC, datetime

from contracts.directory import SessionEntry
from contracts.ids import check_id
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.directory import get_entry, list_stream_sessions, read_directory, rebuild_entry
from contracts.jetstream.keeping import standing
from ops.cli.output import clock


async def known_entries(bus: Bus) -> list[SessionEntry]:
    """Every session, also deleted ones; one that the directory lost is rebuilt from its stream."""
    listed, erased = await read_directory(bus)
    entries = {entry.session: entry for entry in listed}
    for session in await list_stream_sessions(bus):
        known = session in entries or session in erased
        if not known and (entry := await rebuild_entry(bus, session)) is not None:
            entries[session] = entry
    return [entries[session] for session in sorted(entries)]


async def known_entry(bus: Bus, session: str) -> SessionEntry:
    """A session's entry.

    Raises
    ------
    SessionNotFoundError
        If there is no such session.
    """
    check_id(session)
    entry = await get_entry(bus, session)
    if entry is None and await standing(bus, session) == "here":
        entry = await rebuild_entry(bus, session)
    if entry is None:
        raise SessionNotFoundError(f"there is no session {session[:40]}; `retold sessions ls` lists them")
    return entry


def when(unix_ns: int) -> str:
    """A moment, UTC, to the minute."""
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")


def length(entry: SessionEntry) -> str:
    """How long it was, or that it still runs."""
    return "live" if entry.duration_ns is None else clock(entry.duration_ns / 1e9)
