"""The meter agrees with the standard and with another implementation of it."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.clock import TICKS_PER_SECOND
from mixer.loudness import Blocks, Meter, hop_powers
from tests.builders import speech_samples
from tests.ebur128 import measure

EBU_TOLERANCE_LU = 0.1  # EBU Tech 3341 §2.9, of its test signals
AGREE_LU = 0.15  # FFmpeg prints one decimal place; frames stand elsewhere


def integrated(samples: np.ndarray) -> float:
    meter, blocks = Meter(), Blocks()
    meter.add(blocks.add(hop_powers(samples.astype(np.float32))))
    return meter.integrated_lufs()


def sine(*parts: tuple[float, float]) -> np.ndarray:
    """1 kHz in (seconds, dBFS) one after the other."""
    levels = np.concatenate([np.full(round(s * TICKS_PER_SECOND), 10 ** (db / 20)) for s, db in parts])
    return (levels * np.sin(2 * np.pi * 1000 * np.arange(len(levels)) / TICKS_PER_SECOND)).reshape(-1, 1)


STEREO_DB = 10 * np.log10(2)  # the signals of EBU Tech 3341 are stereo: one channel is half of them


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (((20, -23),), -23),
        (((20, -33),), -33),
        (((10, -36), (60, -23), (10, -36)), -23),
        (((10, -72), (10, -36), (60, -23), (10, -36), (10, -72)), -23),
        (((20, -26), (20.1, -20), (20, -26)), -23),
    ],
)
def test_the_signals_of_the_ebu_measure_what_they_must(parts: tuple[tuple[float, float], ...], expected: float):
    """EBU Tech 3341, cases 1 to 5."""
    assert integrated(sine(*parts)) + STEREO_DB == pytest.approx(expected, abs=EBU_TOLERANCE_LU)


@pytest.mark.parametrize("gain_db", [0, -12, -30])
def test_speech_measures_as_with_ffmpeg(gain_db: float):
    """Real speech with pauses, at any level."""
    speech = speech_samples(40.0) * 10 ** (gain_db / 20)
    speech[10 * TICKS_PER_SECOND : 17 * TICKS_PER_SECOND] = 0
    speech[25 * TICKS_PER_SECOND : 30 * TICKS_PER_SECOND] *= 0.1
    assert integrated(speech) == pytest.approx(measure(speech).loudness_lufs, abs=AGREE_LU)


def test_noise_of_every_pitch_measures_as_with_ffmpeg():
    """White noise: the whole of the K filter counts."""
    noise = np.random.default_rng(5).standard_normal((20 * TICKS_PER_SECOND, 1)) * 0.1
    assert integrated(noise) == pytest.approx(measure(noise.astype(np.float32)).loudness_lufs, abs=AGREE_LU)


def test_silence_has_no_loudness():
    assert integrated(np.zeros((TICKS_PER_SECOND, 1))) == -np.inf


def test_a_meter_goes_on_from_its_state():
    """Saved and loaded at any hop, it says the same."""
    powers = hop_powers(speech_samples(30.0))
    whole, half, blocks = Meter(), Meter(), Blocks()
    whole.add(Blocks().add(powers))
    for part in np.array_split(powers, 7):
        half.add(blocks.add(part))
        half, blocks = Meter.load(half.save()), Blocks.load(blocks.save())
    assert half.integrated_lufs() == pytest.approx(whole.integrated_lufs(), abs=1e-9)
