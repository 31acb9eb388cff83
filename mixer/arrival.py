"""Placement by arrival: each talkspurt where its least delayed packet came, for those who trust no RTP clock.

It follows every queue of the network; RTP only keeps packets of a talkspurt at their distance, lost ones included.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from mixer.cells import JUMP_S, cells
from mixer.curve import Curve, Stretch
from mixer.spurts import Life

LONGEST_CELLS: Final = 10  # twenty seconds: then drift counts more than a better look


def by_arrival(life: Life) -> Curve:
    """The map of one life."""
    points = life.clocked
    found = cells(points)
    cut = ~found.running[1:] | (np.diff(found.delay_s) > JUMP_S)
    since = np.arange(1, len(found)) - np.maximum.accumulate(np.where(cut, np.arange(1, len(found)), 0))
    begins = np.concatenate(([0], np.flatnonzero(cut | (since % LONGEST_CELLS == 0)) + 1))
    stretches = []
    for first, stop in pairwise([*begins.tolist(), len(found)]):
        lowest = found.delay_s[first:stop].min()
        stretches.append(Stretch(found.time_s[first : first + 1], np.array([lowest]), (0.0, 0.0)))
    return Curve(points.sequence[found.start[begins]], tuple(stretches))
