"""Waveform peaks as audiowaveform's version 2 has them: the least and the greatest sample of every pixel, 8 bits each.

    version i32 = 2 | flags u32 = 1: 8 bits | rate i32 | samples a pixel i32 | pixels u32 | channels i32 | min, max ...

(github.com/bbc/audiowaveform, doc/DataFormat.md.) A fold over blocks of any size; its state is a pixel not full yet.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
import numpy as np

from contracts.clock import TICKS_PER_SECOND
from mixer.opus import Samples

PIXEL_TICKS: Final = 2400  # 50 ms: an hour of a track is 144 kB
HEADER: Final = struct.Struct("<iIiiIi")
_VERSION, _EIGHT_BITS, _CHANNELS = 2, 1, 1
_FULL_SCALE: Final = np.float32(127)


class Peaks:
    """The fold: `push` mono samples in order, then `flush` once; both give finished pixels as int8 pairs."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, dtype=np.float32)

    def push(self, samples: Samples) -> bytes:
        """The pixels that these samples, float32 (samples, 1), complete."""
        flat = samples.reshape(-1)
        if len(self._rest):
            flat = np.concatenate((self._rest, flat))
        whole = len(flat) // PIXEL_TICKS * PIXEL_TICKS
        self._rest = flat[whole:].copy()
        return _pixels(flat[:whole].reshape(-1, PIXEL_TICKS)) if whole else b""

    def flush(self) -> bytes:
        """The last pixel, if it has begun."""
        rest, self._rest = self._rest, self._rest[:0]
        return _pixels(rest.reshape(1, -1)) if len(rest) else b""

    def save(self) -> bytes:
        """The state, for `load`: the samples of the pixel that is not full."""
        return self._rest.tobytes()

    def load(self, state: bytes) -> None:
        """Go on from there."""
        self._rest = np.frombuffer(state, dtype=np.float32)


def peaks_dat(pixels: bytes) -> bytes:
    """The binary form."""
    return _header(pixels) + pixels


def peaks_json(pixels: bytes) -> bytes:
    """The JSON form."""
    return msgspec.json.encode(
        {
            "version": _VERSION,
            "channels": _CHANNELS,
            "sample_rate": TICKS_PER_SECOND,
            "samples_per_pixel": PIXEL_TICKS,
            "bits": 8,
            "length": len(pixels) // 2,
            "data": np.frombuffer(pixels, dtype=np.int8).tolist(),
        }
    )


def _header(pixels: bytes) -> bytes:
    return HEADER.pack(_VERSION, _EIGHT_BITS, TICKS_PER_SECOND, PIXEL_TICKS, len(pixels) // 2, _CHANNELS)


def _pixels(rows: Samples) -> bytes:
    if not rows.any():
        return bytes(2 * len(rows))
    pairs = np.clip(np.stack((rows.min(axis=1), rows.max(axis=1)), axis=1), -1, 1)
    return bytes(np.rint(pairs * _FULL_SCALE).astype(np.int8).tobytes())
