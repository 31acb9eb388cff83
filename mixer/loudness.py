"""Loudness by ITU-R BS.1770-4 and EBU R128: K-weighted power, gated. Mono, float32 (samples, 1), range [-1, 1], 48 kHz.

    frame of a second -> power of every hop (100 ms) -> of every block (400 ms, each hop) -> gates -> LUFS

The K filter is not run over samples: of a filtered signal only the power is asked for, and that is a weighted sum of
the signal's autocorrelation. Above 6 kHz the filter is even, so that a few lags at a quarter of the rate tell the
head's shelf, and some at a fortieth the high pass (kernel.c). The weights are fitted to the standard's filters, all
frequencies together: nowhere over 60 Hz are they off by more than 0.05 dB. Against FFmpeg's ebur128, speech and noise
differ by less than 0.1 LU (tests/unit/mixer/test_loudness.py).
A block's power is kept in bins of 0.1 LU, with its sum, so that the state is small however long a session is.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from mixer.kernel import kernel
from mixer.opus import Samples

Powers: TypeAlias = NDArray[np.float64]

QUARTER: Final = 4
FORTIETH: Final = 40
NEAR_LAGS: Final = 9  # kernel.c has the same
FAR_LAGS: Final = 41
HOP_TICKS: Final = TICKS_PER_SECOND // 10
BLOCK_HOPS: Final = 4  # two pairs: 400 ms, overlapping by three quarters (BS.1770-4 Annex 1)
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


def _k_power(frequency: Powers) -> Powers:
    """What the K filter does to power at these frequencies, Hz."""
    turns = np.exp(-2j * np.pi * frequency / TICKS_PER_SECOND)
    gain = np.ones(len(turns))
    for b, a in _STAGES:
        gain *= np.abs(np.polyval(b[::-1], turns) / np.polyval(a[::-1], turns)) ** 2
    return gain


@cache
def _k_weights() -> tuple[float, Powers, Powers]:
    """Weights of a signal's power, and of what it has in common with itself, by lags at two lower rates.

    What lies above a lower rate's half comes back mirrored: a lag's cosine does so by itself, and the fit knows of it.
    """
    # Where the high pass bends, points are denser and, being many, each counts less.
    frequency = np.concatenate((np.arange(0, 1200, 2.0), np.arange(1200, TICKS_PER_SECOND / 2, 10.0)))
    counts = np.where(frequency < 1200, 1 / np.sqrt(5), 1.0)  # noqa: PLR2004  # as above
    top = float(_k_power(np.array([TICKS_PER_SECOND / 2]))[0])
    turn = 2 * np.pi * frequency / TICKS_PER_SECOND
    quartered = (2 * np.cos(turn / 2) * 2 * np.cos(turn)) ** 2  # neighbours added, twice
    tenth = np.abs(sum(np.exp(-1j * QUARTER * turn * at) for at in range(FORTIETH // QUARTER))) ** 2
    near = quartered * np.cos(QUARTER * turn * np.arange(NEAR_LAGS)[:, np.newaxis])
    far = quartered * tenth * np.cos(FORTIETH * turn * np.arange(FAR_LAGS)[:, np.newaxis])
    shapes = np.concatenate((near, far)) * counts
    found = np.linalg.lstsq(shapes.T, (_k_power(frequency) - top) * counts, rcond=None)[0]
    found = found.round(6)  # no machine's last digits
    return top, QUARTER * found[:NEAR_LAGS], FORTIETH * found[NEAR_LAGS:]  # of fewer samples each


def hop_powers(samples: Samples) -> Powers:
    """K-weighted mean square of every hop; `samples` is a whole number of hops."""
    whole, near, far = _k_weights()
    samples = np.ascontiguousarray(samples)
    powers = np.empty(len(samples) // HOP_TICKS)
    kernel().hop_powers(samples.ctypes.data, len(powers), whole, near.ctypes.data, far.ctypes.data, powers.ctypes.data)
    return powers


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
        pairs = row[:-1] + row[1:]
        return np.asarray((pairs[:-2] + pairs[2:]) / BLOCK_HOPS)

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
