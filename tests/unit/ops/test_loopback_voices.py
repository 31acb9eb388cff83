"""Voices are real speech that sounds from the first frame to the last."""

import random

import discord.opus
import numpy as np
import pytest

from ops.loopback.voices import Voice, voice

QUIET_DBFS = -50.0  # after a lossy codec, from below which a frame counts as silent


def levels_dbfs(frames: list[bytes]) -> list[float]:
    """The level of each frame as a decoder hears it."""
    decoder = discord.opus.Decoder()
    pcm = [np.frombuffer(decoder.decode(frame, fec=False), dtype="<i2") / 32768 for frame in frames]
    return [20 * float(np.log10(np.sqrt((block**2).mean()) + 1e-9)) for block in pcm]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_an_utterance_sounds_from_end_to_end(number: int):
    """The decoded second and last frames are audible, no pause is longer than 300 ms, frames are about 64 kbit/s."""
    speech = voice(number).utterance(150, rng=random.Random(number))
    levels = levels_dbfs(speech)
    assert len(speech) == 150
    assert min(levels[1], levels[-1]) > QUIET_DBFS
    silent = "".join("." if level > QUIET_DBFS else "s" for level in levels)
    assert "s" * 15 not in silent
    assert 110 < np.mean([len(frame) for frame in speech]) < 210


def test_voices_differ_and_are_made_once():
    """Equal numbers give the same object, different numbers different frames."""
    assert voice(0) is voice(0)
    assert len({voice(number).frames[10] for number in range(4)}) == 4


def test_an_utterance_may_be_longer_than_the_recording():
    """The recording goes round."""
    frames = [bytes([number]) for number in range(10)]
    said = Voice(frames, [False, *[True] * 9]).utterance(25, rng=random.Random(0))
    assert len(said) == 25
    assert said[0] == said[10] == said[20]
