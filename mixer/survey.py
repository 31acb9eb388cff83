"""The first pass of an exact loudness: which gain brings a mix to the target, what its limiter takes away included.

Kept of every hop (100 ms) is its power, of every millisecond its peak, 2 bytes: 7 MB an hour. With these the limiter
can be tried at any gain without the audio.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mixer.levels import TARGET_LUFS
from mixer.limiter import FRAME_STEPS, FRAME_TICKS, HOLD_STEPS, STEP_TICKS, release
from mixer.loudness import HOP_TICKS, Blocks, Meter, Powers, hop_powers
from mixer.opus import Samples

TRIES: Final = 6
CLOSE_LU: Final = 0.02
MOST_GAIN_DB: Final = 40.0
_HOP_STEPS: Final = HOP_TICKS // STEP_TICKS
_CHUNK_FRAMES: Final = 600  # tried at a time


class Survey:
    """What is known of a mix before its loudness is made. `add` all of it, in any blocks.

    Parameters
    ----------
    ceiling_dbtp
        Of the limiter to come.
    """

    def __init__(self, ceiling_dbtp: float) -> None:
        self._ceiling_dbtp = ceiling_dbtp
        self._powers: list[Powers] = []
        self._peaks: list[NDArray[np.float16]] = []
        self._rest = np.zeros((0, 1), dtype=np.float32)

    def add(self, block: Samples) -> None:
        """The next samples."""
        samples = np.concatenate((self._rest, block)) if len(self._rest) else block
        whole = len(samples) // FRAME_TICKS * FRAME_TICKS
        self._rest = samples[whole:]
        if whole:
            self._look(samples[:whole])

    def gain_db(self) -> float:
        """The gain, dB; 0 for silence."""
        if len(self._rest):
            self.add(np.zeros((FRAME_TICKS - len(self._rest), 1), dtype=np.float32))
        powers = np.concatenate(self._powers) if self._powers else np.zeros(0)
        gain = 0.0
        for _ in range(TRIES):
            missing = TARGET_LUFS - self._try(powers, gain)
            if not np.isfinite(missing):
                return 0.0
            gain = float(np.clip(gain + missing, -MOST_GAIN_DB, MOST_GAIN_DB))
            if abs(missing) < CLOSE_LU:
                break
        return gain

    def _look(self, samples: Samples) -> None:
        self._powers.append(hop_powers(samples))
        self._peaks.append(np.abs(samples[:, 0]).reshape(-1, STEP_TICKS).max(axis=1).astype(np.float16))

    def _try(self, powers: Powers, gain_db: float) -> float:
        """The loudness at this gain, limited."""
        meter, blocks = Meter(), Blocks()
        hops = _CHUNK_FRAMES * FRAME_STEPS // _HOP_STEPS
        peaks = np.concatenate(self._peaks) if self._peaks else np.zeros(0, dtype=np.float16)
        for start in range(0, len(powers), hops):
            part = peaks[start * _HOP_STEPS : (start + hops) * _HOP_STEPS]
            meter.add(blocks.add(powers[start : start + hops] * self._factors(part, gain_db)))
        return meter.integrated_lufs()

    def _factors(self, peaks: NDArray[np.float16], gain_db: float) -> Powers:
        """By how much each hop's power changes."""
        level = 20 * np.log10(np.maximum(peaks.astype(np.float64), 1e-9)) + gain_db
        needed = np.concatenate((np.minimum(self._ceiling_dbtp - level, 0), np.zeros(HOLD_STEPS)))
        gains = 10 ** ((release(needed, 0.0) + gain_db) / 10)
        return np.asarray(gains.reshape(-1, _HOP_STEPS).mean(axis=1))
