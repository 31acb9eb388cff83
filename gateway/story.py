"""What happened in a session, as its facts tell it: notes, gaps, who came and went, what was received of whom.

A fold over the session's facts, kept for the sessions looked at last: a look at a running session reads only what is
new, and one at a session that has ended reads nothing at all.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import msgspec
import structlog

from contracts.clock import NS_PER_SECOND
from contracts.errors import MalformedError
from contracts.events import (
    GapRecorded,
    NoteAdded,
    SessionEnded,
    SessionFact,
    SpeakerIdentified,
    SpeakerJoined,
    TrackCount,
    count_outcomes,
    decode_fact,
)
from contracts.jetstream.connection import Bus
from contracts.jetstream.replay import last_sequence, replay
from contracts.subjects import facts

log = structlog.get_logger()

KEPT: Final = 64  # sessions; a story is some kilobytes
MAX_NOTES: Final = 2000
_REPORT: Final = b'"type":"sender_report.1"'  # one a second and sender, of no interest here: not worth decoding


class Note(msgspec.Struct, frozen=True):
    """A moment that somebody marked, seconds on the session clock."""

    at_s: float
    text: str
    author: str


class Gap(msgspec.Struct, frozen=True):
    """Nothing was heard, seconds on the session clock, and why."""

    from_s: float
    to_s: float
    cause: str


class Received(msgspec.Struct, frozen=True):
    """Packets of one person."""

    recorded: int = 0
    undecryptable: int = 0
    lost: int = 0


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """What is known up to a message of the log.

    Attributes
    ----------
    read_to
        Stream sequence of that message.
    speakers
        User id by (take, SSRC).
    """

    read_to: int = 0
    notes: tuple[Note, ...] = ()
    gaps: tuple[Gap, ...] = ()
    names: dict[str, str] = {}
    speakers: dict[tuple[int, int], str] = {}
    tracks: tuple[TrackCount, ...] = ()
    ended: bool = False

    def received(self) -> dict[str, Received]:
        """What was received, by user id; `` for voices that nobody could be found for."""
        by_user: dict[str, list[TrackCount]] = {}
        for track in self.tracks:
            user = track.user_id or self.speakers.get((track.take, track.ssrc), "")
            by_user.setdefault(user, []).append(track)
        totals = {user: count_outcomes(tuple(tracks)) for user, tracks in by_user.items()}
        return {user: Received(t["recorded"], t["undecryptable"], t["lost"]) for user, t in totals.items()}


def tell(story: Story, fact: SessionFact) -> Story:  # noqa: PLR0911  # one case, one return
    """The story with one more fact; the same fact twice changes nothing."""
    match fact:
        case NoteAdded():
            note = Note(fact.at_ns / NS_PER_SECOND, fact.text, fact.author)
            if note in story.notes or len(story.notes) >= MAX_NOTES:
                return story
            return msgspec.structs.replace(story, notes=tuple(sorted((*story.notes, note), key=lambda n: n.at_s)))
        case GapRecorded():
            gap = Gap(fact.from_ns / NS_PER_SECOND, fact.to_ns / NS_PER_SECOND, fact.cause)
            return story if gap in story.gaps else msgspec.structs.replace(story, gaps=(*story.gaps, gap))
        case SpeakerJoined() if not fact.bot and fact.name:
            return msgspec.structs.replace(story, names={**story.names, fact.user_id: fact.name})
        case SpeakerIdentified():
            return msgspec.structs.replace(story, speakers={**story.speakers, (fact.take, fact.ssrc): fact.user_id})
        case SessionEnded():
            return msgspec.structs.replace(story, tracks=fact.tracks, ended=True)
        case _:
            return story


class Stories:
    """The stories of the sessions that were looked at last.

    Parameters
    ----------
    bus
        The control connection.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._kept: OrderedDict[str, Story] = OrderedDict()
        self._locks: dict[str, asyncio.Lock] = {}
        self._outdated: set[str] = set()  # sessions that were forgotten while we read them

    async def of(self, session: str) -> Story:
        """The story of a session up to now.

        Raises
        ------
        SessionNotFoundError
            If there is no such session.
        """
        lock = self._locks.setdefault(session, asyncio.Lock())
        try:
            async with lock:
                return await self._catch_up(session)
        finally:
            if not lock.locked():
                self._locks.pop(session, None)
                self._outdated.discard(session)

    def forget(self, session: str) -> None:
        """It was erased, or is another one now: read it anew, and keep nothing of what is being read."""
        self._kept.pop(session, None)
        if session in self._locks:
            self._outdated.add(session)

    def forget_all(self) -> None:
        """What changed may have been missed."""
        for session in [*self._kept, *self._locks]:
            self.forget(session)

    async def _catch_up(self, session: str) -> Story:
        self._outdated.discard(session)
        story = self._kept.get(session, Story())
        if not story.ended:
            last = await last_sequence(self._bus, session)
            if last > story.read_to:
                story = await self._read_on(session, story, last)
        if session in self._outdated:
            return story
        self._kept[session] = story
        self._kept.move_to_end(session)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return story

    async def _read_on(self, session: str, story: Story, last: int) -> Story:
        messages = replay(self._bus, session, first=story.read_to + 1, last=last, filter_subject=facts(session))
        async for message in messages:
            if _REPORT in message.data[:64]:
                continue
            try:
                fact = decode_fact(message.data)
            except MalformedError as error:
                log.warning("fact_unreadable", session=session, sequence=message.sequence, error=str(error))
                continue
            if fact.session == session:
                story = tell(story, fact)
        return msgspec.structs.replace(story, read_to=last)
