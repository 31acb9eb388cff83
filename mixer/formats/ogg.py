"""Ogg Opus (RFC 7845) written from packets as they are: a speaker's Opus is copied, never encoded again.

    page  "OggS" 0 flags granule(8) serial(4) number(4) crc(4) segments(1) lacing... | packets      (RFC 3533 §6)

Silence is packets of Opus silence, 120 ms each, then 20, 10, 5 and 2.5 ms: sound stands on a grid of 2.5 ms. What was
lost is a packet without a frame: the decoder conceals it, and time stands (RFC 7845 §4.1). A page ends after at most a
second of sound, so that players seek and start at once.

Packets are taken by the thousand and cut into pages together: a packet costs no call.
"""

from __future__ import annotations

import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import BinaryIO, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from mixer.opus import DECODER_DELAY_TICKS, Integers

Packets: TypeAlias = list[tuple[int, bytes]]  # duration in ticks, and the packet
Bytes: TypeAlias = NDArray[np.uint8]
Part: TypeAlias = bytes | memoryview

GRID_TICKS: Final = 120  # 2.5 ms, the shortest Opus frame
PAGE_TICKS: Final = TICKS_PER_SECOND
CHANNELS: Final = 2  # stereo packets keep both; players take mono packets as both
VENDOR: Final = b"Retold"
MAX_SEGMENTS: Final = 255
_HEADER: Final = np.dtype(
    [
        ("magic", "S4"),
        ("version", "u1"),
        ("flags", "u1"),
        ("granule", "<i8"),
        ("serial", "<u4"),
        ("number", "<u4"),
        ("crc", "<u4"),
        ("segments", "u1"),
    ]
)
_CRC_BYTES: Final = _HEADER.fields["crc"][1] + np.arange(4)  # type: ignore[index]  # a dtype of fields has them
_CONTINUED_NOTHING, _FIRST, _LAST = 0, 2, 4
_CUT_PACKETS: Final = 8192  # so many wait before they are cut into pages
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ONES: Final = 0xFFFF_FFFF

# Before sound, a SILK frame of digital silence: a player's decoder then starts the CELT sound afresh. From CELT silence
# it would fade in over 60 ms, as the sender's encoder never coded that silence (measured: see mixer/voice.py).
FRESH_START: Final = (960, bytes.fromhex("0808acb30ec6"))

# CELT frames FF FE are silent at any size (RFC 6716 §4.3, the silence flag); the first byte is the table of contents.
SILENCE: Final = (
    (5760, b"\xff\x06" + 6 * b"\xff\xfe"),
    (960, b"\xfc\xff\xfe"),
    (480, b"\xf4\xff\xfe"),
    (240, b"\xec\xff\xfe"),
    (120, b"\xe4\xff\xfe"),
)


def crc32_ogg(data: bytes) -> int:
    """CRC of a page: polynomial 04C11DB7, not reflected, from zero (RFC 3533 §6)."""
    return int.from_bytes(_crcs(data, [0, len(data)]).tobytes(), "little")


def _crcs(data: bytes | bytearray, bounds: list[int]) -> Bytes:
    """CRCs of what lies between the bounds, four bytes each, the lowest first: (parts, 4).

    zlib's polynomial is the same, reflected: so its bytes are reflected before, and its sums behind.
    """
    turned = memoryview(data.translate(_REVERSED))
    sums = np.array([zlib.crc32(turned[first:stop], _ONES) for first, stop in pairwise(bounds)], dtype="<u4") ^ _ONES
    found: Bytes = np.frombuffer(sums.tobytes().translate(_REVERSED), dtype=np.uint8).reshape(-1, 4)[:, ::-1]
    return found


