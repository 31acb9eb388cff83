"""The limiter: never over its ceiling, never at work without need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer.limiter import FRAME_TICKS, RELEASE_DB_PER_S, Limiter
from tests.builders import speech_samples
from tests.ebur128 import measure

CEILING_DBTP = -1.0
CEILING = 10 ** (CEILING_DBTP / 20)
METERS_DIFFER_DB = 0.2  # between true peaks of FFmpeg's oversampling and of the standard's coefficients


def limited(samples: np.ndarray) -> np.ndarray:
    limiter = Limiter(CEILING)
    frames = [limiter.frame(frame) for frame in samples.astype(np.float32).reshape(-1, FRAME_TICKS, 1)]
    return np.concatenate([frame for frame, there in frames if there and frame is not None] + [limiter.flush()])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), gain=st.floats(0.1, 30))
def test_nothing_passes_the_ceiling(seed: int, gain: float):
    """Noise in bursts, at any level: no sample over it, and as long as it was."""
    chance = np.random.default_rng(seed)
    bursts = np.repeat(chance.random(3 * 20) ** 4, FRAME_TICKS // 20)
    noise = chance.standard_normal(3 * FRAME_TICKS) * bursts * gain
    out = limited(noise.reshape(-1, 1))
    assert len(out) == len(noise)
    assert np.abs(out).max() <= CEILING * (1 + 1e-6)


@pytest.mark.parametrize("gain_db", [6, 20])
def test_true_peaks_of_speech_stay_below_by_another_meter(gain_db: float):
    out = limited(speech_samples(20.0) * 10 ** (gain_db / 20))
    assert measure(out).peak_dbtp <= CEILING_DBTP + METERS_DIFFER_DB


def test_a_peak_between_two_samples_is_seen():
    """A sine of a quarter of the rate, sampled beside its tops: 3 dB more between samples than on them."""
    angle = np.pi / 4 + np.pi / 2 * np.arange(4 * FRAME_TICKS)
    out = limited((1.2 * np.sin(angle)).reshape(-1, 1))
    assert np.abs(out[FRAME_TICKS:]).max() == pytest.approx(CEILING / np.sqrt(2), rel=0.02)


def test_what_stays_below_is_untouched():
    """Bit for bit."""
    quiet = (speech_samples(5.0) * 0.5).astype(np.float32)
    assert np.array_equal(limited(quiet), quiet)


def test_a_peak_is_turned_down_before_it_and_soon_forgotten():
    """5 ms before, and RELEASE_DB_PER_S after; elsewhere nothing happens."""
    samples = np.full((3 * FRAME_TICKS, 1), 0.1)
    samples[70_000:70_100] = 5.0
    out = limited(samples)[:, 0]
    over_db = 20 * np.log10(5.0 / CEILING) + 2  # its edges are higher between samples
    back = 70_100 + int(over_db / RELEASE_DB_PER_S * FRAME_TICKS) + 600
    assert np.array_equal(out[: 70_000 - 600], samples[: 70_000 - 600, 0].astype(np.float32))
    assert np.array_equal(out[back:], samples[back:, 0].astype(np.float32))
    assert np.abs(out[70_000:70_100]).max() <= CEILING * (1 + 1e-6)


def test_a_limiter_goes_on_from_its_state():
    """Saved and loaded after every frame, it gives the same samples."""
    loud = (speech_samples(8.0) * 4).astype(np.float32)
    limiter = Limiter(CEILING)
    found = []
    for frame in loud.reshape(-1, FRAME_TICKS, 1):
        out, there = limiter.frame(frame)
        found += [out] if there else []
        state, limiter = limiter.save(), Limiter(CEILING)
        limiter.load(state)
    assert np.array_equal(np.concatenate([*found, limiter.flush()]), limited(loud))
