"""A life's clock points in short stretches: of each, when its least delayed packet came.

Delay only ever adds, so of many packets the least delayed says most about the clocks, and the others nothing. Cells are
cut where the RTP clock does not run on, where arrivals jump, and every CELL_TICKS of RTP time: by the packets alone, so
they are the same whoever looks at them, and when.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import NS_PER_SECOND, TICKS_PER_SECOND
from mixer.serial import Integers
from mixer.spurts import Life, breaks

Floats: TypeAlias = NDArray[np.float64]

CELL_TICKS: Final = 2 * TICKS_PER_SECOND  # a hundred packets: one of them came through undelayed
JUMP_S: Final = 0.04  # two frames: a pause of a sender whose clock stops is longer, jitter rarely so lasting


class Cells(msgspec.Struct, frozen=True):
    """Arrays of equal length, in the order they were sent.

    Attributes
    ----------
    start
        Index of each cell's first packet.
    time_s
        Session time at which its least delayed packet came, seconds.
    begin_s
        When its first packet would have come, with the least delay.
    delay_s
        That packet's arrival less its RTP time, seconds; any constant is in it.
    running
        Whether the RTP clock ran on without a break from the cell before.
    skipped
        How many sequence numbers lie between it and the packet before: lost, or silence frames.
    packets
        How many it has.
    """

    start: Integers
    time_s: Floats
    begin_s: Floats
    delay_s: Floats
    running: NDArray[np.bool_]
    skipped: Integers
    packets: Integers

    def __len__(self) -> int:
        """Cells."""
        return len(self.start)

    def part(self, first: int, stop: int) -> Cells:
        """Some neighbours."""
        return Cells(*(getattr(self, name)[first:stop] for name in self.__struct_fields__))


def cells(points: Life, before: Life | None = None) -> Cells:
    """The cells of a life's `clocked` packets, of which there must be one at least.

    Parameters
    ----------
    before
        The packet before them, alone, if it is known.
    """
    arrival_s = points.arrival_ns / NS_PER_SECOND
    delay_s = arrival_s - points.timestamp / TICKS_PER_SECOND
    window = points.timestamp // CELL_TICKS
    broken = breaks(points)
    cut = broken | (delay_s[1:] - delay_s[:-1] > JUMP_S) | (window[1:] != window[:-1])
    start = np.concatenate(([0], np.flatnonzero(cut) + 1))
    packets = np.append(start[1:], len(points)) - start
    least = np.minimum.reduceat(delay_s, start)
    at = np.flatnonzero(delay_s == np.repeat(least, packets))
    chosen = at[np.searchsorted(at, start)]
    seam = None if before is None else Life(np.concatenate((before.rows, points.rows[:, :1]), axis=1))
    goes_on = seam is not None and not breaks(seam)[0]
    running = np.concatenate(([goes_on], ~broken[start[1:] - 1]))
    passed = 1 if seam is None else int(seam.sequence[1] - seam.sequence[0])
    skipped = np.concatenate(([passed], points.sequence[start[1:]] - points.sequence[start[1:] - 1])) - 1
    begin_s = arrival_s[chosen] - (points.timestamp[chosen] - points.timestamp[start]) / TICKS_PER_SECOND
    return Cells(start, arrival_s[chosen], begin_s, delay_s[chosen], running, skipped, packets)
