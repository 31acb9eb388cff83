"""Waveform peaks: the least and the greatest of every pixel, in audiowaveform's words."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.clock import TICKS_PER_SECOND
from mixer.peaks import HEADER, PIXEL_TICKS, Peaks, peaks_dat, peaks_json
from tests.builders import speech_samples

SPEECH = speech_samples(3.33)


def pixels_of(samples: np.ndarray, cuts: list[int]) -> bytes:
    """Through the fold in blocks of these sizes, saved and loaded between any two."""
    peaks, found, at, turn = Peaks(), b"", 0, 0
    while at < len(samples):
        found += peaks.push(samples[at : at + cuts[turn % len(cuts)]])
        at, turn = at + cuts[turn % len(cuts)], turn + 1
        state, peaks = peaks.save(), Peaks()
        peaks.load(state)
    return found + peaks.flush()


def read_dat(data: bytes) -> tuple[tuple[int, ...], np.ndarray]:
    """As audiowaveform's documentation says."""
    return HEADER.unpack_from(data), np.frombuffer(data, np.int8, offset=HEADER.size).reshape(-1, 2)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(500, 100_000), min_size=1, max_size=4))
def test_every_pixel_is_its_least_and_greatest_sample_however_it_was_cut(cuts: list[int]):
    header, pairs = read_dat(peaks_dat(pixels_of(SPEECH, cuts)))
    expected = [(part.min(), part.max()) for part in np.split(SPEECH, range(PIXEL_TICKS, len(SPEECH), PIXEL_TICKS))]
    assert header == (2, 1, TICKS_PER_SECOND, PIXEL_TICKS, len(expected), 1)
    assert np.abs(pairs / 127 - np.array(expected)).max() <= 0.5 / 127 + 1e-6


def test_both_forms_say_the_same():
    pixels = pixels_of(SPEECH, [48_000])
    header, pairs = read_dat(peaks_dat(pixels))
    said = json.loads(peaks_json(pixels))
    assert (said["version"], said["sample_rate"], said["samples_per_pixel"], said["bits"]) == (2, 48_000, 2400, 8)
    assert said["length"] == header[4] == len(pairs)
    assert said["data"] == pairs.ravel().tolist()


def test_full_scale_fits():
    _, pairs = read_dat(peaks_dat(pixels_of(np.array([[1.5], [-1.5]], np.float32), [2])))
    assert pairs.tolist() == [[-127, 127]]
