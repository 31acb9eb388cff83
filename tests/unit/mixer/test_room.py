"""What everybody shows at once is the recorder's own way: it moves nobody."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from mixer.pursuit import ROOM
from mixer.timeline import Timeline
from tests.scenarios import ALIGNMENTS, Judged, errors_s
from tests.senders import Habits, Sent, Way, send
from tests.sync import edges_ms

SECONDS = 900.0
AT_S = 500.0
LARGEST_MS = 5.0


def people(step_ms: float, *habits: Habits) -> list[Sent]:
    """People on different networks whose packets all come later from AT_S on."""
    ways = (Way(), Way(jitter_ms=3, loss=0.01), Way(jitter_ms=6, loss=0.03))
    return [
        send(SECONDS, each, msgspec.structs.replace(way, steps=((AT_S, step_ms),)), seed=5, user=user)
        for user, (each, way) in enumerate(zip(habits, ways, strict=False))
    ]


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("step_ms", [200.0, 450.0, -180.0])
def test_a_step_of_all_speakers_at_once_moves_nobody_and_is_reported(step_ms: float, alignment: Judged):
    sents = people(step_ms, Habits(), Habits(), Habits())
    timeline = Timeline([sent.track for sent in sents], alignment)
    for sent in sents:
        placed = timeline.place(sent.track)
        starts, ends = edges_ms(sent, errors_s(sent, placed))
        assert max(np.abs(starts).max(), np.abs(ends).max()) <= LARGEST_MS
        (step,) = placed[0].notes.steps
        assert step.decided == ROOM
        assert step.milliseconds == pytest.approx(step_ms, abs=5)
        assert step.at_s == pytest.approx(AT_S, abs=15)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_who_is_placed_by_arrival_is_not_moved_either(alignment: Judged):
    """One clock stops in silence, one person comes back later: both lie as if the way had never changed."""
    talkative = Habits(activity=0.7)  # following must hear two of them within ten seconds
    sents = people(250.0, talkative, Habits(activity=0.7, rejoins=(700.0,)), Habits(stopped_clock=True))
    timeline = Timeline([sent.track for sent in sents], alignment)
    for sent in sents:
        starts, _ = edges_ms(sent, errors_s(sent, timeline.place(sent.track)))
        assert np.quantile(np.abs(starts), 0.95) <= LARGEST_MS


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_step_of_one_speaker_alone_is_theirs(alignment: Judged):
    """The others speak on as before, so the map of the one follows the arrivals."""
    moved, *others = people(0.0, Habits(capture_stalls=((AT_S, 0.4),)), Habits(), Habits())
    timeline = Timeline([sent.track for sent in (moved, *others)], alignment)
    (step,) = timeline.place(moved.track)[0].notes.steps
    assert step.decided == "sender"
    starts, _ = edges_ms(moved, errors_s(moved, timeline.place(moved.track)))
    assert np.abs(starts).max() <= LARGEST_MS
    assert all(timeline.place(sent.track)[0].notes.steps == () for sent in others)
