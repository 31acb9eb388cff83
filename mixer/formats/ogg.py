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
from typing import BinaryIO, Final, TypeAlias

import numpy as np

from contracts.clock import TICKS_PER_SECOND
from mixer.opus import DECODER_DELAY_TICKS, Integers

Packets: TypeAlias = list[tuple[int, bytes]]  # duration in ticks, and the packet

GRID_TICKS: Final = 120  # 2.5 ms, the shortest Opus frame
PAGE_TICKS: Final = TICKS_PER_SECOND
CHANNELS: Final = 2  # stereo packets keep both; players take mono packets as both
VENDOR: Final = b"Retold"
MAX_SEGMENTS: Final = 255
_HEADER: Final = struct.Struct("<4sBBqIIIB")
_CONTINUED_NOTHING, _FIRST, _LAST = 0, 2, 4
_CUT_PACKETS: Final = 8192  # so many wait before they are cut into pages
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

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


def crc32_ogg(*parts: bytes | memoryview) -> int:
    """CRC of a page's parts: polynomial 04C11DB7, not reflected, from zero (RFC 3533 §6), by zlib's reflected one."""
    return _crc_of_reversed(*(bytes(part).translate(_REVERSED) for part in parts))


def _crc_of_reversed(*parts: bytes | memoryview) -> int:
    """The same of parts whose bytes have their bits reversed already."""
    reflected = 0xFFFF_FFFF
    for part in parts:
        reflected = zlib.crc32(part, reflected)
    return int.from_bytes((reflected ^ 0xFFFF_FFFF).to_bytes(4, "little").translate(_REVERSED), "big")


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

    def close(self, total_ticks: int) -> None:
        """End the stream so that it plays for `total_ticks`: filled with silence, or cut by its last granule."""
        end = total_ticks + DECODER_DELAY_TICKS
        if self.ticks < end:
            self.append(_filled((end - self.ticks + GRID_TICKS - 1) // GRID_TICKS * GRID_TICKS))
        self._cut()
        self._one_page(_LAST, end, self._sizes, b"".join(self._bodies))

    def _cut(self) -> None:
        """Write all pages that are full, and keep what is left for the last."""
        body, size = b"".join(self._bodies), np.array(self._sizes, dtype=np.int64)
        lacing = _lacing(size)
        ends = [0, *np.cumsum(size).tolist()]
        laced = [0, *np.cumsum(size // 255 + 1).tolist()]
        granules = (np.cumsum([0, *self._ticks]) + self._cut_ticks).tolist()
        views = [memoryview(part) for part in (lacing, body, lacing.translate(_REVERSED), body.translate(_REVERSED))]
        pages: list[bytes | memoryview] = []
        first = 0
        while (stop := _page_end(granules, laced, first)) < len(self._sizes):
            table, bytes_ = slice(laced[first], laced[stop]), slice(ends[first], ends[stop])
            turned = views[2][table], views[3][bytes_]
            pages += (self._header(_CONTINUED_NOTHING, granules[stop], turned), views[0][table], views[1][bytes_])
            first = stop
        self._file.write(b"".join(pages))
        self._cut_ticks = granules[first]
        self._bodies = [body[ends[first] :]]
        self._sizes, self._ticks = self._sizes[first:], self._ticks[first:]

    def _one_page(self, flags: int, granule: int, sizes: list[int], body: bytes) -> None:
        table = _lacing(np.array(sizes, dtype=np.int64))
        turned = table.translate(_REVERSED), body.translate(_REVERSED)
        self._file.write(b"".join((self._header(flags, granule, turned), table, body)))

    def _header(self, flags: int, granule: int, turned: tuple[bytes | memoryview, bytes | memoryview]) -> bytes:
        """The next page's header; its segment table and body are given with their bits reversed, for the checksum."""
        fields = (b"OggS", 0, flags, granule, self._serial, self._number)
        segments = len(turned[0])
        crc = _crc_of_reversed(_HEADER.pack(*fields, 0, segments).translate(_REVERSED), *turned)
        self._number += 1
        return _HEADER.pack(*fields, crc, segments)


def _page_end(granules: list[int], laced: list[int], first: int) -> int:
    """Up to which packet a page reaches that begins with packet `first`."""
    by_time = bisect_right(granules, granules[first] + PAGE_TICKS)
    by_size = bisect_right(laced, laced[first] + MAX_SEGMENTS)
    return min(by_time, by_size) - 1


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
