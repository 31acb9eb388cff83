"""Steps that nobody can be sure of: wrong by the step at most, and each in the report."""

from __future__ import annotations

import numpy as np
import pytest

from mixer.pursuit import NETWORK, SENDER, Step
from mixer.timeline import Timeline
from tests.scenarios import ALIGNMENTS, Judged, errors_s
from tests.senders import Habits, Sent, Way, send
from tests.sync import edges_ms

SECONDS = 900.0
AT_S = 400.0
SLACK_MS = 2.0
SKEW = 1.5e-4  # a stall is told by the recorder's clock, made by the sender's


def judged(sent: Sent, alignment: Judged) -> tuple[np.ndarray, tuple[Step, ...]]:
    """Errors of starts against those before AT_S, and the steps of the report."""
    placed = Timeline([sent.track], alignment).place(sent.track)
    starts, _ = edges_ms(sent, errors_s(sent, placed))
    return starts - np.median(starts[: len(starts) // 4]), placed[0].notes.steps


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(
    ("milliseconds", "decided"), [(30, NETWORK), (60, NETWORK), (110, NETWORK), (-40, NETWORK), (200, SENDER)]
)
def test_a_route_that_changes_for_good_is_in_the_report(milliseconds: float, decided: str, alignment: Judged):
    """Below six frames the RTP clock is believed and nothing moves; above, the map follows by the step, and no more."""
    errors, (step,) = judged(send(SECONDS, Habits(), Way(steps=((AT_S, milliseconds),)), seed=2), alignment)
    assert (step.decided, step.milliseconds) == (decided, pytest.approx(milliseconds, abs=SLACK_MS))
    assert step.at_s == pytest.approx(AT_S, abs=30)
    assert np.abs(errors).max() <= (abs(milliseconds) if decided == SENDER else 0) + SLACK_MS


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize(
    ("milliseconds", "decided"), [(60, NETWORK), (110, NETWORK), (400, SENDER), (1500, SENDER), (30_000, SENDER)]
)
def test_a_capture_that_stalls_is_in_the_report(milliseconds: float, decided: str, alignment: Judged):
    """Above six frames it is followed; below, it looks as a longer route does, and the error is the stall."""
    habits = Habits(capture_stalls=((AT_S, milliseconds / 1000),))
    errors, (step,) = judged(send(SECONDS, habits, Way(), seed=2), alignment)
    assert (step.decided, step.milliseconds) == (decided, pytest.approx(milliseconds, abs=SLACK_MS, rel=SKEW))
    assert np.abs(errors).max() <= (0 if decided == SENDER else milliseconds) + SLACK_MS


def test_a_detour_that_ends_moves_nothing_in_hindsight():
    """200 ms longer for five minutes: no sender takes a stall back."""
    way = Way(steps=((AT_S, 200), (AT_S + 300, -200)))
    errors, steps = judged(send(SECONDS, Habits(), way, seed=2), "hindsight")
    assert [step.decided for step in steps] == [NETWORK, NETWORK]
    assert np.abs(errors).max() <= SLACK_MS


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("seed", range(4))
def test_stalls_of_the_network_are_no_steps(seed: int, alignment: Judged):
    """A link that stops for up to 0.8 s and then delivers everything at once moves nothing."""
    way = Way(jitter_ms=3, stalls=240, stall_s=(0.2, 0.8))
    errors, steps = judged(send(SECONDS, Habits(), way, seed=seed), alignment)
    assert steps == ()
    assert np.abs(errors).max() <= 5.0
