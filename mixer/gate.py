"""A noise gate: a voice is muted where it stays quieter than a threshold. Off unless a recipe asks for it.

It opens LEAD_STEPS before the sound that passes the threshold and closes HOLD_STEPS after it, along straight lines, so
that no beginning is bitten off and no ending clicks. A frame of a second, and the first steps of the next, decide.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from mixer.opus import Samples

STEP_TICKS: Final = TICKS_PER_SECOND // 100
FRAME_STEPS: Final = 100
LEAD_STEPS: Final = 3  # 30 ms
HOLD_STEPS: Final = 25  # 250 ms


class Gate:
    """The gate of one voice.

    Parameters
    ----------
    threshold_db
        RMS of 10 ms, dBFS.
    """

    def __init__(self, threshold_db: float) -> None:
        self._threshold = 10 ** (threshold_db / 10)
        self._past = np.zeros(HOLD_STEPS + 1, dtype=np.bool_)  # which of the last steps were loud

    def frame(self, samples: Samples | None, following: Samples | None) -> Samples | None:
        """A frame of a second, float32 (FRAME_TICKS, 1), gated; `following` is the next. None = no sound."""
        loud = self._loud(samples)
        ahead = self._loud(following)
        row = np.concatenate((self._past, loud, ahead[: LEAD_STEPS + 1]))
        self._past = row[FRAME_STEPS : FRAME_STEPS + HOLD_STEPS + 1]
        if samples is None or loud.all():
            return samples
        near = np.lib.stride_tricks.sliding_window_view(row, HOLD_STEPS + LEAD_STEPS + 1)
        ends = np.max(near[: FRAME_STEPS + 1], axis=1).astype(np.float32)
        if not ends.any():
            return None
        rise = np.diff(ends)[:, np.newaxis] * np.arange(STEP_TICKS, dtype=np.float32) / np.float32(STEP_TICKS)
        opened: Samples = samples.reshape(FRAME_STEPS, STEP_TICKS) * (ends[:-1, np.newaxis] + rise)
        return opened.reshape(-1, 1)

    def rest(self) -> None:
        """A frame without sound: it is shut."""
        self._past[:] = False

    def save(self) -> list[bool]:
        """The state, for `load`."""
        found: list[bool] = self._past.tolist()
        return found

    def load(self, state: list[bool]) -> None:
        """Go on from there."""
        self._past = np.array(state, dtype=np.bool_)

    def _loud(self, samples: Samples | None) -> NDArray[np.bool_]:
        if samples is None:
            return np.zeros(FRAME_STEPS, dtype=np.bool_)
        steps = samples.reshape(FRAME_STEPS, STEP_TICKS)
        return np.asarray(np.square(steps).mean(axis=1) > self._threshold)
