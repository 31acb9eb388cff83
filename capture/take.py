"""One take: an uninterrupted voice connection of a session, from its tap to its batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, TypedDict

from capture.batches import Batcher, Publish
from capture.clock import boottime_ns
from capture.consent import Consent, Gate
from capture.voice.tap import Connection, Record, Tap
from contracts.events import TrackCount
from contracts.packets import NO_LEVEL, Outcome


class HeardSoFar(TypedDict):
    """What was recorded of a person: fields of `contracts.commands.LiveSpeaker`."""

    packets: int
    lost: int
    level_dbov: int | None


NOTHING_YET: Final[HeardSoFar] = {"packets": 0, "lost": 0, "level_dbov": None}


class Take:
    """Records one voice connection.

    Parameters
    ----------
    number
        Counts from 1 inside the session.
    zero_ns
        CLOCK_BOOTTIME at the zero of the session clock.
    identified
        Called with (ssrc, user id) when a key told whose SSRC it is.
    consent
        Whose speech may be written.
    reported
        Called with (ssrc, RTCP datagram as it was before encryption, arrival on CLOCK_BOOTTIME) for each sender report.

    Attributes
    ----------
    named
        User id by SSRC, of those whose identification is in the log.
    """

    def __init__(
        self,
        *,
        number: int,
        zero_ns: int,
        connection: Connection,
        publish: Publish,
        identified: Callable[[int, int], None],
        consent: Consent,
        reported: Callable[[int, bytes, int], None] = lambda _ssrc, _raw, _arrival_ns: None,
    ) -> None:
        self.number = number
        self._zero_ns = zero_ns
        self._publish = publish
        self._batchers: dict[int, Batcher] = {}
        self._consent = consent
        self._gates: dict[int, Gate] = {}
        self.tap = Tap(connection, self._open_track, identified, reported)
        self.datagram = self.tap.datagram
        self.named: dict[int, int] = {}

    @property
    def last_audio_ns(self) -> int | None:
        """CLOCK_BOOTTIME of the newest packet of audio."""
        return max(
            (batcher.last_ns for batcher in self._batchers.values() if batcher.last_ns is not None), default=None
        )

    def tick(self, now_ns: int) -> None:
        """Let what waits time out; call it every few tens of milliseconds."""
        self.tap.tick(now_ns)
        if not self._consent.everybody:
            self.settle()
        for batcher in self._batchers.values():
            batcher.tick(now_ns)

    def settle(self) -> None:
        """Whose speech may be written may have changed: nothing that may not is sent from now on."""
        for gate in self._gates.values():
            gate.settle()

    @property
    def withheld(self) -> int:
        """Packets that were not written because somebody does not want it, or nobody was named for them."""
        return sum(gate.withheld for gate in self._gates.values())

    @property
    def bytes(self) -> int:
        """Payload sent so far."""
        return sum(batcher.bytes for batcher in self._batchers.values())

    @property
    def oldest_ns(self) -> int | None:
        """Session clock of the oldest packet that waits for its batch; None if none does."""
        waiting = [batcher.oldest_ns for batcher in self._batchers.values() if batcher.oldest_ns is not None]
        return min(waiting, default=None)

    def finish(self) -> None:
        """Decide and send everything that waits."""
        self.tap.finish(boottime_ns())
        for gate in self._gates.values():
            gate.finish()
        for batcher in self._batchers.values():
            batcher.flush()

    def outcomes(self) -> dict[int, Counter[Outcome]]:
        """Packets so far, by SSRC and outcome."""
        return {ssrc: batcher.outcomes for ssrc, batcher in self._batchers.items()}

    def by_speaker(self) -> dict[int, HeardSoFar]:
        """What was recorded of each person whose SSRC is in the log."""
        people: dict[int, HeardSoFar] = {}
        for ssrc, user_id in self.named.items():
            batcher, stream = self._batchers.get(ssrc), self.tap.streams.get(ssrc)
            if batcher is None or stream is None:
                continue
            known = people.setdefault(user_id, NOTHING_YET.copy())
            known["packets"] += batcher.outcomes.total()
            known["lost"] += stream.order.lost
            known["level_dbov"] = batcher.loudest if batcher.loudest != NO_LEVEL else known["level_dbov"]
        return people

    def counts(self) -> tuple[TrackCount, ...]:
        """What was recorded of each SSRC."""
        return tuple(self._count(ssrc, batcher) for ssrc, batcher in self._batchers.items())

    def _count(self, ssrc: int, batcher: Batcher) -> TrackCount:
        stream = self.tap.streams[ssrc]
        user_id = stream.frames.user_id
        return TrackCount(
            take=self.number,
            ssrc=ssrc,
            batches=batcher.number,
            outcomes={outcome.name: count for outcome, count in batcher.outcomes.items()},
            user_id=None if user_id is None else str(user_id),
            duplicates=stream.order.duplicates,
            lost=stream.order.lost,
        )

    def _open_track(self, ssrc: int) -> Record:
        batcher = Batcher(take=self.number, ssrc=ssrc, zero_ns=self._zero_ns, publish=self._publish)
        self._batchers[ssrc] = batcher
        gate = self._gates[ssrc] = Gate(self._consent, lambda: self.owner(ssrc), batcher)
        return gate.record

    def owner(self, ssrc: int) -> int | None:
        """Whose SSRC it is: by the key that opened its frames, or as the gateway said."""
        stream = self.tap.streams.get(ssrc)
        return stream.frames.user_id if stream else None
