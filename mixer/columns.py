"""A session's packets in columns: two files that grow with the log, and an index of batches by source.

    rows       one ROW a packet: its stamp, and where its payload stands
    payloads   Opus, back to back

Batches come one by one and are turned into rows some thousands at a time, so that no packet costs a call. The files
have no name: they go with the process. Memory holds only the index, a few numbers a batch, however long the session.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contracts.packets import Outcome, PacketBatch
from mixer.opus import durations
from mixer.serial import Integers

SourceKey: TypeAlias = tuple[int, int]  # (take, ssrc): SSRCs mean something only inside a take
Stamps: TypeAlias = NDArray[np.void]
Rows: TypeAlias = NDArray[np.void]

STAMP: Final = np.dtype(
    [
        ("sequence", "<u2"),
        ("timestamp", "<u4"),
        ("arrival_ns", "<i8"),
        ("ticks", "<u2"),  # duration by the table of contents; 0: a broken packet, or no audio
        ("outcome", "u1"),
    ]
)
ROW: Final = np.dtype([("stamp", STAMP), ("offset", "<i8"), ("size", "<i4")])
FLUSH_PACKETS: Final = 2048  # fits a core's cache; at 64 kbit/s 330 kB of payloads


def batch_rows(batches: list[PacketBatch], *, offset: int = 0) -> tuple[Rows, bytes]:
    """Rows (dtype ROW) and payloads of batches, in their order; payloads begin at `offset` of their file."""
    packets = list(chain.from_iterable(batch.packets for batch in batches))
    payloads = [packet.payload for packet in packets]
    blob = b"".join(payloads)
    rows = np.empty(len(packets), dtype=ROW)
    size = np.fromiter(map(len, payloads), dtype=np.int64, count=len(payloads))
    start = np.cumsum(size) - size
    outcome = np.frombuffer(bytes([packet.outcome for packet in packets]), dtype=np.uint8)
    base_ns = np.repeat(
        np.array([batch.base_ns for batch in batches], dtype=np.int64), [len(batch.packets) for batch in batches]
    )
    stamp = rows["stamp"]
    stamp["sequence"] = np.array([packet.sequence for packet in packets], dtype=np.int64) & 0xFFFF
    stamp["timestamp"] = np.array([packet.timestamp for packet in packets], dtype=np.int64) & 0xFFFF_FFFF
    stamp["arrival_ns"] = base_ns + np.array([packet.arrival_us for packet in packets], dtype=np.int64) * 1000
    stamp["ticks"] = np.where(outcome < Outcome.UNKNOWN_SPEAKER, durations(blob, start, size), 0)
    stamp["outcome"] = outcome
    rows["offset"] = start + offset
    rows["size"] = size
    return rows, blob


class _Batches:
    """Index of one source's batches: number, first row and count of each, in the log's order.

    Attributes
    ----------
    voiced
        Whether any packet is voice.
    """

    def __init__(self) -> None:
        self.number, self.row, self.count = array("q"), array("q"), array("q")
        self.voiced = False

    def append(self, number: int, row: int, count: int) -> None:
        """One more batch."""
        self.number.append(number)
        self.row.append(row)
        self.count.append(count)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(first row, count) by number, of each number the first that came; what is adjacent is one range."""
        number, row, count = (np.frombuffer(column, dtype=np.int64) for column in (self.number, self.row, self.count))
        _, first = np.unique(number, return_index=True)
        row, count = row[first], count[first]
        begins = np.flatnonzero(np.append(True, row[1:] != row[:-1] + count[:-1]))
        yield from zip(row[begins].tolist(), np.add.reduceat(count, begins).tolist(), strict=True)


class PacketStore(Protocol):
    """Where the packets of sources are."""

    def rows(self, key: SourceKey, /) -> Rows:
        """A source's packets, dtype ROW."""

    def payloads(self, offset: Integers, size: Integers, /) -> bytes:
        """Payloads one behind the other."""


