"""One sender's clock, followed: which steps it made and where its line runs, by the cells so far and a few ahead.

A *segment* is a stretch of RTP clock without a step of the sender's: each has an offset of its own, all share the skew.
The *level* is how much longer than at a segment's start the network's way is by now: while it changes, packets keep
their distance by RTP time. What `judge` says of a cell is final once `commit` has taken it in; what it says of those
ahead only helps to judge.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from contracts.clock import TICKS_PER_SECOND
from mixer.cells import JUMP_S, Cells, Floats
from mixer.room import LEAP_S
from mixer.serial import Integers
from mixer.skew import (
    BENT_CELLS,
    DOUBT,
    LEAST_SD,
    SHORTEST_WINDOW_S,
    WINDOW_S,
    Belief,
    another_device,
    fit_skew,
    floor,
    is_bent,
)

STEP_S: Final = 0.12  # six frames: more than a jitter buffer hides, less than any pause
LONG_STEP_S: Final = 0.3  # queues that hold half a second of speech back for so long are rare
SURE_STEP_S: Final = 1.0  # no network holds everything back for so long
FLAT_S: Final = 0.01  # after a pause of the sender delays are as even as before
DROP_S: Final = 0.005  # a floor that falls by more is another way through the network
RISE_S: Final = 60.0  # so long must the floor stay up to be another way
LASTING_CELLS: Final = 3
LASTING_PACKETS: Final = 25
SETTLING_CELLS: Final = 6  # of a segment: before that a lower floor is a better look at the same way
MIN_STOPS: Final = 3
KEPT_CELLS: Final = 48  # of somebody who hardly speaks, however old
BENT_SD: Final = 15e-6  # of a skew that seems to have changed
REFIT_S: Final = 6.0
SENDER: Final = "sender"
NETWORK: Final = "network"
ROOM: Final = "room"
_LONG_AGO: Final = -1e9


class Step(msgspec.Struct, frozen=True):
    """Where a sender's RTP clock and its arrivals parted for good: an entry of the report.

    Attributes
    ----------
    at_s
        Session time of the first packet after it, seconds.
    milliseconds
        How much later (positive) packets came from then on.
    decided
        `sender`: it paused or its clock was set, and the map follows the arrivals; `network`: the way changed, and the
        RTP clock is believed; `room`: the recorder's own way changed, for all at once.
    """

    at_s: float
    milliseconds: float
    decided: str


class LifeNotes(msgspec.Struct, frozen=True):
    """What was judged of one life: its skew, its steps, and in how many pauses its clock stood still."""

    belief: Belief
    steps: tuple[Step, ...]
    clock_stops: int


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What a cell shows.

    Attributes
    ----------
    due_s
        Session time its first sound belongs to as far as is known, seconds; it is judged once that is past.
    step_s, sender
        The step before it, 0 if there is none, and whether the sender made it.
    stray
        It came too early, and nothing confirms it.
    """

    due_s: float
    segment: int
    level_s: float
    step_s: float = 0.0
    sender: bool = False
    stray: bool = False


class Line(msgspec.Struct, frozen=True):
    """delay = offsets[segment] + skew * (session time - ref_s), less the network's level."""

    skew: float
    ref_s: float
    offsets: dict[int, float]

    def place_s(self, timestamp: int, segment: int) -> float:
        """Session time of an RTP time (ticks, unwrapped), seconds."""
        sent_s = timestamp / TICKS_PER_SECOND
        return (sent_s + self.offsets[segment] - self.skew * self.ref_s) / (1 - self.skew)

    def places_s(self, timestamp: Integers, segment: Integers) -> Floats:
        """The same of many, their segments ascending."""
        first = int(segment[0])
        numbers = range(first, int(segment[-1]) + 1)
        offset = np.array([self.offsets.get(number, 0.0) for number in numbers])[segment - first]
        places: Floats = (timestamp / TICKS_PER_SECOND + offset - self.skew * self.ref_s) / (1 - self.skew)
        return places


