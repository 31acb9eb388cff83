"""Silence trimmed: where nobody speaks for long, time is taken out, for all files of a render alike.

It is done to the placement, before anything is decoded: packets move together, and every later step, Opus copies
included, works on a shorter session. Silence then costs nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from contracts.clock import TICKS_PER_SECOND
from mixer.serial import Integers
from mixer.timeline import PlacedSource

KEPT_TICKS: Final = TICKS_PER_SECOND  # of a silence that is trimmed: half of it after one voice, half before the next


class Trim(msgspec.Struct, frozen=True):
    """Parts of the session that are kept, in order: `starts` and `stops` on the session clock, ticks."""

    starts: Integers
    stops: Integers

    @property
    def ticks(self) -> int:
        """How long what is kept is."""
        return int((self.stops - self.starts).sum())

    def spans(self, tick: int) -> bool:
        """Whether a tick of the session is inside, or where something was cut out."""
        return bool(self.starts[0] <= tick < self.stops[-1])

    def moved(self, tick: int) -> int:
        """Where this tick of the session is in what is kept; one that was cut out is where the cut is."""
        return int(self._move(np.array([tick]))[0])

    def _move(self, tick: Integers) -> Integers:
        before = np.concatenate(([0], np.cumsum(self.stops - self.starts)[:-1]))
        part = np.maximum(np.searchsorted(self.starts, tick, side="right") - 1, 0)
        return np.asarray(before[part] + np.minimum(tick, self.stops[part]) - self.starts[part])

    def place(self, source: PlacedSource) -> PlacedSource:
        """The same packets on the shorter clock; those outside of what is kept are left out."""
        part = np.maximum(np.searchsorted(self.starts, source.tick, side="right") - 1, 0)
        kept = (source.tick >= self.starts[part]) & (source.tick < self.stops[part])
        return msgspec.structs.replace(
            source,
            record=source.record[kept],
            tick=self._move(source.tick[kept]),
            ticks=source.ticks[kept],
            silent=source.silent[kept],
            lost=source.lost[kept],
        )


def whole(span: range) -> Trim:
    """Nothing is taken out of this range."""
    return Trim(np.array([span.start]), np.array([span.stop]))


def trim(sources: Sequence[PlacedSource], span: range) -> Trim:
    """What to keep of a range of the session: where anybody speaks, and KEPT_TICKS of each silence."""
    voices = [source.tick[~source.silent] for source in sources]
    lengths = [source.ticks[~source.silent] for source in sources]
    first = np.concatenate(voices) if voices else np.zeros(0, dtype=np.int64)
    last = first + (np.concatenate(lengths) if lengths else first)
    inside = (last > span.start) & (first < span.stop)
    if not inside.any():
        return Trim(np.array([span.start]), np.array([min(span.start + KEPT_TICKS, span.stop)]))
    order = np.argsort(first[inside], kind="stable")
    half = KEPT_TICKS // 2
    starts = np.maximum(first[inside][order] - half, span.start)
    stops = np.maximum.accumulate(np.minimum(last[inside][order] + half, span.stop))
    begins = np.flatnonzero(np.concatenate(([True], starts[1:] > stops[:-1])))
    return Trim(starts[begins], stops[np.concatenate((begins[1:] - 1, [len(stops) - 1]))])
