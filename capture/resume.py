"""At start: every session that a capture left unfinished is put in order, and goes on if that was just now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from capture.home import Home
from capture.recovery import Standing, read_standing, retire_spool, store_missing
from capture.spool import Spool
from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.directory import list_entries, was_erased
from contracts.jetstream.leases import Lease, LeaseHeldError, take_lease
from contracts.streams import LEASE_S

log = structlog.get_logger()

AT_ONCE: Final = 8
AGAIN_S: Final = 0.25
GO_ON_WITHIN_NS: Final = 15 * 60 * 1_000_000_000  # nobody expects a bot to come back to yesterday's call


class Continue(Protocol):
    """Goes on with a session, or ends it if that is not possible."""

    async def __call__(self, standing: Standing, spool: Spool, *, rejoin: bool) -> None:
        """Take it over."""


async def find_unfinished(bus: Bus, home: Home, mine: Callable[[str], bool]) -> list[str]:
    """Sessions that an earlier capture left: ask before the first request is served, or ours are among them.

    Parameters
    ----------
    mine
        Whether a guild, by its id, is ours; of a session that nobody knows it is empty.

    Raises
    ------
    UnavailableError
        If the server did not answer.
    """
    entries = {entry.session: entry for entry in await list_entries(bus)}
    live = [entry.session for entry in entries.values() if entry.ended_unix_ns is None]
    guilds = {session: entries[session].guild_id if session in entries else "" for session in (*live, *home.sessions())}
    return sorted(session for session, guild_id in guilds.items() if mine(guild_id))


async def resume_each(bus: Bus, home: Home, sessions: list[str], go_on: Continue) -> None:
    """Put unfinished sessions in order, some at a time; one that fails is logged, and holds no other up."""
    room_for = asyncio.Semaphore(AT_ONCE)

    async def one(session: str) -> None:
        async with room_for:
            try:
                await _resume(bus, home, session, go_on)
            except LeaseHeldError as error:
                log.info("session_left_to_another", session=session, reason=str(error))
            except (RetoldError, OSError):
                log.exception("session_not_resumed", session=session)

    async with asyncio.TaskGroup() as tasks:
        for session in sessions:
            tasks.create_task(one(session))


async def settle_left(bus: Bus, home: Home, is_here: Callable[[str], bool]) -> None:
    """Spools of sessions that another capture went on with: when those are over, what only we have goes into the log.

    Raises
    ------
    RetoldError
        If the server is away.
    """
    entries = {entry.session: entry for entry in await list_entries(bus)}
    for session in home.sessions():
        entry = entries.get(session)
        if is_here(session) or (entry is not None and entry.ended_unix_ns is None):
            continue
        try:
            lease = await take_lease(bus, session, home.owner)
        except LeaseHeldError:
            continue
        await retire_spool(bus, session, home.spool(session))
        await lease.release()
        log.info("spool_settled", session=session)


async def _resume(bus: Bus, home: Home, session: str, go_on: Continue) -> None:
    await _take_lease(bus, session, home.owner)
    spool = home.spool(session)
    if await was_erased(bus, session):
        spool.remove()
        return
    await store_missing(bus, session, spool)
    try:
        standing = await read_standing(bus, session)
    except SessionNotFoundError:
        standing = None
    if standing is None or standing.ended:
        await retire_spool(bus, session, spool)
        return
    silent_ns = standing.clock().now_ns() - standing.last_ns
    log.info("session_resumes", session=session, silent_s=silent_ns / 1e9)
    await go_on(standing, spool, rejoin=silent_ns < GO_ON_WITHIN_NS)


async def _take_lease(bus: Bus, session: str, owner: str) -> Lease:
    """The lease of a capture that is dead may live on for some seconds."""
    until_s = time.monotonic() + LEASE_S + 1
    while True:
        try:
            return await take_lease(bus, session, owner)
        except LeaseHeldError:
            if time.monotonic() >= until_s:
                raise
            await asyncio.sleep(AGAIN_S)