class Pursuit(msgspec.Struct):
    """The state of a fold over one life's cells. All of it is what `msgspec` can write."""

    prior: Belief
    belief: Belief
    segment: int = 0
    segment_cells: int = 0
    offset_s: float | None = None
    ref_s: float = 0.0
    level_s: float = 0.0
    last_s: float = 0.0
    stops: int = 0
    kept: int = 0
    high: int = 0
    fitted_s: float = _LONG_AGO
    since_s: float = _LONG_AGO
    history: Floats = msgspec.field(default_factory=lambda: np.empty((3, 0)))  # time, delay less level, segment
    steps: list[Step] = []

    @property
    def stopping(self) -> bool:
        """Whether this sender's RTP clock stands still in silence."""
        return self.stops >= MIN_STOPS and self.stops > self.kept

    @property
    def span_s(self) -> float:
        """From the first cell that still counts to the last, seconds."""
        time_s = self.history[0]
        return float(time_s[-1] - time_s[0]) if len(time_s) else 0.0

    @property
    def notes(self) -> LifeNotes:
        """What was judged so far."""
        if not self.stopping:
            return LifeNotes(self.belief, tuple(self.steps), 0)
        steps = tuple(step for step in self.steps if step.decided != SENDER or step.milliseconds < 0)
        return LifeNotes(self.belief, steps, len(self.steps) - len(steps))

    def over_s(self, cells: Cells) -> Floats:
        """By how much each cell is later than the line so far; there must be one."""
        over: Floats = cells.delay_s - ((self.offset_s or 0.0) + self.level_s)
        return over - self.belief.skew * (cells.time_s - self.ref_s)

    def leap(self, cells: Cells) -> tuple[float, float, float] | None:
        """The first change of the least delay that lasts: after when, by when, by how much (seconds)."""
        if self.offset_s is None or self.stopping or self.high or self.segment_cells < LASTING_CELLS:
            return None
        over = self.over_s(cells)
        lowest = np.minimum.accumulate(over[::-1])[::-1]
        for index in np.flatnonzero((lowest > LEAP_S) | (over < -LEAP_S)).tolist():
            after_s = float(cells.time_s[index - 1]) if index else self.last_s
            if over[index] > 0:
                return after_s, float(cells.begin_s[index]), float(lowest[index])
            if index + 1 < len(over) and lowest[index + 1] < over[index] / 2:
                return after_s, float(cells.time_s[index]), float(over[index : index + SETTLING_CELLS].min())
        return None

    def judge(self, cells: Cells) -> list[Verdict]:
        """What each cell shows, by all of them."""
        if self.offset_s is None:
            self.ref_s = self.last_s = float(cells.time_s[0])
            level_s = cells.delay_s - self.belief.skew * (cells.time_s - self.ref_s)
            self.offset_s = float(level_s[:LASTING_CELLS].min())
        over = self.over_s(cells)
        lowest = np.minimum.accumulate(over[::-1])[::-1].tolist()
        scan = _Scan(self, over.tolist(), lowest, cells)
        return [scan.verdict(index) for index in range(len(cells))]

    def fit(self, cells: Cells, verdicts: list[Verdict]) -> Line:
        """The line under what was taken in and these cells."""
        now_s = float(cells.time_s[-1])
        time_s, delay_s, segment = np.concatenate((self.history, _rows(cells, verdicts)), axis=1)
        if now_s - self.fitted_s >= REFIT_S or len(time_s) < 2 * BENT_CELLS:
            self.fitted_s = now_s
            self._refit(time_s, delay_s, segment)
        residual = delay_s - self.belief.skew * (time_s - now_s)
        recent = time_s >= self.since_s
        offsets = {}
        for number in {verdict.segment for verdict in verdicts}:
            own = segment == number
            chosen = own & recent
            offsets[number] = floor(residual[chosen if chosen.any() else own if own.any() else slice(None)])
        return Line(self.belief.skew, now_s, offsets)

    def commit(self, cells: Cells, verdicts: list[Verdict], line: Line) -> None:
        """Take in cells that were judged for good, the first of these."""
        for verdict, time_s, running in zip(verdicts, cells.time_s.tolist(), cells.running.tolist(), strict=False):
            self._count(verdict, time_s, running=running)
            self.last_s = time_s
        oldest_s = max(self.since_s, self.last_s - WINDOW_S)
        kept = min(int(np.searchsorted(self.history[0], oldest_s)), max(self.history.shape[1] - KEPT_CELLS, 0))
        self.history = np.concatenate((self.history[:, kept:], _rows(cells, verdicts)), axis=1)
        self.segment, self.level_s = verdicts[-1].segment, verdicts[-1].level_s
        self.offset_s, self.ref_s = line.offsets[self.segment], line.ref_s
        self._follow_rise(self.offset_s)

    def _count(self, verdict: Verdict, time_s: float, *, running: bool) -> None:
        if verdict.sender:
            self.stops += running and verdict.step_s > 0
            self.segment_cells = self.high = 0
            self.belief = self.prior = another_device(self.belief.skew)
            self.since_s = time_s
        else:
            self.kept += not running and self.segment_cells > 0
        if verdict.step_s:
            self.steps.append(Step(time_s, verdict.step_s * 1000, SENDER if verdict.sender else NETWORK))
        self.segment_cells += 1

    def _follow_rise(self, offset_s: float) -> None:
        """Where the floor has been up for so long that it is another way, not congestion."""
        time_s, delay_s, segment = self.history
        low = (delay_s - offset_s - self.belief.skew * (time_s - self.ref_s) <= DROP_S) | (segment != self.segment)
        first = len(low) if low[-1] else int(np.flatnonzero(low)[-1]) + 1 if low.any() else 0
        over = (delay_s - offset_s - self.belief.skew * (time_s - self.ref_s))[first:]
        self.high = len(over) if len(over) and over[-1] > STEP_S / 2 else 0
        lasts = len(over) >= 2 * LASTING_CELLS and time_s[-1] - time_s[first] >= RISE_S
        if not lasts or first == 0 or segment[first - 1] != self.segment:
            return
        rise = float(over.min())
        self.level_s += rise
        self.history[1, first:] -= rise
        self.steps.append(Step(float(time_s[first]), rise * 1000, NETWORK))

    def _refit(self, time_s: Floats, delay_s: Floats, segment: Floats) -> None:
        while True:
            chosen = slice(int(np.searchsorted(time_s, self.since_s)), None)
            self.belief = fit_skew(time_s[chosen], delay_s[chosen], segment[chosen], self.prior, self.belief)
            if not self._bent(time_s[chosen], delay_s[chosen], segment[chosen]):
                return

    def _bent(self, time_s: Floats, delay_s: Floats, segment: Floats) -> bool:
        """Whether the last segment's cells do not lie on the line; then older ones count no more."""
        own = segment == segment[-1]
        time_s, delay_s = time_s[own], delay_s[own]
        span = time_s[-1] - time_s[0] if len(time_s) else 0.0
        if len(time_s) < BENT_CELLS or span <= SHORTEST_WINDOW_S:
            return False
        residual = delay_s - self.belief.skew * time_s
        allowed = DROP_S + DOUBT * max(self.belief.sd, LEAST_SD) * (time_s[1:] - time_s[:-1])
        for leap in (np.flatnonzero(np.abs(residual[1:] - residual[:-1]) > allowed) + 1).tolist():
            if abs(floor(residual[leap:]) - floor(residual[:leap])) > DROP_S:
                residual = residual[:leap]  # what follows is another way, or congestion
                break
        if len(residual) < BENT_CELLS or not is_bent(residual):
            return False
        self.belief = self.prior = Belief(self.belief.skew, BENT_SD)
        self.since_s = float(time_s[-1] - max(SHORTEST_WINDOW_S, span / 2))
        return True


