"""Summing voices, and what an encoder takes: float32 (samples, 1), range [-1, 1], 48 kHz, as integers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mixer.kernel import kernel
from mixer.opus import Samples

Pcm: TypeAlias = NDArray[np.int16 | np.int32]

DEEP_BITS: Final = 24  # in the upper part of 32


def gain_factor(decibels: float) -> np.float32:
    """Decibels as a factor of amplitude."""
    return np.float32(10 ** (decibels / 20))


def mix_blocks(blocks: Iterable[Samples]) -> Samples | None:
    """The sum of blocks of equal shape; None if there is none. A single one comes back as it is."""
    total: Samples | None = None
    for block in blocks:
        total = block if total is None else total + block
    return total


def to_pcm(block: Samples, *, bits: int) -> Pcm:
    """Samples as integers, rounded to the nearest and clipped: int16, or 24 bits in the upper part of int32."""
    samples = np.ascontiguousarray(block)
    deep = bits == DEEP_BITS
    pcm = np.empty(samples.shape, dtype=np.int32 if deep else np.int16)
    (kernel().to_int24 if deep else kernel().to_int16)(samples.ctypes.data, pcm.ctypes.data, samples.size)
    return pcm
