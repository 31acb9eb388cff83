"""The report: what was lost, late, locked or doubtful, as the log has it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from contracts.clock import NS_PER_SECOND, TICKS_PER_SECOND, ns_to_ticks
from contracts.packets import Outcome
from mixer.replay import Track
from mixer.report import LOSS_SPANS, SpeakerReport, lost_spans, report_track
from mixer.timeline import Timeline
from tests.senders import Habits, Sent, Way, send, source_of

SECONDS = 600.0


def report(track: Track) -> SpeakerReport:
    placed = Timeline([track], "hindsight").place(track)
    return report_track(track, placed, Timeline([track], "follow").place(track))


def with_outcome(sent: Sent, outcome: Outcome, from_s: float, to_s: float) -> Track:
    """The track with all voice of a time span turned into something else."""
    (source,) = sent.track.sources
    stamps = source.stamps.copy()
    span = (stamps["arrival_ns"] >= from_s * NS_PER_SECOND) & (stamps["arrival_ns"] < to_s * NS_PER_SECOND)
    stamps["outcome"][span & (stamps["outcome"] == Outcome.VOICE)] = outcome
    return msgspec.structs.replace(sent.track, sources=(source_of(stamps, take=source.take, ssrc=source.ssrc),))


@pytest.mark.parametrize("loss", [0.0, 0.02, 0.2])
def test_loss_is_the_share_of_frames_that_never_came(loss: float):
    sent = send(SECONDS, Habits(), Way(loss=loss), seed=1)
    (source,) = sent.track.sources
    sequence = np.unwrap(source.stamps["sequence"].astype(float), period=2**16)
    missing = int(np.ptp(sequence)) + 1 - len(sequence)
    told = report(sent.track)
    assert told.lost == missing
    assert told.loss == pytest.approx(loss * 1.0, abs=0.25 * loss + 1e-4)
    assert 0 <= told.concealed <= told.lost
    assert (told.concealed > 0.5 * told.lost) == (loss > 0)


@pytest.mark.parametrize("seconds", [30.0, SECONDS])
def test_losses_are_where_frames_never_came(seconds: float):
    """All of them are in some span, spans follow one another without overlap, and there are never too many to draw."""
    sent = send(seconds, Habits(), Way(loss=0.05), seed=5)
    placed = Timeline([sent.track], "hindsight").place(sent.track)
    stop_tick = round(seconds * TICKS_PER_SECOND)
    spans = lost_spans(placed, stop_tick)
    assert sum(frames for _, _, frames in spans) == report(sent.track).lost > 0
    assert len(spans) <= LOSS_SPANS
    edges = [edge for start, stop, _ in spans for edge in (start, stop)]
    assert edges == sorted(edges)
    assert edges[0] >= 0
    assert edges[-1] <= stop_tick
    whole = send(seconds, Habits(), Way(loss=0.0), seed=5).track
    assert lost_spans(Timeline([whole], "hindsight").place(whole), stop_tick) == ()


def test_drift_is_told_in_parts_per_million():
    sent = send(SECONDS, Habits(), Way(), seed=4)
    (source,) = sent.track.sources
    sent_s = np.unwrap(source.stamps["timestamp"].astype(float), period=2**32) / 48_000
    true_ppm = (np.ptp(sent.captured_s[0]) / np.ptp(sent_s) - 1) * 1e6
    (told_ppm,) = report(sent.track).skew_ppm
    assert told_ppm == pytest.approx(true_ppm, abs=1.0)


def test_a_skew_that_nobody_can_know_is_not_told():
    assert report(send(3.0, Habits(), Way(), seed=4).track).skew_ppm == (None,)


def test_jitter_and_lateness_grow_with_the_network_s():
    calm = report(send(SECONDS, Habits(), Way(jitter_ms=1), seed=4).track)
    wild = report(send(SECONDS, Habits(), Way(jitter_ms=10), seed=4).track)
    assert 0.3 < calm.jitter_ms < 2 < wild.jitter_ms < 12
    assert calm.late_ms < 4
    assert 10 < wild.late_ms < 40


def test_speech_that_nobody_could_open_is_a_span_with_its_reason():
    track = with_outcome(send(SECONDS, Habits(activity=0.5), Way(), seed=4), Outcome.NO_KEY, 100, 160)
    stamps = track.sources[0].stamps
    locked = stamps["arrival_ns"][stamps["outcome"] == Outcome.NO_KEY]
    told = report(track)
    assert {span.reason for span in told.undecryptable} == {"NO_KEY"}
    assert sum(span.packets for span in told.undecryptable) == len(locked) == told.outcomes["NO_KEY"]
    assert told.undecryptable[0].start_tick == ns_to_ticks(int(locked[0]))
    assert all(span.start_tick < span.stop_tick for span in told.undecryptable)
    assert told.lost >= len(locked) - 300  # those at the ends of pauses are nobody's gap


def test_pauses_of_a_clock_that_stops_are_counted_not_listed():
    told = report(send(SECONDS, Habits(stopped_clock=True), Way(), seed=4).track)
    assert told.clock_stops > 20
    assert told.steps == ()


def test_the_alignments_difference_is_the_largest_of_any_packet():
    told = report(send(SECONDS, Habits(), Way(jitter_ms=3), seed=4).track)
    assert told.difference_ms is not None
    assert 0 < told.difference_ms < 5


def test_the_report_can_be_written():
    """Nothing of numpy is left in it."""
    told = report(send(SECONDS, Habits(capture_stalls=((200.0, 0.5),)), Way(loss=0.05), seed=4).track)
    assert msgspec.json.decode(msgspec.json.encode(told), type=SpeakerReport) == told
