"""Streams of real clients: their clock runs on in silence, lost packets keep their place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from contracts.clock import FRAME_TICKS, TICKS_PER_SECOND
from contracts.packets import Outcome
from mixer.replay import STAMP, Track
from mixer.timeline import Timeline
from tests.scenarios import ALIGNMENTS, Judged
from tests.senders import source_of

RUNS: dict[str, list[tuple[int, int, int]]] = json.loads(
    (Path(__file__).parents[2] / "data" / "rtp" / "jitsi_runs.json").read_text()
)
SKEW = 60e-6
NEAR_TICKS = 48  # a millisecond


def packets(runs: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Sequence numbers and timestamps of every packet."""
    sequence = np.concatenate([first + np.arange(count) for first, _, count in runs])
    timestamp = np.concatenate([first + FRAME_TICKS * np.arange(count) for _, first, count in runs])
    return sequence, timestamp


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("stream", RUNS)
def test_packets_of_a_real_client_keep_the_distances_of_its_clock(stream: str, alignment: Judged):
    """Through a home's jitter, arrivals made up, the sender's clock 60 ppm slow."""
    sequence, timestamp = packets(RUNS[stream])
    sent_s = (timestamp - timestamp[0]) / TICKS_PER_SECOND * (1 + SKEW)
    arrival_s = 1 + sent_s + np.random.default_rng(1).gamma(2, 0.0015, len(sent_s))
    order = np.argsort(arrival_s)
    stamps = np.zeros(len(order), dtype=STAMP)
    stamps["sequence"], stamps["timestamp"] = sequence[order] & 0xFFFF, timestamp[order]
    stamps["arrival_ns"] = (arrival_s[order] * 1e9).astype(np.int64)
    stamps["ticks"], stamps["outcome"] = FRAME_TICKS, Outcome.VOICE
    track = Track("1", "Ada", (source_of(stamps, take=1, ssrc=7),))
    (placed,) = Timeline([track], alignment).place(track)
    error = placed.tick - sent_s[order][placed.record] * TICKS_PER_SECOND
    assert np.ptp(error) <= NEAR_TICKS
    assert placed.lost.sum() == sum(np.diff(sequence) - 1)
    assert placed.notes is not None
    assert placed.notes.steps == ()
