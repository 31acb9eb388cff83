"""Lanes: where a sender's map jumps back, later packets overlap earlier ones, and both are kept, side by side."""

from __future__ import annotations

from typing import Final

import numpy as np

from mixer.serial import Integers

OVERLAP_TICKS: Final = 120  # 2.5 ms: less is drift, which the decoder takes out


def spread(tick: Integers, ticks: Integers, ends: list[int]) -> list[tuple[int, Integers]]:
    """The next packets of a source in as few lanes as keep each free of overlaps: (lane, indices), by lane.

    Parameters
    ----------
    tick, ticks
        Start and duration of each packet, in the order they were sent, ticks of 1/48000 s.
    ends
        Where each lane ends so far; changed in place.
    """
    back = (tick[1:] < tick[:-1] + ticks[:-1] - OVERLAP_TICKS).nonzero()[0] + 1
    if not len(back) and len(ends) == 1 and len(tick) and ends[0] <= tick[0] + OVERLAP_TICKS:  # nearly always
        ends[0] = int(tick[-1] + ticks[-1])
        return [(0, np.arange(len(tick)))]
    chosen: dict[int, list[Integers]] = {}
    for stretch in np.split(np.arange(len(tick)), back):
        if not len(stretch):
            continue
        start = int(tick[stretch[0]]) + OVERLAP_TICKS
        free = next((lane for lane, end in enumerate(ends) if end <= start), len(ends))
        if free == len(ends):
            ends.append(0)
        chosen.setdefault(free, []).append(stretch)
        ends[free] = int(tick[stretch[-1]] + ticks[stretch[-1]])
    return [(lane, np.concatenate(parts)) for lane, parts in sorted(chosen.items())]
