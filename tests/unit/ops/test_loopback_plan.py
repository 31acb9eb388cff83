"""Plans of calls: whatever is asked for, the plan is one that people could perform and a judge could check."""

from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ops.loopback.errors import PlanError
from ops.loopback.plan import LEAD_S, OWN_PAUSE_S, TAIL_S, CallPlan, make_plan

GRID_S = 1e-6  # of rounding


@st.composite
def plans(draw: st.DrawFn) -> CallPlan:
    seconds = draw(st.floats(5, 120))
    speakers = draw(st.integers(1, 8))
    assume(seconds >= 5)
    return make_plan(seconds=seconds, speakers=speakers, seed=draw(st.integers(0, 99)), joins=draw(st.booleans()))


def window(plan: CallPlan, user_id: int) -> tuple[float, float]:
    start = next((join.at_s for join in plan.joins if join.user_id == user_id), 0.0)
    stop = next((leave.at_s for leave in plan.leaves if leave.user_id == user_id), plan.seconds)
    return start, stop


@given(plans())
def test_everybody_speaks(plan: CallPlan):
    """Each person has at least one utterance."""
    assert {utterance.user_id for utterance in plan.utterances} == {person.user_id for person in plan.people}


@given(plans())
def test_people_speak_only_while_present(plan: CallPlan):
    """Each utterance lies within its speaker's presence, with time for keys before and for silence after."""
    for utterance in plan.utterances:
        start, stop = window(plan, utterance.user_id)
        assert start + LEAD_S - 0.02 <= utterance.start_s < utterance.stop_s <= stop - TAIL_S + 0.02


@given(plans())
def test_nobody_overlaps_himself(plan: CallPlan):
    """Between two utterances of one person there is silence enough to be judged."""
    for person in plan.people:
        own = [utterance for utterance in plan.utterances if utterance.user_id == person.user_id]
        assert own == sorted(own, key=lambda utterance: utterance.start_s)
        assert all(b.start_s - a.stop_s >= OWN_PAUSE_S - GRID_S for a, b in pairwise(own))


@given(plans())
def test_times_lie_on_the_frame_grid(plan: CallPlan):
    """Starts and stops are whole frames of 20 ms."""
    for utterance in plan.utterances:
        for at in (utterance.start_s * 50, utterance.stop_s * 50):
            assert abs(at - round(at)) < GRID_S


@given(st.integers(0, 30), st.integers(1, 6), st.floats(12, 300))
def test_joins_and_leaves_happen_in_mid_call(seed: int, speakers: int, seconds: float):
    """Of three or more one joins and another leaves; of two one joins late; somebody is always there at the start."""
    plan = make_plan(seconds=seconds, speakers=speakers, seed=seed)
    assert len(plan.joins) == (1 if speakers > 1 else 0)
    assert len(plan.leaves) == (1 if speakers > 2 else 0)
    assert not {join.user_id for join in plan.joins} & {leave.user_id for leave in plan.leaves}
    assert plan.present_at_start()
    assert not make_plan(seconds=seconds, speakers=speakers, seed=seed, joins=False).joins


@given(st.integers(0, 5), st.integers(1, 6), st.floats(5, 60))
def test_the_seed_makes_the_plan(seed: int, speakers: int, seconds: float):
    """The same request gives the same plan."""
    first, second = (make_plan(seconds=seconds, speakers=speakers, seed=seed) for _ in range(2))
    assert first == second


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 5))
def test_large_calls_can_be_planned(seed: int):
    """Fifty people and an hour are a plan, too, in which some speak at the same time."""
    plan = make_plan(seconds=3600, speakers=50, seed=seed)
    assert len(plan.people) == 50
    assert any(b.start_s < a.stop_s for a, b in pairwise(plan.utterances))


@pytest.mark.parametrize(("seconds", "speakers"), [(4.9, 1), (3601, 1), (10, 0), (10, 51)])
def test_what_cannot_be_planned_is_refused(seconds: float, speakers: int):
    """Out of bounds is an error that says the bounds."""
    with pytest.raises(PlanError, match="1 to 50 speakers"):
        make_plan(seconds=seconds, speakers=speakers, seed=0)
