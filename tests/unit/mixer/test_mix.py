"""Sums of voices, and the integers they become."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixer.mix import mix_blocks, to_pcm
from mixer.sound import Sound, SoundFold

BARE = Sound(levelling=False, loudness="fixed", ceiling_dbtp=None)
amplitudes = st.integers(-300, 300).map(lambda thousandths: thousandths / 1000)


def wave(amplitude: float, period: int) -> np.ndarray:
    return (amplitude * np.sin(np.arange(4800) * 2 * np.pi / period)).astype(np.float32).reshape(-1, 1)


def mixed(voices: dict[str, np.ndarray], gains: dict[str, float]) -> np.ndarray:
    fold = SoundFold(Sound(levelling=False, loudness="fixed", ceiling_dbtp=None, gain_db=gains))
    return np.concatenate((fold.push(voices, 4800), fold.flush()))


@given(a=amplitudes, b=amplitudes, first=st.floats(-20, 6), second=st.floats(-20, 6))
def test_mixing_is_linear(a: float, b: float, first: float, second: float):
    """The mix of voices at gains is the sum of the mixes of each alone, and of the voices times their gains."""
    voices, gains = {"a": wave(a, 100), "b": wave(b, 37)}, {"a": first, "b": second}
    both = mixed(voices, gains)
    alone = sum(mixed({name: voices[name]}, gains) for name in voices)
    scaled = sum(voices[name].astype(np.float64) * 10 ** (gains[name] / 20) for name in voices)
    assert np.allclose(both, alone, atol=1e-6)
    assert np.allclose(both, scaled, atol=1e-6)


def test_one_voice_untouched_is_itself():
    """Without a gain, a limiter or a neighbour, every sample comes out as it went in."""
    assert np.array_equal(mixed({"a": wave(0.9, 100)}, {}), wave(0.9, 100))


def test_no_voice_is_no_block():
    assert mix_blocks([]) is None


def test_pcm_is_rounded_to_the_nearest_and_clipped():
    block = np.array([[0.5], [-2.0], [1e-6]], np.float32)
    assert to_pcm(block, bits=16).ravel().tolist() == [16384, -32767, 0]
    assert to_pcm(block, bits=24).ravel().tolist() == [4194304 << 8, -8388607 << 8, 8 << 8]
