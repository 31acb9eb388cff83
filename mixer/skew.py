"""A sender's clock as it is known now: a line under the delays of recent cells.

    arrival - RTP time = offset + skew * session time + queues >= 0

The skew is a weighted median of slopes between cells of one segment (no step inside), over long distances; what few
cells say is weighed against what was known before. The offset is the lowest level that is more than a stray packet.
"""

from __future__ import annotations

from functools import cache
from math import sqrt
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from mixer.cells import Floats

WINDOW_S: Final = 1200.0  # a sound card's warmth changes its skew over tens of minutes
SHORTEST_WINDOW_S: Final = 60.0
MAX_SKEW: Final = 1e-3  # ten times the worst sound card; steeper is no clock
PRIOR_SKEW_SD: Final = 50e-6  # of sound cards
BORROWED_SKEW_SD: Final = 3e-6  # of one card, from one hour to the next
BORROW_SPAN_S: Final = 120.0  # a skew measured over less is nobody's but its life's
FLOOR_SD_S: Final = (0.0002, 0.0015)  # how well a cell's least delay tells the floor, at best and at worst
FEW_CELLS: Final = 12  # so few tell it half as well
LEVEL_S: Final = 0.006  # what one level of the floor spans
LOW_QUANTILE: Final = 0.02  # single early packets are no floor
OFFSET_QUANTILE: Final = 0.1
BEND_S: Final = 0.001  # a line that is off by so much is no line
BENT_CELLS: Final = 18  # from fewer nobody can tell
DOUBT: Final = 3  # standard deviations
LEAST_SD: Final = 2e-6  # warmth changes a clock by so much within minutes
SHORTEST_RUN_S: Final = 0.5
NEIGHBOURS: Final = 5
_PARTS: Final = (2, 3, 4, 8)  # of the cells lie between the two of a pair
_FEW: Final = 64  # cells of which every pair is compared


class Belief(msgspec.Struct, frozen=True):
    """A skew (seconds gained per second) and how far it may be off (standard deviation)."""

    skew: float = 0.0
    sd: float = PRIOR_SKEW_SD


def another_device(skew: float) -> Belief:
    """What is known after a sender's step: the same clock, or any."""
    return Belief(skew, PRIOR_SKEW_SD + abs(skew))


def fit_skew(time_s: Floats, delay_s: Floats, segment: Floats, prior: Belief, start: Belief) -> Belief:
    """The skew by these cells and what was known before.

    Parameters
    ----------
    time_s, delay_s, segment
        Cells by time; slopes are taken only inside a segment.
    prior
        What was known before any of these.
    start
        A skew to begin with, and how far off it may be: what lies farther apart than that lies on two levels.
    """
    if len(time_s) < 2:  # noqa: PLR2004  # no slope
        return prior
    low = _low(delay_s - start.skew * time_s)
    time_s, delay_s, segment = time_s[low], delay_s[low], segment[low]
    rises, runs = _pairs(time_s, delay_s - start.skew * time_s, segment, start.sd)
    if not len(rises):
        return prior
    slopes = rises / runs
    found = start.skew + _weighted_median(slopes, runs)
    apart_s = sqrt(float(np.add.reduce(runs * runs)) / len(runs))
    sd = _noise_s(delay_s - found * time_s) * (1 + FEW_CELLS / len(time_s)) / apart_s
    weight = prior.sd**2 / (prior.sd**2 + sd**2)
    skew = prior.skew + weight * (found - prior.skew)
    return Belief(min(max(skew, -MAX_SKEW), MAX_SKEW), sd * sqrt(weight))


def floor(residual_s: Floats) -> float:
    """The lowest level that is more than a stray packet, seconds."""
    return _floor(np.sort(residual_s))


def _floor(ordered: Floats) -> float:
    base = ordered[int(LOW_QUANTILE * (len(ordered) - 1))]
    level = int(ordered.searchsorted(base + LEVEL_S, side="right"))
    return float(ordered[int(OFFSET_QUANTILE * (level - 1))])


def _median(ordered: Floats) -> float:
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    return float(ordered[middle - 1] + ordered[middle]) / 2


def _low(residual_s: Floats) -> NDArray[np.bool_]:
    """Which cells are the lower ones among their neighbours: the others tell of queues."""
    count = len(residual_s)
    if count < 2 * NEIGHBOURS:
        return np.ones(count, dtype=bool)
    edges = residual_s[:1], residual_s[-1:]
    padded = np.concatenate((edges[0], edges[0], residual_s, edges[1], edges[1]))
    one, two, own, four, five = (padded[shift : shift + count] for shift in range(NEIGHBOURS))
    # The median of five: that of one of them and of two bounds between which it lies, given the others.
    below = np.maximum(np.minimum(one, two), np.minimum(four, five))
    above = np.minimum(np.maximum(one, two), np.maximum(four, five))
    median = np.maximum(np.minimum(below, above), np.minimum(np.maximum(below, above), own))
    low: NDArray[np.bool_] = residual_s <= median
    return low


def _noise_s(residual_s: Floats) -> float:
    """How well these tell the floor: by how much most of them are above it."""
    ordered = np.sort(residual_s)
    return min(max(_median(ordered) - _floor(ordered), FLOOR_SD_S[0]), FLOOR_SD_S[1])


def is_bent(residual_s: Floats) -> bool:
    """Whether what is left of delays, by time, does not lie on a line."""
    third, more = divmod(len(residual_s), 3)
    one, two = third + (more > 0), 2 * third + more
    first, middle, last = floor(residual_s[:one]), floor(residual_s[one:two]), floor(residual_s[two:])
    spread = _median(np.sort(residual_s)) - min(first, middle, last)
    allowed = BEND_S * (1 + FEW_CELLS / len(residual_s)) + spread / 2
    return max(abs(last - first), abs(middle - (first + last) / 2)) > allowed


def _pairs(time_s: Floats, residual_s: Floats, segment: Floats, sd: float) -> tuple[Floats, Floats]:
    """Rises and distances of pairs of cells on one level of one segment."""
    count = len(time_s)
    if count <= _FEW:
        first, later = _every_pair(count)
    else:
        steps = [count // part for part in _PARTS]
        first = np.concatenate([np.arange(count - step) for step in steps])
        later = np.concatenate([np.arange(step, count) for step in steps])
    rises = residual_s[later] - residual_s[first]
    runs = time_s[later] - time_s[first]
    level = np.abs(rises) <= LEVEL_S + DOUBT * max(sd, LEAST_SD) * runs
    good = level & (segment[later] == segment[first]) & (runs > SHORTEST_RUN_S)
    return rises[good], runs[good]


@cache
def _every_pair(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(count, 1)


def _weighted_median(values: Floats, weights: Floats) -> float:
    order = values.argsort()  # of equal values any may come first: the median is a value
    total = weights[order].cumsum()
    return float(values[order[total.searchsorted(total[-1] / 2)]])
