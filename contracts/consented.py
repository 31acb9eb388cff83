"""What of a log may be heard: a fold over messages that leaves out whose speech was withheld, or who was forgotten.

Capture writes nothing of such people in the first place. This stands in front of every render all the same: a log may
have come out of a bundle, out of two recorders, or from a version that knew less.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from contracts import subjects
from contracts.errors import MalformedError
from contracts.events import (
    PersonForgotten,
    SessionFact,
    SpeakerAdmitted,
    SpeakerIdentified,
    SpeakerWithheld,
)
from contracts.ids import Snowflake
from contracts.packets import PacketBatch, decode_batch, encode_batch


class Consented:
    """Learns from a session's facts, and lets its batches through."""

    def __init__(self, facts: Iterable[SessionFact] = ()) -> None:
        self._owners: dict[tuple[int, int], SpeakerIdentified] = {}
        self._changes: dict[Snowflake, list[tuple[int, bool]]] = {}
        self._forgotten: set[Snowflake] = set()
        for fact in facts:
            self.apply(fact)

    def apply(self, fact: SessionFact) -> None:
        """One more fact; the order does not matter, nor does a fact that comes twice."""
        match fact:
            case SpeakerIdentified():
                known = self._owners.get((fact.take, fact.ssrc))
                if known is None or known.by != "key" or fact.by == "key":
                    self._owners[fact.take, fact.ssrc] = fact
            case SpeakerWithheld():
                self._change(fact.user_id, fact.at_ns, withheld=True)
            case SpeakerAdmitted():
                self._change(fact.user_id, fact.at_ns, withheld=False)
            case PersonForgotten():
                self._forgotten.add(fact.user_id)
            case _:
                pass

    @property
    def everybody(self) -> bool:
        """Whether nobody was ever withheld or forgotten: then nothing needs to be looked at."""
        return not (self._changes or self._forgotten)

    def allows(self, user_id: Snowflake, at_ns: int) -> bool:
        """Whether what arrived from this person at a moment of the session clock may be heard."""
        withheld = False
        for since_ns, state in self._changes.get(user_id, ()):
            if since_ns > at_ns:
                break
            withheld = state
        return not withheld and user_id not in self._forgotten

    def batch(self, batch: PacketBatch) -> PacketBatch | None:
        """A batch with what may be heard of it; itself if that is all, None if it is nothing."""
        owner = self._owners.get((batch.take, batch.ssrc))
        if owner is None or self.everybody:
            return batch
        kept = tuple(each for each in batch.packets if self.allows(owner.user_id, batch.arrival_ns(each)))
        if len(kept) == len(batch.packets):
            return batch
        return msgspec.structs.replace(batch, packets=kept) if kept else None

    def message(self, subject: str, data: bytes) -> bytes | None:
        """A message with what may be heard of it; what cannot be read stays as it is."""
        try:
            if self.everybody or not isinstance(subjects.parse(subject), subjects.PacketSubject):
                return data
            batch = decode_batch(data)
        except MalformedError:
            return data
        kept = self.batch(batch)
        if kept is batch:
            return data
        return None if kept is None else encode_batch(kept)

    def _change(self, user_id: Snowflake, at_ns: int, *, withheld: bool) -> None:
        changes = {*self._changes.get(user_id, ()), (at_ns, withheld)}
        self._changes[user_id] = sorted(changes)