def silence(ticks: int) -> Packets:
    """Packets of silence before sound, `ticks` rounded to the nearest GRID_TICKS."""
    whole = max((ticks + GRID_TICKS // 2) // GRID_TICKS * GRID_TICKS, 0)
    if whole > FRESH_START[0]:
        return [*_filled(whole - FRESH_START[0]), FRESH_START]
    return _filled(whole)


def _filled(ticks: int) -> Packets:
    found: Packets = []
    for size, payload in SILENCE:
        found += [(size, payload)] * (ticks // size)
        ticks %= size
    return found


class OggOpusWriter:
    """Packets to an Ogg Opus file; the caller owns the file and calls `close`.

    Parameters
    ----------
    serial
        Of the logical stream; 32 bits.
    tags
        Vorbis comments by name.
    """

    def __init__(self, file: BinaryIO, *, serial: int, tags: dict[str, str]) -> None:
        self._file = file
        self._serial = serial & 0xFFFF_FFFF
        self._number = 0
        self._bodies: list[bytes] = []  # what is not on a page yet
        self._sizes: list[int] = []
        self._ticks: list[int] = []
        self._cut_ticks = 0  # of what is on pages
        self.ticks = 0  # decoded samples so far
        self._one_page(_FIRST, 0, [len(head := _opus_head())], head)
        self._one_page(_CONTINUED_NOTHING, 0, [len(comments := _opus_tags(tags))], comments)

    def extend(self, payloads: bytes, sizes: list[int], ticks: list[int]) -> None:
        """Append Opus packets that lie one behind the other, of `sizes` bytes and `ticks` samples."""
        self._bodies.append(payloads)
        self._sizes += sizes
        self._ticks += ticks
        self.ticks += sum(ticks)
        if len(self._sizes) >= _CUT_PACKETS:
            self._cut()

    def append(self, packets: Packets) -> None:
        """Append Opus packets."""
        if packets:
            payloads = [payload for _, payload in packets]
            self.extend(b"".join(payloads), list(map(len, payloads)), [ticks for ticks, _ in packets])

    def pause(self, ticks: int) -> None:
        """Append silence before sound, `ticks` rounded to the nearest GRID_TICKS."""
        self.append(silence(self._filled_but_for(ticks)))

    def _filled_but_for(self, ticks: int) -> int:
        """Append most of a long silence, some packets at a time; what is left of it."""
        many = SILENCE[0][0] * _CUT_PACKETS
        while ticks > many:
            self.append([SILENCE[0]] * _CUT_PACKETS)
            ticks -= many
        return ticks

    def close(self, total_ticks: int) -> None:
        """End the stream so that it plays for `total_ticks`: filled with silence, or cut by its last granule."""
        end = total_ticks + DECODER_DELAY_TICKS
        if self.ticks < end:
            missing = self._filled_but_for((end - self.ticks + GRID_TICKS - 1) // GRID_TICKS * GRID_TICKS)
            self.append(_filled(missing))
        self._cut()
        self._one_page(_LAST, end, self._sizes, b"".join(self._bodies))

    def _cut(self) -> None:
        """Write all pages that are full, and keep what is left for the last."""
        body, size = b"".join(self._bodies), np.array(self._sizes, dtype=np.int64)
        ends, laced = _from_zero(size), _from_zero(size // 255 + 1)
        granules = _from_zero(np.array(self._ticks, dtype=np.int64)) + self._cut_ticks
        cuts = _page_cuts(granules.tolist(), laced.tolist())
        rest = cuts[-1]
        tables, bodies = _parts(_lacing(size), laced[cuts].tolist()), _parts(body, ends[cuts].tolist())
        self._write_pages(_CONTINUED_NOTHING, granules[cuts[1:]].tolist(), tables, bodies)
        self._cut_ticks = int(granules[rest])
        self._bodies = [body[ends[rest] :]]
        self._sizes, self._ticks = self._sizes[rest:], self._ticks[rest:]

    def _one_page(self, flags: int, granule: int, sizes: list[int], body: bytes) -> None:
        self._write_pages(flags, [granule], [_lacing(np.array(sizes, dtype=np.int64))], [body])

    def _write_pages(self, flags: int, granules: list[int], tables: Sequence[Part], bodies: Sequence[Part]) -> None:
        """Write the next pages: where each one's last packet ends, its segment table, its packets."""
        heads = np.zeros(len(tables), dtype=_HEADER)
        heads["magic"], heads["flags"], heads["serial"] = b"OggS", flags, self._serial
        heads["granule"], heads["segments"] = granules, list(map(len, tables))
        heads["number"] = np.arange(self._number, self._number + len(tables))
        self._number += len(tables)
        bounds = _from_zero(heads["segments"] + np.array([_HEADER.itemsize + len(body) for body in bodies], dtype=int))
        headers = _parts(heads.tobytes(), range(0, heads.nbytes + 1, _HEADER.itemsize))
        pages = bytearray(b"".join(chain.from_iterable(zip(headers, tables, bodies, strict=True))))
        crcs = _crcs(pages, bounds.tolist())
        np.frombuffer(pages, dtype=np.uint8)[bounds[:-1, np.newaxis] + _CRC_BYTES] = crcs
        self._file.write(pages)


def _page_cuts(granules: list[int], laced: list[int]) -> list[int]:
    """Where pages begin, and where what fills no page does: indices of packets.

    Parameters
    ----------
    granules, laced
        Ticks and segments before each packet, and before what follows the last.
    """
    cuts, last = [0], len(granules) - 1
    while True:
        first = cuts[-1]
        by_time = bisect_right(granules, granules[first] + PAGE_TICKS, first)
        by_size = bisect_right(laced, laced[first] + MAX_SEGMENTS, first)
        if (stop := min(by_time, by_size) - 1) >= last:
            return cuts
        cuts.append(stop)


def _from_zero(lengths: Integers) -> Integers:
    """Where each of some neighbours begins, and where the last one ends."""
    bounds = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=bounds[1:])
    return bounds


def _parts(data: bytes, bounds: Sequence[int]) -> list[memoryview]:
    view = memoryview(data)
    return [view[first:stop] for first, stop in pairwise(bounds)]


def _lacing(size: Integers) -> bytes:
    """Segment table of packets of these sizes: 255s, and what is left (RFC 3533 §5)."""
    counts = size // 255 + 1
    table = np.full(int(counts.sum()), 255, dtype=np.uint8)
    table[np.cumsum(counts) - 1] = size % 255
    return table.tobytes()


def _opus_head() -> bytes:
    """RFC 7845 §5.1: version 1, pre-skip, the original's rate, no gain, mapping family 0."""
    return b"OpusHead" + struct.pack("<BBHIhB", 1, CHANNELS, DECODER_DELAY_TICKS, TICKS_PER_SECOND, 0, 0)


def _opus_tags(tags: dict[str, str]) -> bytes:
    """RFC 7845 §5.2."""
    comments = [f"{key.upper()}={value}".encode()[:60_000] for key, value in tags.items() if value]
    parts = b"".join(struct.pack("<I", len(comment)) + comment for comment in comments)
    return b"OpusTags" + struct.pack("<I", len(VENDOR)) + VENDOR + struct.pack("<I", len(comments)) + parts
