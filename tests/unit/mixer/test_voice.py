"""Voices as PCM: the samples are the packets', wherever blocks are cut."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.clock import TICKS_PER_SECOND
from contracts.packets import SILENCE_FRAME
from mixer.feed import Row, RowQueue
from mixer.opus import DECODER_DELAY_TICKS, Samples
from mixer.voice import CONCEAL_TICKS, SourceDecoder
from tests.builders import encode_opus, tone

TONE = tone(440.0, 4.0)
PACKETS = encode_opus(TONE, bitrate=128_000)
END = 5 * TICKS_PER_SECOND


def row(payloads: list[bytes], at: int, *, silent: bool = False, lost: int = 0) -> Row:
    """Packets of 20 ms, placed from tick `at` on."""
    sizes = np.array([len(payload) for payload in payloads], dtype=np.int32)
    return Row(at, np.full(len(payloads), 960, dtype=np.int32), silent, lost, sizes, b"".join(payloads))


def spurt(first: int, last: int, at: int) -> Row:
    """Packets of the tone from frame `first` up to `last`."""
    return row(PACKETS[first:last], at)


def without(whole: Row, gone: range) -> list[Row]:
    """The same with some of them lost."""
    before, rest = whole.split(gone.start)
    return [msgspec.structs.replace(before, lost=len(gone)), rest.split(len(gone))[1]]


def sound(rows: list[Row], cuts: list[int] | None = None) -> Samples:
    edges = [0, *(cuts or []), END]
    decoder = SourceDecoder(RowQueue(rows))
    blocks = []
    for start, stop in pairwise(edges):
        block = decoder.block(start, stop)
        blocks.append(np.zeros((stop - start, 1), np.float32) if block is None else block)
    return np.concatenate(blocks)


CASES = {
    "one spurt": [spurt(0, 100, 24_000)],
    "packet by packet": [spurt(frame, frame + 1, 24_000 + 960 * frame) for frame in range(100)],
    "with a pause": [spurt(0, 60, 24_000), row([SILENCE_FRAME], 81_600, silent=True), spurt(60, 90, 144_000)],
    "with short loss": without(spurt(0, 100, 24_000), range(40, 43)),
    "with long loss": without(spurt(0, 100, 24_000), range(40, 60)),
    "with drift": [spurt(0, 50, 24_000), spurt(50, 100, 72_005), spurt(100, 140, 24_000 + 96_000 - 9)],
    "broken": [row([b"\xff\x3f\x00", *PACKETS[1:30]], 24_000)],
    "without a payload": [row([*PACKETS[:10], b"", *PACKETS[11:30]], 24_000)],
}


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, END - 1), max_size=8, unique=True))
def test_samples_do_not_depend_on_where_blocks_are_cut(case: str, cuts: list[int]):
    assert np.array_equal(sound(CASES[case], sorted(cuts)), sound(CASES[case]))


def test_sound_stands_where_it_was_captured():
    """The decoder's delay is taken out: the tone comes back in phase, to the sample."""
    pcm = sound([spurt(0, 150, 24_000)])
    part = slice(24_000 + 9_600, 24_000 + 96_000)
    shift = TONE[9_600:96_000]
    assert np.abs(pcm[part] - shift).max() < 0.02


def test_outside_of_its_packets_a_voice_is_exactly_silent():
    pcm = sound([spurt(0, 50, 48_000)])
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
    decoder = SourceDecoder(RowQueue([spurt(0, 10, 96_000)]))
    assert decoder.block(0, 48_000) is None
    assert decoder.block(48_000, 144_000) is not None


@pytest.mark.parametrize("case", ["broken", "without a payload"])
def test_broken_packets_are_counted_and_take_their_time(case: str):
    decoder = SourceDecoder(RowQueue(CASES[case]))
    block = decoder.block(0, END)
    assert decoder.broken == 1
    assert np.flatnonzero(block)[-1] == pytest.approx(24_000 + 30 * 960, abs=960)


def test_rows_are_decoded_as_packets_one_by_one():
    assert np.array_equal(sound(CASES["one spurt"]), sound(CASES["packet by packet"]))
