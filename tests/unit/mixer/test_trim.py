"""Trimming: speech stays, silence shrinks, and everything moves together."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixer.timeline import PlacedSource
from mixer.trim import KEPT_TICKS, trim, whole

SPAN = range(3_000_000)
STARTS = st.lists(st.integers(0, 2_900_000), min_size=1, max_size=30)


def source(starts: list[int]) -> PlacedSource:
    tick = np.array(sorted(starts), dtype=np.int64)
    count = len(tick)
    return PlacedSource(
        source=None,  # type: ignore[arg-type]  # trimming does not look at it
        record=np.arange(count),
        tick=tick,
        ticks=np.full(count, 960),
        silent=np.zeros(count, dtype=np.bool_),
        lost=np.zeros(count, dtype=np.int64),
        notes=None,
    )


@given(one=STARTS, other=STARTS)
def test_every_packet_stays_and_all_move_together(one: list[int], other: list[int]):
    """The order and the distances inside speech are kept, across people; no silence is longer than what is kept."""
    first, second = source(one), source(other)
    kept = trim([first, second], SPAN)
    moved = [kept.place(part) for part in (first, second)]
    assert [len(part.tick) for part in moved] == [len(one), len(other)]
    before = np.concatenate([first.tick, second.tick])
    after = np.concatenate([part.tick for part in moved])
    order = np.argsort(before, kind="stable")
    gaps, new_gaps = np.diff(before[order]), np.diff(after[order])
    assert (new_gaps >= 0).all()
    assert (new_gaps <= gaps).all()
    close = gaps <= 960 + KEPT_TICKS
    assert (new_gaps[close] == gaps[close]).all()
    assert (new_gaps <= 960 + KEPT_TICKS).all()
    assert kept.ticks >= after.max() + 960 or after.max() + 960 > SPAN.stop


def test_silence_at_the_ends_shrinks_too():
    kept = trim([source([1_000_000])], SPAN)
    assert kept.ticks == 960 + KEPT_TICKS
    assert kept.moved(1_000_000) == KEPT_TICKS // 2


def test_a_note_in_a_silence_goes_to_the_cut():
    """It is heard of between what came before and after it."""
    kept = trim([source([100_000, 2_000_000])], SPAN)
    assert kept.moved(100_000) < kept.moved(1_000_000) < kept.moved(2_000_000)
    assert kept.moved(1_000_000) == kept.moved(1_500_000)


def test_discords_silence_frames_are_silence():
    quiet = msgspec.structs.replace(source([100_000, 1_000_000]), silent=np.array([False, True]))
    assert trim([quiet], SPAN).ticks == 960 + KEPT_TICKS


def test_nobody_speaks():
    """A second of silence is left: a file must have a length."""
    assert trim([], SPAN).ticks == KEPT_TICKS
    assert trim([source([10])], range(1_000_000, 1_010_000)).ticks == 10_000


def test_a_range_keeps_its_own_part():
    assert whole(range(100, 200)).moved(150) == 50
    kept = trim([source([0, 500_000, 2_000_000])], range(400_000, 600_000))
    assert kept.ticks == 960 + KEPT_TICKS
    assert len(kept.place(source([0, 500_000, 2_000_000])).tick) == 1
