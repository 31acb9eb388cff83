"""The recorder's own way: what several people show at once is not theirs, and is taken out of everybody's arrivals.

A *leap* is a change of one sender's least delay that lasts. Two of equal size, at the same time, of two people, with
nobody else who spoke on through it, are a change of the way that all share: nobody's clock is moved by it, and who
comes later, or has a clock that stops in silence, is placed as if it had not been.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Final

import msgspec
import numpy as np

from mixer.cells import Cells

LEAP_S: Final = 0.04  # cells are cut where arrivals jump by so much
ALIKE_S: Final = 0.01
STEADY_S: Final = 0.02
HEARD_S: Final = 30.0  # who spoke so shortly before can tell


class Leap(msgspec.Struct, frozen=True):
    """Somebody's leap: it came after one session time and by another (seconds), later by `size_s`."""

    take: int
    owner: str
    after_s: float
    by_s: float
    size_s: float


class Leg(msgspec.Struct, frozen=True):
    """From `at_s` on, session time, everything of a take comes later by `size_s`."""

    take: int
    at_s: float
    size_s: float


def common(leaps: Iterable[Leap]) -> list[Leg]:
    """What two people share, by time."""
    found = [
        Leg(one.take, min(one.by_s, other.by_s), (one.size_s + other.size_s) / 2)
        for one, other in combinations(leaps, 2)
        if one.take == other.take
        and one.owner != other.owner
        and abs(one.size_s - other.size_s) <= ALIKE_S
        and max(one.after_s, other.after_s) < min(one.by_s, other.by_s)
    ]
    return sorted(found, key=lambda leg: leg.at_s)


def corrected(cells: Cells, take: int, legs: Iterable[Leg]) -> Cells:
    """The cells as if the recorder's way had not changed."""
    own = [leg for leg in legs if leg.take == take]
    if not own:
        return cells
    delay_s = cells.delay_s.copy()
    for leg in own:
        delay_s[cells.time_s >= leg.at_s] -= leg.size_s
    return msgspec.structs.replace(cells, delay_s=delay_s)


def is_steady(cells: Cells, over_s: np.ndarray, last_s: float, leg: Leg) -> bool:
    """Whether somebody spoke on through it as if nothing had been.

    Parameters
    ----------
    over_s
        By how much each cell is later than their line.
    last_s
        When they were last heard before these cells.
    """
    before = max(last_s, float(cells.time_s[cells.time_s < leg.at_s].max(initial=last_s)))
    after = (cells.time_s >= leg.at_s) & (cells.time_s < leg.at_s + HEARD_S)
    return leg.at_s - before < HEARD_S and bool(after.any()) and bool(np.abs(over_s[after]).min() < STEADY_S)
