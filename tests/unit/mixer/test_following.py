"""Following: the same places however the log is fed, everything settled once, and in time."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.clock import NS_PER_SECOND, ns_to_ticks
from mixer.following import GRID_NS, LOOKAHEAD_NS, FollowingPlacer
from mixer.settling import SLIP_TICKS, Settled
from mixer.timeline import Timeline
from tests.senders import Habits, Sent, Way, send
from tests.sync import edges_ms, errors_s, follow, log_of, placer_for

SECONDS = 240.0
BAD_WIFI = Way(jitter_ms=8, loss=0.05, burst=2, reorder=0.02, swells=12, stalls=120, stall_s=(0.05, 0.4))
PEOPLE = [
    send(SECONDS, Habits(), BAD_WIFI, seed=3, user=0),
    send(SECONDS, Habits(rejoins=(100.0, 160.0), capture_stalls=((60.0, 0.5),)), Way(), seed=3, user=1),
    send(SECONDS, Habits(stopped_clock=True), Way(jitter_ms=3), seed=3, user=2),
]
WHOLE = follow(PEOPLE)


def flat(settled: list[Settled]) -> dict[tuple[int, int, int], list[tuple[int, int, int]]]:
    """By packet: lane, place, frames lost after it."""
    return {
        (part.take, part.ssrc, record): (part.lane, tick, lost)
        for part in settled
        for record, tick, lost in zip(part.record.tolist(), part.tick.tolist(), part.lost.tolist(), strict=True)
    }


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_a_saved_state_goes_on_as_if_nothing_had_happened(cuts: list[int]):
    """The fold is saved, dropped and restored at any message; what it settles is the same."""
    placer, settled = placer_for(PEOPLE), []
    for index, fed in enumerate(log_of(PEOPLE)):
        if index in cuts:
            settled += placer.settled()
            placer = FollowingPlacer.restore(placer.save())
        placer.add(fed.take, fed.ssrc, fed.first_record, fed.stamps)
    placer.finish()
    assert flat(settled + placer.settled()) == flat(WHOLE)


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 40))
def test_any_split_into_batches_gives_the_same_places(size: int):
    """The same packets in batches of another size, each published when its last packet has come."""
    batches = []
    for sent in PEOPLE:
        for source in sent.track.sources:
            arrival_ns = source.stamps["arrival_ns"]
            cuts = np.flatnonzero(np.diff(arrival_ns) > NS_PER_SECOND // 2) + 1
            edges = sorted({*range(0, len(arrival_ns), size), *cuts.tolist(), len(arrival_ns)})
            batches += [
                (int(arrival_ns[stop - 1]), source.take, source.ssrc, first, source.stamps[first:stop])
                for first, stop in pairwise(edges)
            ]
    placer = placer_for(PEOPLE)
    for _, take, ssrc, first, stamps in sorted(batches, key=lambda batch: batch[:4]):
        placer.add(take, ssrc, first, stamps)
    placer.finish()
    assert flat(placer.settled()) == flat(WHOLE)


def test_every_packet_is_settled_once():
    for sent in PEOPLE:
        for source in sent.track.sources:
            records = [part.record for part in WHOLE if part.ssrc == source.ssrc]
            assert np.array_equal(np.sort(np.concatenate(records)), np.arange(len(source.stamps)))


def test_what_lies_before_the_horizon_is_settled_and_the_horizon_keeps_up():
    placer = placer_for(PEOPLE)
    for fed in log_of(PEOPLE):
        before = placer.horizon_tick
        placer.add(fed.take, fed.ssrc, fed.first_record, fed.stamps)
        for part in placer.settled():
            assert part.tick.min() >= before
        newest_ns = int(fed.stamps["arrival_ns"][-1])
        assert placer.horizon_tick >= ns_to_ticks(newest_ns - LOOKAHEAD_NS - 3 * NS_PER_SECOND)


def test_the_whole_log_by_track_is_the_same_fold():
    """`Timeline` gives what was settled live, packet by packet."""
    timeline = Timeline([sent.track for sent in PEOPLE], "follow")
    live = flat(WHOLE)
    for sent in PEOPLE:
        for placed in timeline.place(sent.track):
            key = placed.source.take, placed.source.ssrc
            ticks = [live[*key, record][1] for record in placed.record.tolist()]
            assert ticks == placed.tick.tolist()


def test_what_comes_when_its_time_is_settled_is_counted_and_left_out():
    sent = send(600.0, Habits(activity=0.05), Way(), seed=1)
    (source,) = sent.track.sources
    arrival_ns = source.stamps["arrival_ns"]
    pause = int(np.flatnonzero(np.diff(arrival_ns) > LOOKAHEAD_NS)[0]) + 1
    held = pause - 1
    placer = placer_for([sent])
    order = [*range(held), *range(pause, pause + 50), held, *range(pause + 50, len(arrival_ns))]
    for record in order:
        placer.add(source.take, source.ssrc, record, source.stamps[record : record + 1])
    placer.finish()
    records = np.concatenate([part.record for part in placer.settled()])
    assert sorted(records.tolist()) == sorted(set(order) - {held})
    assert placer.notes()[source.take, source.ssrc].late == 1


def test_memory_is_bounded_by_seconds():
    """The state after an hour of talk is as large as after twenty minutes."""
    sent = send(3600.0, Habits(activity=0.5), Way(), seed=1)
    placer, sizes = placer_for([sent]), {}
    for fed in log_of([sent]):
        placer.add(fed.take, fed.ssrc, fed.first_record, fed.stamps)
        placer.settled()
        sizes.setdefault(fed.at_ns // (600 * NS_PER_SECOND), len(placer.save()))
    assert sizes[5] < 1.5 * sizes[2] < 200_000


@pytest.mark.parametrize("person", range(2))
def test_utterances_lie_within_milliseconds_from_the_start(person: int):
    sent: Sent = PEOPLE[person]
    starts, ends = edges_ms(sent, errors_s(sent, WHOLE))
    assert np.quantile(np.abs(starts), 0.95) <= 1.0
    assert max(np.abs(starts).max(), np.abs(ends).max()) <= 5.0


@pytest.mark.parametrize("heard", [True, False], ids=["facts all the while", "nothing before"])
def test_hours_of_silence_before_a_range_change_nothing(heard: bool):  # noqa: FBT001  # a case
    """A range of a log begins late: it is decided as soon as if time had passed, to the same places."""
    later_ns = 1800 * GRID_NS
    placer = placer_for(PEOPLE)
    if heard:
        for second in range(0, later_ns // NS_PER_SECOND, 7):
            placer.pass_time(second * NS_PER_SECOND)
    settled = []
    for fed in log_of(PEOPLE):
        stamps = fed.stamps.copy()
        stamps["arrival_ns"] += later_ns
        placer.add(fed.take, fed.ssrc, fed.first_record, stamps)
        assert ns_to_ticks(int(stamps["arrival_ns"][-1]) - LOOKAHEAD_NS - 2 * NS_PER_SECOND) <= placer.horizon_tick
        settled += placer.settled()
    placer.finish()
    moved, whole = flat(settled + placer.settled()), flat(WHOLE)
    assert moved.keys() == whole.keys()
    shifts = [moved[packet][1] - whole[packet][1] - ns_to_ticks(later_ns) for packet in whole]
    assert max(map(abs, shifts)) <= SLIP_TICKS  # a float that is rounded the other way is one slip
