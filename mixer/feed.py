"""A track's placed packets in time order, with their payloads read from the log when they are due."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from mixer.columns import Rows
from mixer.timeline import PlacedSource

READ_PACKETS: Final = 512  # payloads read at a time: ten seconds of speech, 80 kB

PLACED: Final = np.dtype(
    [("tick", "<i8"), ("ticks", "<u2"), ("silent", "?"), ("lost", "<i4"), ("offset", "<i8"), ("size", "<i4")]
)


class Placed(msgspec.Struct, frozen=True, gc=False):
    """One audio packet on the session clock.

    Attributes
    ----------
    tick, ticks
        Start and duration, ticks of 1/48000 s.
    silent
        Whether it is one of Discord's silence frames.
    lost
        How many frames between it and the next cannot be decoded.
    """

    tick: int
    ticks: int
    silent: bool
    lost: int
    payload: bytes


class Feed(Protocol):
    """Where a decoder gets its packets from."""

    def until(self, tick: int) -> Iterator[Placed]:
        """Those not given yet that start before `tick`."""


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

    def until(self, tick: int) -> Iterator[Placed]:
        """Those not given yet that start before `tick`."""
        stop = int(np.searchsorted(self._placed.tick, tick))
        while self._next < stop:
            part = slice(self._next, min(stop, self._next + READ_PACKETS))
            self._next = part.stop
            yield from self._read(part)

    def _read(self, part: slice) -> Iterator[Placed]:
        placed, size = self._placed, self._size[part].astype(np.int64)
        blob = placed.source.payloads(self._offset[part], size)
        end = np.cumsum(size)
        for start, ticks, silent, lost, first, last in zip(
            placed.tick[part].tolist(),
            placed.ticks[part].tolist(),
            placed.silent[part].tolist(),
            placed.lost[part].tolist(),
            (end - size).tolist(),
            end.tolist(),
            strict=True,
        ):
            yield Placed(start, ticks, silent, lost, blob[first:last])