def _rows(cells: Cells, verdicts: list[Verdict]) -> Floats:
    """The first cells as columns of `Pursuit.history`."""
    count = len(verdicts)
    rows = np.empty((3, count))
    rows[0], rows[1] = cells.time_s[:count], cells.delay_s[:count]
    rows[1] -= [verdict.level_s for verdict in verdicts]
    rows[2] = [verdict.segment for verdict in verdicts]
    if any(verdict.stray for verdict in verdicts):
        rows = rows[:, [not verdict.stray for verdict in verdicts]]
    return rows


class _Scan:
    """One pass over the visible cells."""

    def __init__(self, state: Pursuit, over: list[float], lowest: list[float], cells: Cells) -> None:
        self._state, self._over, self._lowest = state, over, lowest
        self._time_s: list[float] = cells.time_s.tolist()
        self._begin_s: list[float] = cells.begin_s.tolist()
        self._running: list[bool] = cells.running.tolist()
        self._packets: list[int] = cells.packets.tolist()
        self._skipped: list[int] = cells.skipped.tolist()
        self._stepped = 0.0
        self._segment, self._level_s = state.segment, state.level_s
        self._segment_cells, self._high = state.segment_cells, state.high

    def verdict(self, index: int) -> Verdict:
        """Of the next cell."""
        over, lowest = self._over[index] - self._stepped, self._lowest[index] - self._stepped
        step, sender, stray = 0.0, False, False
        if lowest > STEP_S and self._lasts(index, lowest):
            step, sender = lowest, True
        elif over < -self._drop_s(index) and not self._confirmed(index, over):
            stray = True
        elif over < -self._drop_s(index):
            sender = over < -STEP_S
            step = min(self._over[index : index + SETTLING_CELLS]) - self._stepped
            step = step if sender or self._segment_cells >= SETTLING_CELLS else 0.0
        if sender:
            self._segment, self._segment_cells = self._segment + 1, 0
        else:
            self._level_s += step
        self._stepped += step
        self._segment_cells += 1
        held = 0.0 if lowest - step > STEP_S else max(over - step, 0.0)
        return Verdict(self._begin_s[index] - held, self._segment, self._level_s, step, sender, stray)

    def _lasts(self, index: int, lowest: float) -> bool:
        paused = self._running[index] and self._skipped[index] > 0
        if lowest > SURE_STEP_S or (paused and self._state.stopping):
            return True
        stop = self._stretch_stop(index)
        near = sorted(self._over[index : min(stop, index + SETTLING_CELLS)])
        if near[len(near) // 2] - near[0] > FLAT_S + lowest / 10:
            return False  # a queue that drains
        if self._running[index] or lowest > LONG_STEP_S:
            return sum(self._packets[index:stop]) >= LASTING_PACKETS
        return self._high + len(self._over) - index >= LASTING_CELLS

    def _stretch_stop(self, index: int) -> int:
        """The next cell that comes later by a jump, or the end."""
        stop = index + 1
        while stop < len(self._over) and self._over[stop] - self._over[stop - 1] <= JUMP_S:
            stop += 1
        return stop

    def _drop_s(self, index: int) -> float:
        return DROP_S + DOUBT * max(self._state.belief.sd, LEAST_SD) * (self._time_s[index] - self._state.last_s)

    def _confirmed(self, index: int, over: float) -> bool:
        if index + 1 < len(self._over):
            return self._lowest[index + 1] - self._stepped < over / 2
        return self._packets[index] >= LASTING_PACKETS
