"""One source followed: packets wait here, in the order they were sent, until their place is known for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import NS_PER_SECOND, TICKS_PER_SECOND
from contracts.packets import Outcome
from mixer.cells import Cells, Floats, cells
from mixer.lanes import spread
from mixer.pursuit import ROOM, LifeNotes, Line, Pursuit, Step
from mixer.replay import STAMP, Stamps
from mixer.room import Leg, corrected
from mixer.serial import Integers, lives
from mixer.skew import Belief
from mixer.spurts import Life, breaks, life_of, lost_after, readable

EARLY_NS: Final = NS_PER_SECOND  # so much earlier than either clock says may a packet belong, and still be in time
SLIP_TICKS: Final = 12  # a quarter of a millisecond: the steps in which drift is taken out


class Settled(msgspec.Struct, frozen=True):
    """Audio packets of one lane of one source in their final places, in the order they were sent.

    Attributes
    ----------
    lane
        Where a map jumps back, later packets overlap earlier ones: these are in another lane, to be added.
    record
        Which packets, by the numbers that `add` gave them.
    tick, ticks, silent, lost
        As in `PlacedSource`.
    """

    take: int
    ssrc: int
    lane: int
    record: Integers
    tick: Integers
    ticks: Integers
    silent: NDArray[np.bool_]
    lost: Integers


class Places(Protocol):
    """A map from RTP time to the session clock."""

    def places_s(self, timestamp: Integers, segment: Integers) -> Floats:
        """Session times of RTP times (ticks, unwrapped), seconds; segments ascending."""


class Notes(msgspec.Struct, frozen=True):
    """What was judged of one source, for the report.

    Attributes
    ----------
    skews
        Of each of its lives.
    steps
        In the order they were decided, without the pauses of a clock that stops.
    clock_stops
        How many of those there were.
    late
        Packets that came when their time was settled; they are left out.
    """

    skews: tuple[Belief, ...] = ()
    steps: tuple[Step, ...] = ()
    clock_stops: int = 0
    late: int = 0

    @classmethod
    def of(cls, told: Sequence[LifeNotes], *, late: int = 0) -> Notes:
        """What was judged of lives, together."""
        return cls(
            skews=tuple(life.belief for life in told),
            steps=tuple(step for life in told for step in life.steps),
            clock_stops=sum(life.clock_stops for life in told),
            late=late,
        )

    def with_legs(self, take: int, first_s: float, legs: Sequence[Leg]) -> Notes:
        """These and what was the recorder's own way while they were there."""
        shared = [Step(leg.at_s, leg.size_s * 1000, ROOM) for leg in legs if leg.take == take and leg.at_s > first_s]
        steps = tuple(sorted((*self.steps, *shared), key=lambda step: step.at_s))
        return msgspec.structs.replace(self, steps=steps)


class Anchor(msgspec.Struct, frozen=True):
    """The stretch of rigid packets that the last settled packet belongs to: where it began, and that packet."""

    segment: int
    timestamp: int
    tick: int
    last_sequence: int
    last_timestamp: int
    last_ticks: int


class LifeInProgress(msgspec.Struct):
    """A life and what of it is not settled yet."""

    waiting: Life
    pursuit: Pursuit
    first_sequence: int  # of what is not settled
    last: Life | None = None  # the clocked packet before it, alone
    line: Line | None = None
    anchor: Anchor | None = None

    def may_be_due(self, grid_ns: int) -> bool:
        """Whether what comes next can belong before `grid_ns`; spares the look at all of it."""
        if self.line is None:
            return True
        first_ns = float(self.waiting.arrival_ns[0])
        known = self.line.place_s(int(self.waiting.timestamp[0]), self.pursuit.segment)
        return min(first_ns, known * NS_PER_SECOND) - EARLY_NS < grid_ns


class View(msgspec.Struct, frozen=True):
    """What can be seen of a life: its packets, those that tell its clock, and their cells, if these can be told."""

    seen: Life
    points: Life
    cells: Cells | None


