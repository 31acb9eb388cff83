"""A limiter of true peaks: what would pass the ceiling, between samples too, is turned down before it comes.

    frame -> peak of every step (1 ms, oversampled where it may matter) -> gain it needs -> held, released -> smoothed

Gains fall over the lookahead and rise by RELEASE_DB_PER_S; from step to step they run straight, and never above what a
step needs. Peaks between samples are those of BS.1770-4 Annex 2: four times oversampled by its 48 coefficients.
Where the four samples around a point all lie under SAFE of the ceiling, it is not looked at: few are.
A frame that needs nothing goes through untouched. One frame of a second is held back.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from mixer.kernel import kernel
from mixer.opus import Samples

Decibels: TypeAlias = NDArray[np.float64]

FRAME_TICKS: Final = TICKS_PER_SECOND
STEP_TICKS: Final = 48  # 1 ms
FRAME_STEPS: Final = FRAME_TICKS // STEP_TICKS
SMOOTH_STEPS: Final = 6  # 5 ms to fall
HOLD_STEPS: Final = SMOOTH_STEPS + 1  # one more: the filter's points lie up to 6 samples before the step they count for
RELEASE_DB_PER_S: Final = 60.0
_INAUDIBLE_DB: Final = 1e-6
_RELEASE: Final = RELEASE_DB_PER_S * STEP_TICKS / FRAME_TICKS

# BS.1770-4 Annex 2: phases 0 and 1 of the filter; 2 and 3 are these, reversed.
_PHASES_01: Final = (
    (
        *(0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875, 0.1373291015625),
        *(0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250, 0.0148925781250, -0.0083007812500),
    ),
    (
        *(-0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500, 0.4650878906250),
        *(0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625, 0.0330810546875, -0.0189208984375),
    ),
)
_HALF: Final = np.array(_PHASES_01, dtype=np.float32)
_PHASES: Final = np.ascontiguousarray(np.concatenate((_HALF, _HALF[:, ::-1])))
_TAPS: Final = _PHASES.shape[1]
SAFE: Final = 0.55  # -5.2 dB: of white noise, no point between samples that passed the ceiling stood among lower ones


class LimiterState(msgspec.Struct, frozen=True, array_like=True):
    """What a limiter knows between two frames; sound as float32."""

    waits: bool
    begun: bool
    held: bytes | None
    tail: bytes
    needed_db: tuple[float, ...]
    released_db: tuple[float, ...]
    peak: float


class Limiter:
    """Keeps a mono signal under a true peak.

    Parameters
    ----------
    ceiling
        The most it lets through, as an amplitude.

    Attributes
    ----------
    peak
        The largest peak that came out, an amplitude: a true one, or that of samples where true ones cannot matter.
    """

    def __init__(self, ceiling: float) -> None:
        self._ceiling = ceiling
        self._waits = False  # whether a frame is held
        self._begun = False  # whether one was given
        self._held: Samples | None = None
        self._tail = np.zeros(_TAPS - 1, dtype=np.float32)  # the samples before the next frame
        self._needed = np.zeros(FRAME_STEPS)  # of the held frame
        self._released = np.zeros(SMOOTH_STEPS)  # of the steps before it
        self.peak = 0.0

    def frame(self, samples: Samples | None) -> tuple[Samples | None, bool]:
        """Take a frame of a second, float32 (FRAME_TICKS, 1), None = silence; give the one before.

        Returns
        -------
        That frame, limited (the same array if it needed nothing), and whether there was one: not at the first call.
        """
        needed = self._needs(samples)
        held, was_held = self._held, self._waits
        gains = self._gains(needed) if was_held else None
        if gains is not None and held is not None:
            held, factors = held.copy(), gains.astype(np.float32)
            kernel().turn_down(held.ctypes.data, factors.ctypes.data)
        self._begun = was_held
        self._held, self._waits, self._needed = samples, True, needed
        return held, was_held

    def flush(self) -> Samples | None:
        """The frame that is held back."""
        return self.frame(None)[0]

    def save(self) -> LimiterState:
        """The state, for `load`."""
        return LimiterState(
            waits=self._waits,
            begun=self._begun,
            held=None if self._held is None else self._held.tobytes(),
            tail=self._tail.tobytes(),
            needed_db=tuple(self._needed.tolist()) if self._needed.any() else (),
            released_db=tuple(self._released.tolist()),
            peak=self.peak,
        )

    def load(self, state: LimiterState) -> None:
        """Go on from there."""
        self._waits, self._begun, self.peak = state.waits, state.begun, state.peak
        self._held = None if state.held is None else np.frombuffer(state.held, dtype=np.float32).reshape(-1, 1)
        self._tail = np.frombuffer(state.tail, dtype=np.float32)
        self._needed = np.array(state.needed_db) if state.needed_db else np.zeros(FRAME_STEPS)
        self._released = np.array(state.released_db)

    def _needs(self, samples: Samples | None) -> Decibels:
        """The gain that each step of a frame needs, dB, at most 0."""
        if samples is None:
            self._tail = np.zeros(_TAPS - 1, dtype=np.float32)
            return np.zeros(FRAME_STEPS)
        flat = np.concatenate((self._tail, samples[:, 0]))
        self._tail = flat[FRAME_TICKS:]
        needed = np.zeros(FRAME_STEPS)
        largest, found = step_peaks(flat, safe=SAFE * self._ceiling)
        if largest <= SAFE * self._ceiling:
            self.peak = max(self.peak, largest)
            return needed
        peaks = found.astype(np.float64)
        over = peaks > self._ceiling
        self.peak = max(self.peak, min(float(peaks.max()), self._ceiling))
        needed[over] = 20 * np.log10(self._ceiling / peaks[over])
        return needed

    def _gains(self, following: Decibels) -> NDArray[np.float64] | None:
        """Factors at the ends of the held frame's steps (FRAME_STEPS + 1 of them); None if all are 1."""
        ahead = following[: HOLD_STEPS + 1]
        if not (self._needed.any() or ahead.any() or self._released.any()):
            return None
        released = release(np.concatenate((self._needed, ahead)), float(self._released[-1]))
        before = self._released if self._begun else np.full(SMOOTH_STEPS, released[0])
        row = np.concatenate((before, released))
        self._released = row[FRAME_STEPS : FRAME_STEPS + SMOOTH_STEPS]
        smooth = np.mean([row[shift : len(row) - SMOOTH_STEPS + 1 + shift] for shift in range(SMOOTH_STEPS)], axis=0)
        factors: NDArray[np.float64] = 10 ** (np.minimum(smooth[:-1], smooth[1:]) / 20)
        return factors


def release(needed: Decibels, before: float) -> Decibels:
    """Gains that are held over what comes next, and rise again: one for each step that HOLD_STEPS more follow.

    Parameters
    ----------
    before
        Where the release stood a step earlier, dB.
    """
    count = len(needed) - HOLD_STEPS
    held = np.min([needed[shift : shift + count] for shift in range(HOLD_STEPS + 1)], axis=0)
    slope = np.arange(count) * _RELEASE
    risen = np.minimum.accumulate(held - slope)
    gains = np.minimum(risen, before + _RELEASE) + slope
    gains[gains > -_INAUDIBLE_DB] = 0.0
    return np.asarray(gains)


def step_peaks(flat: NDArray[np.float32], *, safe: float) -> tuple[float, NDArray[np.float32]]:
    """The largest sample of a frame, which stands behind _TAPS - 1 of the past, and the true peak of each of its steps.

    Where a peak is under `safe`, it is 0.
    """
    peaks = np.empty(FRAME_STEPS, dtype=np.float32)
    return kernel().step_peaks(flat.ctypes.data, _PHASES.ctypes.data, safe, peaks.ctypes.data), peaks
