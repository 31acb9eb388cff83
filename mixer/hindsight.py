"""One life placed by all of it: the same judgement of steps as in following, with more foresight, then a smooth line.

The line of a segment is read at nodes a minute apart, each from the cells of twenty minutes around it, fewer where the
clock bends. What came later speaks for what came before, so a person who hardly talks is placed well from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from mixer.cells import Cells, Floats, cells
from mixer.curve import Curve, Stretch
from mixer.pursuit import NETWORK, SENDER, LifeNotes, Pursuit, Step
from mixer.replay import Source, SourceKey, Track
from mixer.room import HEARD_S, LEAP_S, Leap, Leg, common, corrected
from mixer.settling import Notes
from mixer.skew import (
    BENT_CELLS,
    BORROW_SPAN_S,
    BORROWED_SKEW_SD,
    SHORTEST_WINDOW_S,
    Belief,
    another_device,
    fit_skew,
    floor,
    is_bent,
)
from mixer.spurts import Life, order

STRIDE_S: Final = 30.0
SIGHT_S: Final = 60.0
NODE_S: Final = 60.0
REACH_S: Final = 600.0  # on both sides of a node
ENOUGH_CELLS: Final = 48
TAKEN_BACK_MS: Final = 10.0


class Judged(msgspec.Struct, frozen=True):
    """A life's cells and the steps between them."""

    cells: Cells
    steps: tuple[Step, ...]
    belief: Belief
    notes: LifeNotes
    stopping: bool

    def leaps(self, take: int, owner: str) -> Iterator[Leap]:
        """Steps that others may have made, too."""
        for step in () if self.stopping else self.steps:
            size_s = step.milliseconds / 1000
            index = int(np.flatnonzero(self.cells.time_s == step.at_s)[0])
            if abs(size_s) >= LEAP_S and index:
                by_s = self.cells.begin_s[index] if size_s > 0 else step.at_s
                yield Leap(take, owner, float(self.cells.time_s[index - 1]), float(by_s), size_s)

    def is_steady(self, leg: Leg) -> bool:
        """Whether they spoke on through it as if nothing had been."""
        since_s = self.cells.time_s - leg.at_s
        heard = ((since_s > -HEARD_S) & (since_s < 0)).any() and ((since_s >= 0) & (since_s < HEARD_S)).any()
        stepped = any(abs(step.at_s - leg.at_s) < HEARD_S for step in self.steps)
        return bool(heard) and not stepped and not self.stopping

    @property
    def span_s(self) -> float:
        """From the first cell to the last."""
        return float(self.cells.time_s[-1] - self.cells.time_s[0])


def judge(found: Cells) -> Judged:
    """The steps of one life."""
    state = _pursue(found, Pursuit(Belief(), Belief()))
    if state.stopping:  # so its first pauses were of that kind, too
        state = _pursue(found, Pursuit(Belief(), Belief(), stops=state.stops))
    notes = state.notes if state.stopping else msgspec.structs.replace(state.notes, steps=reconsidered(state.steps))
    steps = tuple(state.steps) if state.stopping else notes.steps
    return Judged(found, steps, state.belief, notes, stopping=state.stopping)


def _pursue(found: Cells, state: Pursuit) -> Pursuit:
    """The state after all cells."""
    first = 0
    while first < len(found):
        limit_s = float(found.time_s[first]) + STRIDE_S
        stop = first + int(np.searchsorted(found.time_s[first:], limit_s + SIGHT_S))
        seen = found.part(first, max(stop, first + 1))
        verdicts = state.judge(seen)
        due = next((i for i, each in enumerate(verdicts) if each.due_s >= limit_s), len(verdicts)) or 1
        line = state.fit(seen, verdicts)
        state.commit(seen, verdicts[:due], line)
        first += due
    return state


