"""The sequencer gives every packet once, in order if it can."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from capture.voice.reorder import CAPACITY, WAIT_NS, WINDOW, Sequencer

FRAME_NS = 20_000_000
SPACE = 1 << 16


def feed(order: Sequencer[int], arrivals: list[tuple[int, int]]) -> list[int]:
    """Push (number, time) in turn, with a tick before each; what came out, as numbers."""
    out: list[int] = []
    for number, now_ns in arrivals:
        out += order.release(now_ns)
        if not order.is_duplicate(number % SPACE):
            out += order.push(number % SPACE, now_ns, number)
    return out + order.release((arrivals[-1][1] if arrivals else 0) + WAIT_NS) + order.flush()


starts = st.integers(0, SPACE - 1) | st.integers(SPACE - 80, SPACE - 1)
delays = st.lists(st.integers(0, WAIT_NS - FRAME_NS), min_size=1, max_size=150)


@given(starts, delays, st.data())
def test_what_is_late_by_less_than_the_wait_comes_in_order(start: int, late_ns: list[int], data: st.DataObject):
    """Any jitter below the wait, any duplicates, any wrap of 16 bits: each packet once, in order."""
    sent = [(start + k, k * FRAME_NS + late) for k, late in enumerate(late_ns)]
    again = data.draw(st.lists(st.sampled_from(sent), max_size=20))
    doubles = [(number, at_ns + data.draw(st.integers(0, WAIT_NS))) for number, at_ns in again]
    order: Sequencer[int] = Sequencer()
    out = feed(order, sorted(sent + doubles, key=lambda arrival: arrival[1]))
    assert out == [number for number, _ in sent]
    assert (order.duplicates, order.late, order.lost) == (len(doubles), 0, 0)


@given(starts, st.permutations(range(60)), st.lists(st.integers(0, 59), max_size=30), st.integers(0, WAIT_NS))
def test_any_order_within_the_window_gives_each_packet_once(
    start: int, permutation: list[int], doubles: list[int], step_ns: int
):
    """However late and however mixed: everything once, duplicates none, nothing counted as lost."""
    order: Sequencer[int] = Sequencer()
    numbers = [start + SPACE + k for k in [*permutation, *doubles]]
    out = feed(order, [(number, k * step_ns) for k, number in enumerate(numbers)])
    assert sorted(out) == sorted(start + SPACE + k for k in permutation)
    assert (order.duplicates, order.lost) == (len(doubles), 0)


@given(starts, st.lists(st.booleans(), min_size=2, max_size=200))
def test_what_never_came_is_counted_as_lost(start: int, lost: list[bool]):
    """Between the first and the last packet; the rest comes in order, after the wait."""
    sent = [(start + k, k * FRAME_NS) for k, gone in enumerate(lost) if not gone]
    order: Sequencer[int] = Sequencer()
    assert feed(order, sent) == [number for number, _ in sent]
    expected = sent[-1][0] - sent[0][0] + 1 - len(sent) if sent else 0
    assert (order.lost, order.duplicates) == (expected, 0)


def test_in_order_nothing_waits_but_the_first():
    """The first packet waits for what may have been before it; from then on each passes at once."""
    order: Sequencer[int] = Sequencer()
    assert order.push(7, 0, 7) == []
    assert order.release(WAIT_NS - 1) == []
    assert order.release(WAIT_NS) == [7]
    assert [order.push(number, WAIT_NS, number) for number in (8, 9, 10)] == [[8], [9], [10]]


def test_a_gap_is_waited_for_and_given_up():
    """What is behind a gap waits WAIT_NS; who comes later still is delivered, and counted as late."""
    order: Sequencer[int] = Sequencer()
    feed(order, [(1, 0)])
    assert order.push(3, 10, 3) == []
    assert order.release(10 + WAIT_NS - 1) == []
    assert order.release(10 + WAIT_NS) == [3]
    assert order.push(2, 20 + WAIT_NS, 2) == [2]
    assert (order.late, order.lost) == (1, 0)


def test_no_more_wait_than_there_is_room_for():
    """A burst behind a gap is let through when the buffer is full, oldest first."""
    order: Sequencer[int] = Sequencer()
    feed(order, [(0, 0)])
    out = [item for number in range(2, CAPACITY + 3) for item in order.push(number, 1, number)]
    assert out == list(range(2, CAPACITY + 3))


@settings(max_examples=60)
@given(st.integers(0, SPACE - 1), st.integers(2 * WINDOW, SPACE // 2 - 100), st.integers(1, 60), st.integers(1, 60))
def test_a_sender_that_starts_anew_loses_nothing(start: int, back: int, before: int, after: int):
    """Numbers that fall far behind are another run, not duplicates: every packet comes once, in order."""
    numbers = [*range(start + SPACE, start + SPACE + before)]
    again = [*range(start + SPACE - back, start + SPACE - back + after)]
    order: Sequencer[int] = Sequencer()
    assert feed(order, [(number, k * FRAME_NS) for k, number in enumerate(numbers + again)]) == numbers + again
    assert (order.duplicates, order.lost) == (0, 0)


def test_a_duplicate_is_known_as_long_as_the_window():
    """Each of the last WINDOW numbers, around the wrap, too."""
    order: Sequencer[int] = Sequencer()
    feed(order, [(SPACE - 500 + k, k) for k in range(WINDOW)])
    assert all(order.is_duplicate((SPACE - 500 + k) % SPACE) for k in range(WINDOW))
    assert not order.is_duplicate((SPACE - 500 + WINDOW) % SPACE)
    assert order.duplicates == WINDOW
