"""Serial numbers: unwrapping and wrapping are inverses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.serial import MAX_DROPOUT, MAX_MISORDER, lives, unwrap, wrap

BITS = st.sampled_from([16, 32])


@given(bits=BITS, data=st.data())
def test_unwrap_undoes_wrap_whatever_the_neighbours(bits: int, data: st.DataObject):
    """Any walk in steps of less than half a circle comes back, but for whole circles."""
    half = 1 << (bits - 1)
    steps = data.draw(st.lists(st.integers(-half, half - 1), max_size=50))
    start = data.draw(st.integers(0, 2 * half - 1))
    walk = start + np.concatenate(([0], np.cumsum(np.array(steps, dtype=np.int64)))).astype(np.int64)
    assert np.array_equal(unwrap(wrap(walk, bits), bits), walk)


@given(bits=BITS, values=st.lists(st.integers(0, (1 << 32) - 1), max_size=50))
def test_wrap_undoes_unwrap(bits: int, values: list[int]):
    wrapped = wrap(np.array(values, dtype=np.int64), bits)
    assert np.array_equal(wrap(unwrap(wrapped, bits), bits), wrapped)


def test_a_wrap_is_a_step_of_one():
    assert unwrap(np.array([65534, 65535, 0, 1]), 16).tolist() == [65534, 65535, 65536, 65537]


@pytest.mark.parametrize(
    ("step", "parts"), [(1, 1), (MAX_DROPOUT, 1), (MAX_DROPOUT + 1, 2), (-MAX_MISORDER, 1), (-MAX_MISORDER - 1, 2)]
)
def test_a_step_that_no_network_makes_starts_a_new_life(step: int, parts: int):
    sequence = wrap(np.array([65_500, 65_501, 65_501 + step, 65_502 + step], dtype=np.int64), 16)
    found = lives(sequence)
    assert len(found) == parts
    assert [index for part in found for index in range(part.start, part.stop)] == [0, 1, 2, 3]
