"""A person taken out of a session's log: which messages go, which facts change, and what stays as it is.

Gone: every batch of an SSRC that was theirs, and what tells of them alone (joining, leaving, consent, sender reports).
Changed: facts about everybody lose this person's part. Untouched, byte for byte: everything else.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final

import msgspec

from contracts import subjects
from contracts.errors import MalformedError
from contracts.events import (
    EpochChanged,
    NoteAdded,
    SenderReported,
    SessionEnded,
    SessionFact,
    SessionStarted,
    SpeakerAdmitted,
    SpeakerIdentified,
    SpeakerJoined,
    SpeakerLeft,
    SpeakerWithheld,
    decode_fact,
    encode_fact,
)
from contracts.ids import Snowflake
from contracts.packets import decode_batch

OF_ONE_PERSON: Final = (SpeakerJoined, SpeakerLeft, SpeakerIdentified, SpeakerWithheld, SpeakerAdmitted)


class Sources:
    """Whose each SSRC is, by every identification: one that was ever this person's is taken for theirs."""

    def __init__(self, user_id: Snowflake) -> None:
        self.user_id = user_id
        self.name = ""
        self._of: dict[tuple[int, int], dict[str, SpeakerIdentified]] = {}
        self._counted: set[tuple[int, int]] = set()

    def apply(self, fact: SessionFact) -> None:
        """Learn from a fact."""
        match fact:
            case SpeakerIdentified():
                self._of.setdefault((fact.take, fact.ssrc), {})[fact.user_id] = fact
            case SpeakerJoined() if fact.user_id == self.user_id:
                self.name = fact.name or self.name
            case SessionEnded():
                self._counted |= {(each.take, each.ssrc) for each in fact.tracks if each.user_id == self.user_id}
            case _:
                pass

    def theirs(self, take: int, ssrc: int) -> bool:
        """Whether packets of this SSRC are this person's: nobody else's key opened them."""
        users = self._of.get((take, ssrc), {})
        keyed = {user for user, fact in users.items() if fact.by == "key"}
        return self.user_id in (keyed or users.keys()) or (take, ssrc) in self._counted


class Removal:
    """What was taken out so far, and the digest of what was kept."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._digest = hashlib.sha256()
        self.messages = 0
        self.packets = 0

    @property
    def kept_sha256(self) -> str:
        """Digest of every batch that was kept, in order."""
        return self._digest.hexdigest()

    def apply(self, subject: str, data: bytes) -> bytes | None:
        """A message as it stays, or None if it goes; what cannot be read stays as it is."""
        try:
            parsed = subjects.parse(subject)
        except MalformedError:
            return data
        if isinstance(parsed, subjects.PacketSubject):
            return self._batch(parsed, data)
        try:
            fact = decode_fact(data)
        except MalformedError:
            return data
        if self._tells_of_them_alone(fact):
            return None
        changed = self._without(fact)
        return data if changed is fact else encode_fact(changed)

    def _batch(self, subject: subjects.PacketSubject, data: bytes) -> bytes | None:
        if not self._sources.theirs(subject.take, subject.ssrc):
            self._digest.update(hashlib.sha256(data).digest())
            return data
        self.messages += 1
        with contextlib.suppress(MalformedError):
            self.packets += len(decode_batch(data).packets)
        return None

    def _tells_of_them_alone(self, fact: SessionFact) -> bool:
        if isinstance(fact, SenderReported):
            return self._sources.theirs(fact.take, fact.ssrc)
        return isinstance(fact, OF_ONE_PERSON) and fact.user_id == self._sources.user_id

    def _without(self, fact: SessionFact) -> SessionFact:
        """A fact about everybody without this person; itself if there is nothing of them in it."""
        user_id, change = self._sources.user_id, msgspec.structs.replace
        match fact:
            case EpochChanged() if user_id in fact.members:
                return change(fact, members=tuple(each for each in fact.members if each != user_id))
            case SessionStarted() if fact.started_by == user_id:
                return change(fact, started_by=None)
            case SessionEnded():
                return self._ended(fact)
            case NoteAdded() if self._wrote(fact):
                return change(fact, author="", author_id=None)
            case _:
                return fact

    def _ended(self, fact: SessionEnded) -> SessionEnded:
        tracks = tuple(each for each in fact.tracks if not self._sources.theirs(each.take, each.ssrc))
        ended_by = None if fact.ended_by == self._sources.user_id else fact.ended_by
        if tracks == fact.tracks and ended_by == fact.ended_by:
            return fact
        return msgspec.structs.replace(fact, tracks=tracks, ended_by=ended_by)

    def _wrote(self, fact: NoteAdded) -> bool:
        if fact.author_id is not None:
            return fact.author_id == self._sources.user_id
        return bool(fact.author) and fact.author in {self._sources.name, self._sources.user_id}
