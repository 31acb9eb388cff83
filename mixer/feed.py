"""A track's placed packets in time order, with their payloads read from the log when they are due."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mixer.columns import Rows
from mixer.opus import Integers, Sizes
from mixer.timeline import PlacedSource

READ_PACKETS: Final = 512  # payloads read at a time: ten seconds of speech, 80 kB

PLACED: Final = np.dtype(
    [("tick", "<i8"), ("ticks", "<u2"), ("silent", "?"), ("lost", "<i4"), ("offset", "<i8"), ("size", "<i4")]
)


class Row(msgspec.Struct, frozen=True, gc=False):
    """Audio packets on the session clock that follow each other without a gap, all of them voice or all silence.

    Attributes
    ----------
    tick
        Where the first begins, ticks of 1/48000 s.
    ticks, sizes
        Duration of each, and its bytes; int32.
    silent
        Whether they are Discord's silence frames.
    lost
        How many frames between the last of them and what comes next cannot be decoded.
    packets
        One behind the other.
    """

    tick: int
    ticks: Sizes
    silent: bool
    lost: int
    sizes: Sizes
    packets: bytes

    def __len__(self) -> int:
        """How many packets."""
        return len(self.sizes)

    def split(self, count: int) -> tuple[Row, Row]:
        """The first `count` packets, and the rest."""
        at, size = self.tick + int(self.ticks[:count].sum()), int(self.sizes[:count].sum())
        return (
            Row(self.tick, self.ticks[:count], self.silent, 0, self.sizes[:count], self.packets[:size]),
            Row(at, self.ticks[count:], self.silent, self.lost, self.sizes[count:], self.packets[size:]),
        )

    def before(self, tick: int) -> int:
        """How many begin before it."""
        return int(np.searchsorted(self.tick + np.cumsum(self.ticks) - self.ticks, tick))


class Feed(Protocol):
    """Where a decoder gets its packets from."""

    def until(self, tick: int) -> Iterator[Row]:
        """Those not given yet that start before `tick`."""


def rows_of(
    tick: Integers, ticks: Integers, silent: NDArray[np.bool_], lost: Integers, sizes: Sizes, packets: bytes
) -> Iterator[Row]:
    """Packets by time as rows."""
    if not len(tick):
        return
    apart = (tick[1:] != tick[:-1] + ticks[:-1]) | (silent[1:] != silent[:-1]) | (lost[:-1] != 0)
    bounds = [0, *(np.flatnonzero(apart) + 1).tolist(), len(tick)]
    ends = [0, *np.cumsum(sizes).tolist()]
    durations: Sizes = ticks.astype(np.int32)
    for first, stop in itertools.pairwise(bounds):
        yield Row(
            tick=int(tick[first]),
            ticks=durations[first:stop],
            silent=bool(silent[first]),
            lost=int(lost[stop - 1]),
            sizes=sizes[first:stop],
            packets=packets[ends[first] : ends[stop]],
        )


class RowQueue:
    """Rows that wait, by time.

    Attributes
    ----------
    rows
        Those not given yet.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows = deque(rows)

    def put(self, rows: Iterable[Row]) -> None:
        """More, behind the others."""
        self.rows.extend(rows)

    def until(self, tick: int) -> Iterator[Row]:
        """The packets not given yet that start before `tick`."""
        while self.rows and self.rows[0].tick < tick:
            row = self.rows.popleft()
            if (count := row.before(tick)) < len(row):
                row, rest = row.split(count)
                self.rows.appendleft(rest)
            yield row


def place_rows(placed: PlacedSource, rows: Rows) -> NDArray[np.void]:
    """Placement and place of every packet, dtype PLACED, by time."""
    found = np.empty(len(placed.record), dtype=PLACED)
    found["tick"], found["ticks"] = placed.tick, placed.ticks
    found["silent"], found["lost"] = placed.silent, placed.lost
    found["offset"], found["size"] = rows["offset"][placed.record], rows["size"][placed.record]
    return found


def packets_by_time(placed: Iterable[PlacedSource], *, start_tick: int = 0) -> NDArray[np.void]:
    """A speaker's packets from all sources, dtype PLACED, without those that end at or before `start_tick`."""
    packets = np.concatenate([place_rows(source, source.source.rows) for source in placed])
    kept: NDArray[np.void] = packets[packets["tick"] + packets["ticks"] > start_tick]
    return kept[np.argsort(kept["tick"], kind="stable")]


class SourceFeed:
    """Packets of one source, each given once, by time.

    Parameters
    ----------
    start_tick
        Packets that end at or before it are left out.
    """

    def __init__(self, placed: PlacedSource, *, start_tick: int = 0) -> None:
        self._placed = placed
        rows = placed.source.rows
        self._offset, self._size = rows["offset"][placed.record], rows["size"][placed.record]
        self._next = int(np.searchsorted(placed.tick + placed.ticks, start_tick, side="right"))

    def until(self, tick: int) -> Iterator[Row]:
        """Those not given yet that start before `tick`."""
        stop = int(np.searchsorted(self._placed.tick, tick))
        while self._next < stop:
            part = slice(self._next, min(stop, self._next + READ_PACKETS))
            self._next = part.stop
            yield from self._read(part)

    def _read(self, part: slice) -> Iterator[Row]:
        placed, sizes = self._placed, self._size[part]
        packets = placed.source.payloads(self._offset[part], sizes.astype(np.int64))
        return rows_of(placed.tick[part], placed.ticks[part], placed.silent[part], placed.lost[part], sizes, packets)
