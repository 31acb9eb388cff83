"""The directory of sessions on the server: KV bucket `sessions`, one entry per session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from contracts.directory import Keeping, SessionEntry, decode_entry, encode_entry, fold_entry
from contracts.errors import MalformedError, UnavailableError
from contracts.events import SessionFact, SessionStarted, decode_fact
from contracts.ids import check_id
from contracts.jetstream.cas import put_if
from contracts.jetstream.connection import PUBLISH_TRIES, RECONNECT_WAIT_S, Bus
from contracts.jetstream.erase import DELETED, erase_message, erase_messages
from contracts.jetstream.pull import LogMessage, read_newest, read_stream
from contracts.jetstream.replay import replay
from contracts.streams import DIRECTORY_BUCKET, SESSION_PREFIX
from contracts.subjects import facts

log = structlog.get_logger()

TRIES: Final = 20
_STREAM = f"KV_{DIRECTORY_BUCKET}"
_ALL = f"$KV.{DIRECTORY_BUCKET}.*"
_DELETED = {"DEL", "PURGE"}


async def put_entry(bus: Bus, entry: SessionEntry) -> None:
    """Write or replace what a session's log tells of it; how it is kept stays as it was. Durable when it returns.

    Raises
    ------
    UnavailableError
        If the server did not take it.
    """
    await _edit(bus, entry.session, lambda old: msgspec.structs.replace(entry, keeping=old.keeping) if old else entry)


async def change_keeping(bus: Bus, session: str, edit: Callable[[Keeping], Keeping]) -> SessionEntry | None:
    """Apply `edit` to how a session is kept, whoever else writes at the same time; its entry, None if it has none.

    `edit` may be called more than once. Raises as `put_entry` does.
    """
    return await _edit(bus, session, lambda old: old and msgspec.structs.replace(old, keeping=edit(old.keeping)))


async def bury_if(bus: Bus, session: str, doomed: Callable[[SessionEntry], bool]) -> bool:
    """Mark a session as erased, if its entry is `doomed` at that very moment; whether it was."""
    while True:
        message = await read_newest(bus, _STREAM, _key(session))
        entry = _decoded(message)
        if message is None or entry is None or not doomed(entry):
            return False
        if await put_if(bus, _key(session), b"", message.sequence, **DELETED) is not None:
            return True


async def forget_erasure(bus: Bus, session: str) -> None:
    """Somebody brings an erased session in again, on purpose: it does not count as erased any more."""
    if await was_erased(bus, session):
        await erase_messages(bus, _STREAM, _key(session))


async def remove_entry(bus: Bus, session: str) -> None:
    """Take a session out of the directory."""
    marker = await bus.publish(_key(session), b"", headers=DELETED)
    await erase_messages(bus, _STREAM, _key(session), before=marker)


async def get_entry(bus: Bus, session: str) -> SessionEntry | None:
    """A session's entry; None if there is none, or it was deleted."""
    entry = await find_entry(bus, session)
    return None if entry is None or entry.deleted else entry


async def find_entry(bus: Bus, session: str) -> SessionEntry | None:
    """A session's entry, also one that was deleted and can be brought back; None if there is none."""
    return _decoded(await read_newest(bus, _STREAM, _key(session)))


async def was_erased(bus: Bus, session: str) -> bool:
    """Whether somebody erased the session: then nothing may bring it back."""
    return (await look_up(bus, session))[1]


async def look_up(bus: Bus, session: str) -> tuple[SessionEntry | None, bool]:
    """A session's entry as `find_entry` has it, and whether it was erased."""
    message = await read_newest(bus, _STREAM, _key(session))
    erased = message is not None and message.headers.get("KV-Operation") in _DELETED
    return _decoded(message), erased


async def list_entries(bus: Bus) -> list[SessionEntry]:
    """Every session, oldest first, without those that were deleted."""
    return [entry for entry in await list_every_entry(bus) if not entry.deleted]


async def list_every_entry(bus: Bus) -> list[SessionEntry]:
    """Every session, oldest first, also those that were deleted and can be brought back."""
    entries, _ = await read_directory(bus)
    return entries


