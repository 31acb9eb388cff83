"""Voices as PCM: the samples are the packets', wherever blocks are cut."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.clock import TICKS_PER_SECOND
from contracts.packets import SILENCE_FRAME
from mixer.feed import Placed
from mixer.opus import DECODER_DELAY_TICKS, Samples
from mixer.voice import CONCEAL_TICKS, SourceDecoder
from tests.builders import encode_opus, tone

TONE = tone(440.0, 4.0)
PACKETS = encode_opus(TONE, bitrate=128_000)
END = 5 * TICKS_PER_SECOND


class ListFeed:
    """Placed packets from a list, in the manner of a SourceFeed."""

    def __init__(self, placed: list[Placed]) -> None:
        self._placed = placed

    def until(self, tick: int) -> Iterator[Placed]:
        """Those that start before a tick."""
        while self._placed and self._placed[0].tick < tick:
            yield self._placed.pop(0)


def spurt(first: int, last: int, at: int, *, step: int = 960) -> list[Placed]:
    """Packets of the tone from frame `first` up to `last`, placed from tick `at` on."""
    return [Placed(at + (frame - first) * step, 960, False, 0, PACKETS[frame]) for frame in range(first, last)]


def without(placed: list[Placed], gone: range) -> list[Placed]:
    """The same with some of them lost."""
    kept = [packet for index, packet in enumerate(placed) if index not in gone]
    before = kept[gone.start - 1]
    kept[gone.start - 1] = Placed(before.tick, before.ticks, False, len(gone), before.payload)
    return kept


def sound(placed: list[Placed], cuts: list[int] | None = None) -> Samples:
    edges = [0, *(cuts or []), END]
    decoder = SourceDecoder(ListFeed(list(placed)))
    blocks = []
    for start, stop in pairwise(edges):
        block = decoder.block(start, stop)
        blocks.append(np.zeros((stop - start, 1), np.float32) if block is None else block)
    return np.concatenate(blocks)


def silence_frame(at: int) -> Placed:
    return Placed(at, 960, True, 0, SILENCE_FRAME)


CASES = {
    "one spurt": spurt(0, 100, 24_000),
    "with a pause": [*spurt(0, 60, 24_000), silence_frame(24_000 + 60 * 960), *spurt(60, 90, 144_000)],
    "with short loss": without(spurt(0, 100, 24_000), range(40, 43)),
    "with long loss": without(spurt(0, 100, 24_000), range(40, 60)),
    "with drift": [*spurt(0, 50, 24_000), *spurt(50, 100, 72_005), *spurt(100, 140, 24_000 + 96_000 - 9)],
    "broken": [Placed(24_000, 960, False, 0, b"\xff\x3f\x00"), *spurt(1, 30, 24_960)],
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, END - 1), max_size=8, unique=True))
def test_samples_do_not_depend_on_where_blocks_are_cut(case: str, cuts: list[int]):
    assert np.array_equal(sound(CASES[case], sorted(cuts)), sound(CASES[case]))


def test_sound_stands_where_it_was_captured():
    """The decoder's delay is taken out: the tone comes back in phase, to the sample."""
    pcm = sound(spurt(0, 150, 24_000))
    part = slice(24_000 + 9_600, 24_000 + 96_000)
    shift = TONE[9_600:96_000]
    assert np.abs(pcm[part] - shift).max() < 0.02


def test_outside_of_its_packets_a_voice_is_exactly_silent():
    pcm = sound(spurt(0, 50, 48_000))
    assert not pcm[: 48_000 - DECODER_DELAY_TICKS].any()
    assert not pcm[48_000 + 50 * 960 + 960 :].any()


def test_short_losses_are_concealed_and_long_ones_fall_silent():
    at = 24_000 + 40 * 960
    short = sound(CASES["with short loss"])[at + 480 : at + 3 * 960]
    assert np.sqrt(np.mean(short**2)) > 0.07
    long = sound(CASES["with long loss"])[at + CONCEAL_TICKS : at + 19 * 960]
    assert not long.any()


def test_drift_is_taken_out_without_a_click():
    """Steps of a few samples: no jump between neighbours that the tone itself does not have."""
    pcm = sound(CASES["with drift"])[26_000:150_000, 0]
    steepest = 0.2 * 2 * np.pi * 440 / TICKS_PER_SECOND
    assert np.abs(np.diff(pcm)).max() < 1.3 * steepest


def test_a_silent_block_costs_nothing():
    decoder = SourceDecoder(ListFeed(spurt(0, 10, 96_000)))
    assert decoder.block(0, 48_000) is None
    assert decoder.block(48_000, 144_000) is not None


def test_broken_packets_are_counted():
    decoder = SourceDecoder(ListFeed(list(CASES["broken"])))
    decoder.block(0, END)
    assert decoder.broken == 1
