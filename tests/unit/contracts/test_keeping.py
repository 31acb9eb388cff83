"""Ages are a number and a unit, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import MalformedError
from contracts.keeping import UNITS_S, read_age_s


@given(st.integers(0, 99_999), st.sampled_from(sorted(UNITS_S)))
def test_an_age_is_a_number_of_its_unit(number: int, unit: str):
    """`30d` is thirty days, in seconds."""
    assert read_age_s(f"{number}{unit}") == number * UNITS_S[unit]


def test_an_age_may_have_one_decimal():
    """Half a day is one."""
    assert read_age_s("0.5d") == 43_200


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1m", "1 d", "30d\n", "1e3d", "\u0663d"])
def test_whatever_else_is_refused(text: str):
    """Minutes or months: nobody could tell which was meant."""
    with pytest.raises(MalformedError):
        read_age_s(text)