class SourceInProgress(msgspec.Struct):
    """The state of one source."""

    take: int
    ssrc: int
    first_s: float  # first arrival, session time
    queue: list[tuple[int, Stamps]] = []  # number of the first record, stamps
    lives: list[LifeInProgress] = []
    newest: tuple[int, int] | None = None  # unwrapped sequence and timestamp of the last packet in the log's order
    lane_ends: list[int] = []
    late: int = 0
    ended: list[LifeNotes] = []

    @property
    def waits(self) -> bool:
        """Whether anything is not settled."""
        return bool(self.queue) or any(len(life.waiting) for life in self.lives)

    @property
    def notes(self) -> Notes:
        """What was judged so far."""
        return Notes.of([*self.ended, *(life.pursuit.notes for life in self.lives)], late=self.late)

    def unpack(self, prior: Belief, since_ns: int) -> None:
        """Take in what is queued, but for what came before `since_ns`: its time is settled."""
        if not self.queue:
            return
        stamps = np.frombuffer(b"".join(stamps.tobytes() for _, stamps in self.queue), dtype=STAMP)
        record = np.concatenate([first + np.arange(len(stamps), dtype=np.int64) for first, stamps in self.queue])
        self.queue = []
        in_time = stamps["arrival_ns"] >= since_ns
        trusted = readable(stamps) & in_time
        if not trusted.all():
            self.late += len(stamps) - int(np.count_nonzero(in_time))
            stamps, record = stamps[trusted], record[trusted]
        known = [] if self.newest is None else [self.newest[0] & 0xFFFF]
        for part in lives(np.concatenate((known, stamps["sequence"])).astype(np.int64)):
            chosen = slice(max(part.start - len(known), 0), part.stop - len(known))
            if chosen.stop > chosen.start:
                fresh = part.start > 0 or not known
                self._take_in(stamps[chosen], record[chosen], prior, fresh=fresh)

    def look(self, life: LifeInProgress, sight_ns: int, legs: Sequence[Leg]) -> View:
        """What a life shows, by what came before `sight_ns`."""
        seen = life.waiting.where(life.waiting.arrival_ns < sight_ns)
        points = seen.clocked
        if not len(seen) or (life.line is not None and not len(points.spoken)):
            return View(seen, points, None)
        return View(seen, points, corrected(cells(points, life.last), self.take, legs))

    def settle(self, life: LifeInProgress, view: View, grid_ns: int) -> list[Settled]:
        """What belongs before `grid_ns`."""
        seen, points, found = view.seen, view.points, view.cells
        if not len(seen):
            return []
        if found is None:
            starts, segments = points.sequence[:1], [life.pursuit.segment]
            stop = int(seen.sequence[-1]) + 1
        else:
            verdicts = life.pursuit.judge(found)
            due = next((i for i, each in enumerate(verdicts) if each.due_s * NS_PER_SECOND >= grid_ns), len(verdicts))
            if due == 0:
                return []
            life.line = life.pursuit.fit(found, verdicts)
            life.pursuit.commit(found, verdicts[:due], life.line)
            starts, segments = points.sequence[found.start[:due]], [each.segment for each in verdicts[:due]]
            stop = int(points.sequence[found.start[due]] if due < len(found) else seen.sequence[-1] + 1)
            count = int(found.start[due]) if due < len(found) else len(points)
            life.last = points.take(slice(count - 1, count))
        life.first_sequence = stop
        life.waiting = life.waiting.take(slice(int(np.searchsorted(life.waiting.sequence, stop)), None))
        return self._place(life, seen, stop, starts, np.array(segments))

    def forget_ended_lives(self) -> None:
        """Keep of lives that are over what the report needs."""
        while len(self.lives) > 1 and not len(self.lives[0].waiting):
            life = self.lives.pop(0)
            self.ended.append(life.pursuit.notes)

    def _take_in(self, stamps: Stamps, record: Integers, prior: Belief, *, fresh: bool) -> None:
        sequence, timestamp = (None, None) if fresh or self.newest is None else self.newest
        new, self.newest = life_of(stamps, record, sequence=sequence, timestamp=timestamp)
        if fresh:
            self.lives.append(LifeInProgress(new, Pursuit(prior, prior), int(new.sequence[0])))
            return
        life = self.lives[-1]
        in_time = new.where(new.sequence >= life.first_sequence)
        self.late += len(new) - len(in_time)
        life.waiting = life.waiting.joined(in_time)

    def _place(
        self, life: LifeInProgress, seen: Life, stop: int, starts: Integers, segments: Integers
    ) -> list[Settled]:
        audio = seen.audio
        lost = lost_after(seen, audio)
        count = int(np.searchsorted(audio.sequence, stop))
        audio, lost = audio.take(slice(count)), lost[:count]
        if not len(audio) or life.line is None:
            return []
        segment = segments[np.maximum(np.searchsorted(starts, audio.sequence, side="right") - 1, 0)]
        tick, life.anchor = place(audio, segment, life.line, life.anchor)
        silent = audio.outcome == Outcome.SILENCE
        return [
            Settled(
                take=self.take,
                ssrc=self.ssrc,
                lane=lane,
                record=audio.record[part],
                tick=tick[part],
                ticks=audio.ticks[part],
                silent=silent[part],
                lost=lost[part],
            )
            for lane, part in spread(tick, audio.ticks, self.lane_ends)
        ]


def place(audio: Life, segment: Integers, places: Places, anchor: Anchor | None) -> tuple[Integers, Anchor]:
    """Session ticks of a life's next audio packets, and the anchor for those after them.

    Inside a stretch of running clock packets are rigid to each other, but for slips of SLIP_TICKS by which they follow
    the map.
    """
    exact = places.places_s(audio.timestamp, segment) * TICKS_PER_SECOND
    begins = np.concatenate(([not _continues(audio, segment, anchor)], breaks(audio) | (segment[1:] != segment[:-1])))
    first = np.flatnonzero(begins)
    stretch = np.cumsum(begins)
    base_timestamp = np.concatenate(([anchor.timestamp if anchor else 0], audio.timestamp[first]))[stretch]
    base_tick = np.concatenate(([anchor.tick if anchor else 0], np.rint(exact[first]).astype(np.int64)))[stretch]
    rigid = base_tick + audio.timestamp - base_timestamp
    tick: Integers = rigid + SLIP_TICKS * np.rint((exact - rigid) / SLIP_TICKS).astype(np.int64)
    return tick, Anchor(
        segment=int(segment[-1]),
        timestamp=int(base_timestamp[-1]),
        tick=int(base_tick[-1]),
        last_sequence=int(audio.sequence[-1]),
        last_timestamp=int(audio.timestamp[-1]),
        last_ticks=int(audio.ticks[-1]),
    )


def _continues(audio: Life, segment: Integers, anchor: Anchor | None) -> bool:
    """Whether the first packet belongs to the anchor's stretch."""
    if anchor is None or anchor.segment != segment[0]:
        return False
    passed = (int(audio.sequence[0]) - anchor.last_sequence) * anchor.last_ticks
    return int(audio.timestamp[0]) - anchor.last_timestamp == passed