class Columns:
    """The packets of a session; a batch that comes twice counts once.

    Parameters
    ----------
    folder
        Where the files lie; None = where temporary files do.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._rows = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # as long as this lives
        self._payloads = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  # as above
        self._batches: dict[SourceKey, _Batches] = {}
        self._last_arrival_ns: int | None = None
        self._pending: list[PacketBatch] = []
        self._pending_packets = self._written_rows = self._written_bytes = 0

    def append(self, batch: PacketBatch) -> None:
        """One more batch."""
        if (key := (batch.take, batch.ssrc)) not in self._batches:
            self._batches[key] = _Batches()
        self._pending.append(batch)
        self._pending_packets += len(batch.packets)
        if self._pending_packets >= FLUSH_PACKETS:
            self._flush()

    def sources(self) -> list[SourceKey]:
        """Every source that has a batch, sorted."""
        return sorted(self._batches)

    def voiced(self, key: SourceKey) -> bool:
        """Whether a source has a packet of voice."""
        self._flush()
        return self._batches[key].voiced

    @property
    def last_arrival_ns(self) -> int | None:
        """When the last packet came, session clock; None if none did."""
        self._flush()
        return self._last_arrival_ns

    def rows(self, key: SourceKey) -> Rows:
        """A source's packets, dtype ROW, by batch number: the order in which they were recorded."""
        self._flush()
        parts = [
            os.pread(self._rows.fileno(), count * ROW.itemsize, first * ROW.itemsize)
            for first, count in self._batches[key].ranges()
        ]
        return np.frombuffer(b"".join(parts), dtype=ROW)

    def payloads(self, offset: Integers, size: Integers) -> bytes:
        """Payloads one behind the other; those that are neighbours in the file are read at once."""
        if len(offset) == 0:
            return b""
        begins = np.flatnonzero(np.append(True, offset[1:] != offset[:-1] + size[:-1]))
        lengths = np.add.reduceat(size, begins)
        file = self._payloads.fileno()
        spans = zip(offset[begins].tolist(), lengths.tolist(), strict=True)
        return b"".join([os.pread(file, length, start) for start, length in spans])

    def _flush(self) -> None:
        """Write what is pending, each source's together, so that it is read together."""
        if not self._pending:
            return
        self._pending.sort(key=lambda batch: (batch.take, batch.ssrc))  # stable: a source's stay in the log's order
        rows, blob = batch_rows(self._pending, offset=self._written_bytes)
        self._index(rows["stamp"])
        _write_all(self._rows.fileno(), rows.tobytes())
        _write_all(self._payloads.fileno(), blob)
        self._written_rows += len(rows)
        self._written_bytes += len(blob)
        self._pending.clear()
        self._pending_packets = 0

    def _index(self, stamps: Stamps) -> None:
        """Note where the pending batches come to stand, and what is in them."""
        voice = np.cumsum(np.append(0, stamps["outcome"] == Outcome.VOICE)).tolist()
        first = 0
        for batch in self._pending:
            stop = first + len(batch.packets)
            index = self._batches[batch.take, batch.ssrc]
            index.append(batch.number, self._written_rows + first, stop - first)
            index.voiced = index.voiced or voice[stop] > voice[first]
            first = stop
        if len(stamps):
            last = int(stamps["arrival_ns"].max())
            self._last_arrival_ns = last if self._last_arrival_ns is None else max(self._last_arrival_ns, last)


class RollCall:
    """As `Columns`, but only who was heard and when, not what: for whoever needs no packet again."""

    def __init__(self) -> None:
        self._voiced: dict[SourceKey, bool] = {}
        self.last_arrival_ns: int | None = None

    def append(self, batch: PacketBatch) -> None:
        """One more batch."""
        key = batch.take, batch.ssrc
        voiced = self._voiced.get(key, False)
        self._voiced[key] = voiced or any(packet.outcome == Outcome.VOICE for packet in batch.packets)
        if batch.packets:
            last = batch.base_ns + max([packet.arrival_us for packet in batch.packets]) * 1000
            self.last_arrival_ns = last if self.last_arrival_ns is None else max(self.last_arrival_ns, last)

    def sources(self) -> list[SourceKey]:
        """Every source that has a batch, sorted."""
        return sorted(self._voiced)

    def voiced(self, key: SourceKey) -> bool:
        """Whether a source has a packet of voice."""
        return self._voiced[key]

    def rows(self, _key: SourceKey) -> Rows:
        """Nothing is kept."""
        return np.empty(0, dtype=ROW)

    def payloads(self, _offset: Integers, _size: Integers) -> bytes:
        """Nothing is kept."""
        return b""

    def save(self) -> tuple[list[tuple[int, int, bool]], int | None]:
        """The state, for `load`."""
        return [(*key, voiced) for key, voiced in self._voiced.items()], self.last_arrival_ns

    def load(self, state: tuple[list[tuple[int, int, bool]], int | None]) -> None:
        """Go on from there."""
        self._voiced = {(take, ssrc): voiced for take, ssrc, voiced in state[0]}
        self.last_arrival_ns = state[1]


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
