"""Erasing people from past sessions: at once where a session is over and saved, and later where it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from typing import Final

import msgspec
import structlog

from capture.home import Home
from contracts.commands import Forgotten
from contracts.directory import SessionEntry
from contracts.errors import RetoldError
from contracts.guilds import GuildSettings
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import find_entry, list_every_entry
from contracts.jetstream.forget import finish_forgetting, forget_in_session
from contracts.jetstream.guilds import change_guild, list_guilds
from contracts.jetstream.keeping import ArchivedError, bring_back
from contracts.jetstream.leases import LeaseHeldError, following, holding

log = structlog.get_logger()

FETCH_S: Final = 10.0  # so long an archived session is waited for, then it is done later
RETRY_S: Final = 5.0  # while somebody else has the session, or it still runs


class Forgetter:
    """Takes people out of sessions, one session at a time.

    Parameters
    ----------
    busy
        Whether a session is being recorded here, or its spool still holds what is not in the log.
    people
        Ids of who was in a session that is being recorded here; None if it is not.
    mine
        Whether a guild, by its id, is this one's to look after.
    """

    def __init__(
        self,
        bus: Bus,
        home: Home,
        busy: Callable[[str], bool],
        people: Callable[[str], Container[str] | None],
        mine: Callable[[str], bool] = lambda _guild_id: True,
    ) -> None:
        self._mine = mine
        self._people = people
        self._bus = bus
        self._home = home
        self._busy = busy
        self._one = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._again = self._closing = False

    async def finish(self) -> None:
        """Go on with what an earlier process began; raises UnavailableError if the server is away."""
        for session in await finish_forgetting(self._bus, self._home.folder):
            log.info("forgetting_finished", session=session)

    async def forget(self, guild_id: str, user_id: str, session: str = "") -> Forgotten:
        """Take a person out of every past session of a guild, or of the one that is named.

        Raises
        ------
        UnavailableError
            If the server went away; what was done is done.
        """
        entries = [each for each in await list_every_entry(self._bus) if each.guild_id == guild_id]
        theirs = [each for each in entries if session in {"", each.session} and self._holds(each, user_id)]
        done: list[str] = []
        later: list[str] = []
        packets = 0
        for entry in theirs:
            if entry.ended_unix_ns is None or self._busy(entry.session):
                later.append(entry.session)
                continue
            proof = await self._forget_one(entry.session, user_id)
            if proof is None:
                later.append(entry.session)
            else:
                done.append(entry.session)
                packets += proof
        if later:
            marks = {f"{each}/{user_id}" for each in later}
            await change_guild(self._bus, guild_id, lambda old: _with_marks(old, {*old.to_forget, *marks}))
            self.look()
        return Forgotten(sessions=tuple(done), packets=packets, later=tuple(later))

    def _holds(self, entry: SessionEntry, user_id: str) -> bool:
        """Whether somebody was there; the directory says so only of sessions that are over."""
        if user_id in entry.people:
            return True
        people = self._people(entry.session)
        return entry.ended_unix_ns is None and (people is None or user_id in people)

    def look(self) -> None:
        """Some session may be over now: do what was put off, again and again while anything is."""
        if self._tasks:
            self._again = True
            return
        task = asyncio.create_task(self._do_later())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let what is under way come to its end: half a session is no session."""
        self._closing = True
        async with self._one:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _do_later(self) -> None:
        while True:
            self._again = False
            try:
                left = await self._do_marks()
            except RetoldError as error:
                left = True
                log.warning("forgetting_put_off", reason=str(error))
            if self._closing or not (left or self._again):
                return
            await asyncio.sleep(RETRY_S)

    async def _do_marks(self) -> bool:
        """Whether any is left."""
        for settings in await self._guilds():
            for mark in settings.to_forget:
                await self._do_mark(settings.guild_id, mark)
        return any(settings.to_forget for settings in await self._guilds())

    async def _guilds(self) -> list[GuildSettings]:
        return [settings for settings in await list_guilds(self._bus) if self._mine(settings.guild_id)]

    async def _do_mark(self, guild_id: str, mark: str) -> None:
        session, _, user_id = mark.partition("/")
        entry = await find_entry(self._bus, session)
        if entry is not None:
            if entry.ended_unix_ns is None or self._busy(session):
                return
            if await self._forget_one(session, user_id) is None:
                return
        await change_guild(self._bus, guild_id, lambda old: _with_marks(old, {*old.to_forget} - {mark}))

    async def _forget_one(self, session: str, user_id: str) -> int | None:
        """How many packets went; None if another process has the session at the moment."""
        try:
            await bring_back(self._bus, session, patience_s=FETCH_S)  # nobody is taken out of what lies in the archive
        except ArchivedError as error:
            log.warning("forgetting_waits_for_the_archive", session=session, reason=str(error))
            return None
        async with self._one:
            try:
                owner = self._home.owner  # nobody else writes to the session meanwhile
                async with holding(self._bus, session, owner), holding(self._bus, following(session), owner):
                    proof = await forget_in_session(self._bus, session, user_id, self._home.folder)
            except LeaseHeldError:
                return None
            return proof.packets if proof else 0


def _with_marks(settings: GuildSettings, marks: set[str]) -> GuildSettings:
    return msgspec.structs.replace(settings, to_forget=tuple(sorted(marks)))