def reconsidered(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps, with those of a sender that were taken back as a whole: no capture does that, a detour does."""
    found = list(steps)
    for index, (there, back) in enumerate(pairwise(steps)):
        both = there.decided == back.decided == SENDER
        if both and abs(there.milliseconds + back.milliseconds) <= TAKEN_BACK_MS < abs(there.milliseconds):
            found[index : index + 2] = (msgspec.structs.replace(step, decided=NETWORK) for step in (there, back))
    return tuple(found)


def draw(life: Life, judged: Judged, prior: Belief) -> tuple[Curve, Belief]:
    """The map of one life, and what it tells of its sender's clock."""
    points = _Points(judged)
    begins = np.concatenate(([0], np.flatnonzero(np.diff(points.segment)) + 1))
    stretches, beliefs = [], []
    for first, stop in pairwise([*begins.tolist(), len(points.time_s)]):
        stretch, belief = points.stretch(slice(first, stop), prior)
        stretches.append(stretch)
        beliefs.append(belief)
        prior = another_device(belief.skew)
    curve = Curve(life.clocked.sequence[judged.cells.start[begins]], tuple(stretches))
    return curve, min(beliefs, key=lambda belief: belief.sd)


class _Points:
    """The cells of a life, the network's steps taken out."""

    def __init__(self, judged: Judged) -> None:
        self.time_s = judged.cells.time_s
        self.segment = np.zeros(len(self.time_s))
        self._delay_s = judged.cells.delay_s.copy()
        for step in judged.steps:
            after = int(np.flatnonzero(self.time_s == step.at_s)[0])
            if step.decided == SENDER:
                self.segment[after:] += 1
            else:
                self._delay_s[after:] -= step.milliseconds / 1000

    def stretch(self, own: slice, prior: Belief) -> tuple[Stretch, Belief]:
        """The line of a segment, which these cells are, and the surest belief about its skew."""
        first_s, last_s = float(self.time_s[own.start]), float(self.time_s[own.stop - 1])
        nodes = np.linspace(first_s, last_s, 1 + max(int(np.ceil((last_s - first_s) / NODE_S)), 0))
        values, beliefs = [], [Belief(prior.skew)]
        for node_s in nodes.tolist():
            value, belief = self._node(node_s, own, prior, beliefs[-1])
            values.append(value)
            beliefs.append(belief)
        surest = min(beliefs[1:], key=lambda belief: belief.sd)
        return Stretch(nodes, np.array(values), (beliefs[1].skew, beliefs[-1].skew)), surest

    def _node(self, node_s: float, own: slice, prior: Belief, start: Belief) -> tuple[float, Belief]:
        """The line's value at a node, and its skew there."""
        time_s, delay_s, segment = self.time_s[own], self._delay_s[own], self.segment[own]
        reach_s = _reach_s(time_s, node_s)
        while True:
            near = slice(*np.searchsorted(time_s, (node_s - reach_s, node_s + reach_s)).tolist())
            belief = fit_skew(time_s[near], delay_s[near], segment[near], prior, start)
            residual = delay_s[near] - belief.skew * (time_s[near] - node_s)
            reach_s = min(reach_s, float(time_s[near.stop - 1] - time_s[near.start])) / 2
            few = np.count_nonzero(np.abs(time_s - node_s) < reach_s) < BENT_CELLS
            if few or reach_s < SHORTEST_WINDOW_S / 2 or not is_bent(residual):
                return floor(residual), belief
            start = Belief(belief.skew)


def _reach_s(time_s: Floats, node_s: float) -> float:
    """As far as there are enough cells."""
    enough = min(ENOUGH_CELLS, len(time_s))
    nearest = np.abs(time_s - node_s)
    return max(REACH_S, float(np.partition(nearest, enough - 1)[enough - 1]) + 1)


class Hindsight:
    """What the whole log tells of everybody's clocks; a few numbers for each second of speech are kept."""

    def __init__(self, tracks: Iterable[Track]) -> None:
        self._judged: dict[SourceKey, list[Judged]] = {}
        self._owners: dict[SourceKey, str] = {}
        self._legs: list[Leg] = []
        for track in tracks:
            for source in track.sources:
                key = source.take, source.ssrc
                self._owners[key] = track.user_id
                self._judged[key] = [judge(cells(life.clocked)) for life in order(source.stamps)]
        while leg := self._next_leg():
            self._legs.append(leg)
            for (take, _), lives in self._judged.items():
                if take == leg.take:
                    lives[:] = [judge(corrected(life.cells, take, [leg])) for life in lives]

    def _next_leg(self) -> Leg | None:
        """A change of the recorder's own way that is not yet taken out."""
        leaps = [
            leap
            for key, lives in self._judged.items()
            for life in lives
            for leap in life.leaps(key[0], self._owners[key])
        ]
        known = {(leg.take, leg.at_s) for leg in self._legs}
        for leg in common(leaps):
            others = (life for key, lives in self._judged.items() if key[0] == leg.take for life in lives)
            if (leg.take, leg.at_s) not in known and not any(life.is_steady(leg) for life in others):
                return leg
        return None

    def curves(self, source: Source, lives: list[Life]) -> tuple[list[Curve], Notes]:
        """The maps of a source's lives."""
        key = source.take, source.ssrc
        judged = self._judged[key]
        drawn = [
            draw(life, each, self._prior(self._owners[key], each)) for life, each in zip(lives, judged, strict=True)
        ]
        notes = Notes.of(
            [
                msgspec.structs.replace(each.notes, belief=belief)
                for each, (_, belief) in zip(judged, drawn, strict=True)
            ]
        )
        first_s = min((each.cells.time_s[0] for each in judged), default=0.0)
        return [curve for curve, _ in drawn], notes.with_legs(source.take, float(first_s), self._legs)

    def _prior(self, owner: str, judged: Judged) -> Belief:
        """What the owner's longest life tells a shorter one of their clock."""
        others = [each for key, lives in self._judged.items() if self._owners[key] == owner for each in lives]
        longest = max(others, key=lambda each: each.span_s)
        if longest is judged or longest.span_s < BORROW_SPAN_S:
            return Belief()
        return Belief(longest.belief.skew, max(longest.belief.sd, BORROWED_SKEW_SD))
