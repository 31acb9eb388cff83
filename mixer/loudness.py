"""Loudness by ITU-R BS.1770-4 and EBU R128: K-weighted power, gated. Mono, float32 (samples, 1), range [-1, 1], 48 kHz.

    frame of a second -> power of every hop (100 ms) -> of every block (400 ms, each hop) -> gates -> LUFS

The K filter is applied to each hop's power spectrum instead of to samples in a row: power is all that is asked for.
Above 6 kHz the filter is even, so that the spectrum is looked at below, at a quarter of the rate, for what the filter
takes away there of the power of all. Against FFmpeg's ebur128, speech and noise differ by less than 0.1 LU
(tests/unit/mixer/test_loudness.py).
A block's power is kept in bins of 0.1 LU, with its sum, so that the state is small however long a session is.
"""

from __future__ import annotations

from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from mixer.opus import Samples

Powers: TypeAlias = NDArray[np.float64]

QUARTER: Final = 4
HOP_TICKS: Final = TICKS_PER_SECOND // 10
BLOCK_HOPS: Final = 4  # 400 ms, overlapping by three quarters (BS.1770-4 Annex 1)
OFFSET_DB: Final = -0.691  # so that a sine of 997 Hz at full scale is -3.01 LKFS (the same)
ABSOLUTE_GATE_LUFS: Final = -70.0
RELATIVE_GATE_LU: Final = -10.0
_BINS: Final = 1000  # 0.1 LU each, from the absolute gate up
_BINS_PER_LU: Final = 10.0

# BS.1770-4 Annex 1, tables 1 and 2: the head's shelf, then the high pass, (b, a) at 48 kHz.
_STAGES: Final = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)


def _k_weights() -> tuple[Samples, float]:
    """What the K filter does to powers: less than at the top, for a hop's spectrum at QUARTER of the rate; at the top.

    The first is for interleaved real and imaginary parts, and makes good that neighbours were added, twice.
    """
    size = HOP_TICKS // QUARTER
    turns = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / HOP_TICKS)
    gain, top = np.ones(len(turns)), np.ones(1)
    for b, a in _STAGES:
        gain *= np.abs(np.polyval(b[::-1], turns) / np.polyval(a[::-1], turns)) ** 2
        top *= (np.polyval(b[::-1], [-1.0]) / np.polyval(a[::-1], [-1.0])) ** 2
    added = np.abs((1 + turns) * (1 + turns**2)) ** 2
    share = np.full(len(turns), 2.0)
    share[[0, -1]] = 1.0  # the rest stand for two bins each
    return np.repeat((gain - top) / added * share / size**2, 2).astype(np.float32), float(top[0])


_LESS, _TOP = _k_weights()


def hop_powers(samples: Samples) -> Powers:
    """K-weighted mean square of every hop; `samples` is a whole number of hops."""
    whole = samples.reshape(-1, HOP_TICKS)
    half = samples[::2, 0] + samples[1::2, 0]
    quarter = half[::2] + half[1::2]
    spectrum = np.fft.rfft(quarter.reshape(len(whole), -1)).view(np.float32)
    np.square(spectrum, out=spectrum)
    powers = np.einsum("ij,ij->i", whole, whole) * np.float32(_TOP / HOP_TICKS) + spectrum @ _LESS
    return np.asarray(np.maximum(powers, 0.0), dtype=np.float64)


def lufs(power: float) -> float:
    """Power as loudness; -inf for silence."""
    return OFFSET_DB + 10 * float(np.log10(power)) if power > 0 else -np.inf


def power_of(loudness_lufs: float) -> float:
    """Loudness as power."""
    return float(10 ** ((loudness_lufs - OFFSET_DB) / 10))


class Blocks:
    """Powers of 400 ms blocks from those of hops, in a row. State: the last three hops."""

    def __init__(self) -> None:
        self._last = np.zeros(0)

    def add(self, powers: Powers) -> Powers:
        """The powers of the blocks that these hops complete."""
        blocks = self.ahead(powers)
        self._last = np.concatenate((self._last, powers))[-BLOCK_HOPS + 1 :]
        return blocks

    def ahead(self, powers: Powers) -> Powers:
        """The same, without going on."""
        row = np.concatenate((self._last, powers))
        if len(row) < BLOCK_HOPS:
            return np.zeros(0)
        total = row[: len(row) - BLOCK_HOPS + 1].copy()
        for shift in range(1, BLOCK_HOPS):
            total += row[shift : len(row) - BLOCK_HOPS + 1 + shift]
        return total / BLOCK_HOPS

    def save(self) -> list[float]:
        """The state, for `load`."""
        return [float(value) for value in self._last]

    @classmethod
    def load(cls, state: list[float]) -> Self:
        """One that goes on from there."""
        made = cls()
        made._last = np.array(state, dtype=np.float64)
        return made


class Meter:
    """Integrated loudness of all blocks so far. State: a histogram."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)
        self._sums = np.zeros(_BINS)

    def add(self, blocks: Powers) -> None:
        """Count these blocks in; those under the absolute gate are not heard."""
        heard = blocks[blocks > _ABSOLUTE_GATE]
        if len(heard):
            place = ((10 * np.log10(heard) + OFFSET_DB - ABSOLUTE_GATE_LUFS) * _BINS_PER_LU).astype(np.int64)
            place = np.minimum(place, _BINS - 1)
            np.add.at(self._counts, place, 1)
            np.add.at(self._sums, place, heard)

    @property
    def blocks(self) -> int:
        """How many blocks were loud enough to count."""
        return int(self._counts.sum())

    def integrated_lufs(self) -> float:
        """Loudness so far, both gates applied; -inf if nothing was heard."""
        if not (count := self._counts.sum()):
            return -np.inf
        gate = lufs(float(self._sums.sum() / count)) + RELATIVE_GATE_LU
        first = max(int(np.ceil((gate - ABSOLUTE_GATE_LUFS) * _BINS_PER_LU)), 0)
        return lufs(float(self._sums[first:].sum() / max(self._counts[first:].sum(), 1)))

    def save(self) -> list[tuple[int, int, float]]:
        """The state, for `load`: bins that hold something."""
        return [(int(at), int(self._counts[at]), float(self._sums[at])) for at in np.flatnonzero(self._counts)]

    @classmethod
    def load(cls, state: list[tuple[int, int, float]]) -> Self:
        """One that goes on from there."""
        made = cls()
        for at, count, total in state:
            made._counts[at], made._sums[at] = count, total
        return made


_ABSOLUTE_GATE: Final = power_of(ABSOLUTE_GATE_LUFS)
