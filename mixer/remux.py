"""A speaker's packets copied into an Ogg Opus file, each at its place on the session clock, to 2.5 ms.

A packet of RTP time T decodes to sound at T less the decoder's delay; Ogg's pre-skip says the same, so that the copy
and the decoded tracks agree. Discord's silence frames are replaced by ours. Inside a run packets stay back to back,
until drift amounts to DRIFT_TICKS. What was lost is concealed by the player's decoder, and keeps its time.

Only where a packet's place differs from its predecessor's end is there anything to decide; all between is copied whole.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mixer.columns import PacketStore
from mixer.formats.ogg import OggOpusWriter
from mixer.opus import concealed

DRIFT_TICKS: Final = 480  # 10 ms: then something is put in, or a packet left out; a pause is always longer
CONCEAL_TICKS: Final = 4800  # 100 ms of what was lost are concealed, as when tracks are decoded
UNEXPLAINED_TICKS: Final = 1920  # 40 ms: a shorter gap is no pause, but a clock that was stepped
COPY_PACKETS: Final = 8192  # 1.3 MB


class Remuxer:
    """Writes one speaker's packets that start before `stop_tick`; a fold over them by time.

    Attributes
    ----------
    overlapping
        Packets left out, where another already sounds.
    """

    def __init__(self, writer: OggOpusWriter, columns: PacketStore, *, start_tick: int, stop_tick: int) -> None:
        self._writer = writer
        self._columns = columns
        self._start = start_tick
        self._length = stop_tick - start_tick
        self._toc: int | None = None  # of the packet that was copied last
        self._lost = 0  # frames after it
        self.overlapping = 0

    def write(self, packets: NDArray[np.void]) -> None:
        """Copy packets, dtype PLACED, by time; calls must ascend."""
        voiced = packets[~packets["silent"] & (packets["tick"] < self._start + self._length)]
        for first in range(0, len(voiced), COPY_PACKETS):
            self._copy(voiced[first : first + COPY_PACKETS])

    def close(self) -> None:
        """End the file at the range's length."""
        self._writer.close(self._length)

    def _copy(self, part: NDArray[np.void]) -> None:
        duration = part["ticks"].astype(np.int64)
        # Where each packet belongs less where it comes to stand if all before it are copied, and nothing is put in
        places = part["tick"] - self._start - (np.cumsum(duration) - duration)
        steps = [*(np.flatnonzero(np.diff(places)) + 1).tolist(), len(part)]
        offsets, ticks = places.tolist(), duration.tolist()
        copier = _Copier(self._columns, part)
        shift = self._writer.ticks
        begin = position = 0
        while position < len(part):
            ahead = offsets[position] - shift
            if ahead <= -DRIFT_TICKS:
                self._append(copier, begin, position)
                self.overlapping += 1
                shift -= ticks[position]
                begin = position = position + 1
                continue
            if ahead >= DRIFT_TICKS or (self._writer.ticks == begin == position == 0):
                self._append(copier, begin, position)
                begin = position
                shift += self._fill(ahead)
            position = steps[bisect_right(steps, position)]
        self._append(copier, begin, len(part))

    def _append(self, copier: _Copier, begin: int, stop: int) -> None:
        if begin < stop:
            self._writer.extend(*copier.packets(begin, stop))
            self._toc, self._lost = copier.after(stop)

    def _fill(self, ahead: int) -> int:
        """Put something in for `ahead` ticks; how many it came to."""
        before = self._writer.ticks
        if self._toc is not None and (self._lost or ahead <= UNEXPLAINED_TICKS):
            self._writer.append(concealed(self._toc, min(ahead, CONCEAL_TICKS)))
        filled = self._writer.ticks - before
        if ahead > CONCEAL_TICKS or not filled:
            self._writer.pause(ahead - filled)
        return self._writer.ticks - before


class _Copier:
    """Payloads of a part, read at once."""

    def __init__(self, columns: PacketStore, part: NDArray[np.void]) -> None:
        size = part["size"].astype(np.int64)
        self._payloads = columns.payloads(part["offset"], size)
        self._ends = [0, *np.cumsum(size).tolist()]
        self._sizes, self._ticks, self._lost = size.tolist(), part["ticks"].tolist(), part["lost"].tolist()

    def packets(self, begin: int, stop: int) -> tuple[bytes, list[int], list[int]]:
        """Payloads, sizes and durations of some packets."""
        return self._payloads[self._ends[begin] : self._ends[stop]], self._sizes[begin:stop], self._ticks[begin:stop]

    def after(self, stop: int) -> tuple[int, int]:
        """Table of contents of the packet before `stop`, and how many frames are lost after it."""
        return self._payloads[self._ends[stop - 1]], self._lost[stop - 1]
