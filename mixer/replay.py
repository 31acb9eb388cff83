"""The log folded into a session: who was there, what was noted, and every packet's two clocks by source.

A fold over `(subject, data)`: facts are kept by id and batches by number, so that any order, duplication or split of
the same messages gives the same session. Packets go into columns on disk; memory does not grow with the talk.

    subject, data -> SessionFold.apply -> SessionFold.session() -> Session(people, notes, tracks -> sources -> stamps)
"""

from __future__ import annotations

from functools import cache
from typing import Final

import msgspec

from contracts import subjects
from contracts.clock import FRAME_TICKS, NS_PER_SECOND, TICKS_PER_SECOND, ns_to_ticks
from contracts.errors import MalformedError
from contracts.events import (
    NoteAdded,
    SessionEnded,
    SessionFact,
    SessionStarted,
    SpeakerIdentified,
    SpeakerJoined,
    TakeClosed,
    TakeOpened,
    decode_fact,
)
from contracts.packets import PacketBatch, decode_batch
from mixer.columns import STAMP, Columns, PacketStore, RollCall, Rows, SourceKey, Stamps
from mixer.opus import Integers

__all__ = ["STAMP", "Session", "SessionFold", "Source", "SourceKey", "Stamps", "Track"]

UNKNOWN_PREFIX: Final = "unknown-"


class Source(msgspec.Struct, frozen=True):
    """All packets of one SSRC of one take, in the order of their batches' numbers.

    Attributes
    ----------
    columns
        Where they are.
    """

    take: int
    ssrc: int
    columns: PacketStore

    @property
    def stamps(self) -> Stamps:
        """Of every packet, dtype STAMP, in the order they were recorded; read from disk each time."""
        return self.rows["stamp"]

    @property
    def rows(self) -> Rows:
        """Stamps with the places of the payloads, dtype ROW; read from disk each time."""
        return self.columns.rows((self.take, self.ssrc))

    def payloads(self, offset: Integers, size: Integers) -> bytes:
        """Payloads one behind the other."""
        return self.columns.payloads(offset, size)


class Track(msgspec.Struct, frozen=True):
    """One speaker's sources, whatever SSRCs and takes they came from. `user_id` is `unknown-<ssrc>` if nobody's."""

    user_id: str
    name: str
    sources: tuple[Source, ...]


class Session(msgspec.Struct, frozen=True):
    """A session as the log tells it.

    Attributes
    ----------
    people
        Names by user id, of everybody who was there, bots only if they were heard.
    tracks
        Of everybody who sent a voice packet, by user id.
    duration_ticks
        To SessionEnded, or to the last arrival if it has not ended; ticks of 1/48000 s.
    malformed
        Messages that could not be read.
    """

    started: SessionStarted | None
    ended: SessionEnded | None
    takes: tuple[TakeOpened | TakeClosed, ...]
    people: dict[str, str]
    notes: tuple[NoteAdded, ...]
    tracks: tuple[Track, ...]
    duration_ticks: int
    malformed: int


class SessionFold:
    """The state of the fold.

    Parameters
    ----------
    columns
        Where the packets go; None = into temporary files.
    """

    def __init__(self, columns: Columns | RollCall | None = None) -> None:
        self._facts: dict[str, SessionFact] = {}
        self._columns = columns or Columns()
        self._is_audio = cache(_is_audio)
        self._malformed: set[tuple[str, bytes]] = set()

    @property
    def facts(self) -> tuple[SessionFact, ...]:
        """Those so far, in the order they came."""
        return tuple(self._facts.values())

    def apply(self, subject: str, data: bytes) -> SessionFact | PacketBatch | None:
        """One more message; one that is already known changes nothing, one that cannot be read is counted.

        Returns
        -------
        What it says; None if it cannot be read.
        """
        try:
            if self._is_audio(subject):
                batch = decode_batch(data)
                self._columns.append(batch)
                return batch
            fact = decode_fact(data)
        except MalformedError:
            self._malformed.add((subject, data))
            return None
        return self._facts.setdefault(fact.id, fact)

    def session(self) -> Session:
        """What the messages so far tell."""
        facts = sorted(self._facts.values(), key=lambda fact: (fact.at_ns, fact.id))
        ended = next((fact for fact in reversed(facts) if isinstance(fact, SessionEnded)), None)
        tracks = self._tracks(facts)
        return Session(
            started=next((fact for fact in facts if isinstance(fact, SessionStarted)), None),
            ended=ended,
            takes=tuple(fact for fact in facts if isinstance(fact, TakeOpened | TakeClosed)),
            people=_people(facts, tracks),
            notes=tuple(fact for fact in facts if isinstance(fact, NoteAdded)),
            tracks=tracks,
            duration_ticks=ns_to_ticks(ended.at_ns) if ended else self._last_tick(facts),
            malformed=len(self._malformed),
        )

    def _tracks(self, facts: list[SessionFact]) -> tuple[Track, ...]:
        owners = _owners(facts)
        own = {(fact.take, fact.ssrc) for fact in facts if isinstance(fact, TakeOpened)}
        sources: dict[str, list[Source]] = {}
        names: dict[str, str] = {}
        for take, ssrc in [key for key in self._columns.sources() if key not in own]:
            identified = owners.get((take, ssrc))
            user_id = identified.user_id if identified else f"{UNKNOWN_PREFIX}{ssrc}"
            names[user_id] = (identified.name if identified else "") or user_id
            sources.setdefault(user_id, []).append(Source(take, ssrc, self._columns))
        names |= {fact.user_id: fact.name for fact in facts if isinstance(fact, SpeakerJoined) and fact.name}
        return tuple(
            Track(user_id, names[user_id], tuple(found))
            for user_id, found in sorted(sources.items())
            if any(self._columns.voiced((source.take, source.ssrc)) for source in found)
        )

    def _last_tick(self, facts: list[SessionFact]) -> int:
        ends = [fact.at_ns for fact in facts]
        if (last := self._columns.last_arrival_ns) is not None:
            ends.append(last)
        frame_ns = FRAME_TICKS * NS_PER_SECOND // TICKS_PER_SECOND
        return ns_to_ticks(max(ends, default=-frame_ns) + frame_ns)


def _is_audio(subject: str) -> bool:
    return isinstance(subjects.parse(subject), subjects.PacketSubject)


def _owners(facts: list[SessionFact]) -> dict[SourceKey, SpeakerIdentified]:
    """Whose each SSRC is: what opened with a person's key outweighs what the gateway said; then the later fact."""
    owners: dict[SourceKey, SpeakerIdentified] = {}
    for fact in facts:
        if isinstance(fact, SpeakerIdentified):
            known = owners.get((fact.take, fact.ssrc))
            if known is None or known.by != "key" or fact.by == "key":
                owners[fact.take, fact.ssrc] = fact
    return owners


def _people(facts: list[SessionFact], tracks: tuple[Track, ...]) -> dict[str, str]:
    joined = {fact.user_id: fact.name for fact in facts if isinstance(fact, SpeakerJoined) and not fact.bot}
    people = joined | {track.user_id: track.name for track in tracks}
    return dict(sorted(people.items()))