async def read_directory(bus: Bus) -> tuple[list[SessionEntry], set[str]]:
    """Every session, oldest first, also deleted ones; and the ids of those that were erased."""
    entries: dict[str, SessionEntry] = {}
    erased: set[str] = set()
    async for message in read_stream(bus, _STREAM, filter_subject=_ALL, last_per_subject=True):
        session = message.subject.rpartition(".")[2]  # one that is written anew while we read comes twice
        entries.pop(session, None)
        erased.discard(session)
        if (entry := _decoded(message)) is not None:
            entries[session] = entry
        else:
            erased.add(session)
    return [entries[session] for session in sorted(entries)], erased


async def watch_entries(bus: Bus, handler: Callable[[SessionEntry], Awaitable[None]]) -> None:
    """Hand every entry that is written from now on, as it passes, to `handler`; not those of deleted sessions."""

    async def receive(_subject: str, data: bytes) -> None:
        if data and not (entry := decode_entry(data)).deleted:  # empty: the entry was removed
            await handler(entry)

    await bus.subscribe(_ALL, receive)


async def watch_deletions(bus: Bus, handler: Callable[[SessionEntry], Awaitable[None]]) -> None:
    """Hand the entry of every session that is deleted from now on, and can be brought back, to `handler`."""

    async def receive(_subject: str, data: bytes) -> None:
        if data and (entry := decode_entry(data)).deleted:
            await handler(entry)

    await bus.subscribe(_ALL, receive)


async def watch_erasures(bus: Bus, handler: Callable[[str], Awaitable[None]]) -> None:
    """Hand the id of every session that is erased from now on to `handler`."""

    async def receive(subject: str, data: bytes) -> None:
        if not data:
            await handler(subject.rpartition(".")[2])

    await bus.subscribe(_ALL, receive)


async def rebuild_entry(bus: Bus, session: str) -> SessionEntry | None:
    """The entry as the session's own stream tells it, written to the directory; None if the stream holds no start.

    Facts that cannot be read, or that speak of another session, are left out.

    Raises
    ------
    SessionNotFoundError
        If there is no such session.
    """
    found: list[SessionFact] = []
    async for message in replay(bus, session, filter_subject=facts(session)):
        try:
            fact = decode_fact(message.data)
        except MalformedError as error:
            log.warning("fact_unreadable", session=session, sequence=message.sequence, error=str(error))
            continue
        if fact.session == session:
            found.append(fact)
    entry: SessionEntry | None = None
    for fact in sorted(found, key=_in_time):  # one that was sent again may stand behind later ones
        entry = fold_entry(entry, fact)
    if entry is not None:
        await put_entry(bus, entry)
    return entry


async def list_stream_sessions(bus: Bus) -> list[str]:
    """Every session that has a stream on the server, whatever the directory says."""
    names: list[str] = []
    while True:
        page = await bus.api("STREAM.NAMES", {"offset": len(names), "subject": "rec.>"})
        names += page.get("streams") or []
        if len(names) >= page["total"] or not page.get("streams"):
            return sorted(name.removeprefix(SESSION_PREFIX) for name in names)


def _in_time(fact: SessionFact) -> tuple[bool, int]:
    return not isinstance(fact, SessionStarted), fact.at_ns


async def _edit(
    bus: Bus, session: str, edit: Callable[[SessionEntry | None], SessionEntry | None]
) -> SessionEntry | None:
    """Write what `edit` makes of the entry that is there; what was replaced holds names, so it is overwritten."""
    for attempt in range(1, TRIES + 1):
        try:
            message = await read_newest(bus, _STREAM, _key(session))
            before = _decoded(message)
            after = edit(before)
            if after is None or after == before:
                return after
            if await put_if(bus, _key(session), encode_entry(after), message.sequence if message else 0) is not None:
                if message is not None:
                    await erase_message(bus, _STREAM, message.sequence)
                return after
        except UnavailableError:
            if attempt >= PUBLISH_TRIES:
                raise
            await asyncio.sleep(RECONNECT_WAIT_S)
    raise UnavailableError(f"the entry of session {session} is being changed by many at once; try again")


def _decoded(message: LogMessage | None) -> SessionEntry | None:
    if message is None or not message.data or message.headers.get("KV-Operation") in _DELETED:
        return None
    return decode_entry(message.data)


def _key(session: str) -> str:
    return f"$KV.{DIRECTORY_BUCKET}.{check_id(session)}"
