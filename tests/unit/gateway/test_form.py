"""The form "make this mix": every choice it offers is a recipe, and whatever else is sent is refused in words."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import MalformedError
from contracts.recipes import Recipe
from gateway.pages.form import CHOICES, read_clock, read_form


@pytest.mark.parametrize("choice", [value for _, choices in CHOICES for value, _ in choices])
def test_every_choice_is_a_recipe(choice: str) -> None:
    """With nothing else chosen it is the whole session."""
    recipe = read_form([("as", choice), ("gain_1", "0"), ("from", ""), ("to", "")])
    assert recipe.extension in choice.replace("audacity", "zip").replace("reaper", "zip")
    assert recipe.mute == ()
    assert recipe.gain_db == {}


def test_what_is_chosen_is_in_the_recipe() -> None:
    """People, gains in decibels, and times as a clock says them."""
    fields = [("mute", "1"), ("mute", "2"), ("gain_3", "-4.5"), ("from", "1:02:03"), ("to", "3724.5"), ("as", "flac")]
    assert read_form(fields) == Recipe(
        format="flac", mute=("1", "2"), gain_db={"3": -4.5}, start_tick=3723 * 48_000, stop_tick=178_776_000
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("as", "exe"),
        ("as", "zip/exe"),
        ("as", "../x"),
        ("gain_1", "loud"),
        ("gain_1", "nan"),
        ("gain_1", "99"),
        ("from", "1:2:3:4"),
        ("from", "-1"),
        ("to", "inf"),
        ("people", "1"),
        ("", ""),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: str) -> None:
    """By name."""
    with pytest.raises(MalformedError):
        read_form([(name, value)])


def test_an_end_before_the_beginning_is_told_in_their_own_words() -> None:
    """Whoever reads it typed minutes and seconds."""
    with pytest.raises(MalformedError, match="the end, 0:10, is not after the beginning, 1:20"):
        read_form([("from", "1:20"), ("to", "10")])


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=8))
def test_any_form_is_a_recipe_or_refused(fields: list[tuple[str, str]]) -> None:
    """Nothing that is sent makes us fail."""
    with contextlib.suppress(MalformedError):
        assert isinstance(read_form(fields), Recipe)


@given(st.integers(0, 9_999_999))
def test_a_clock_is_read_as_it_is_said(seconds: int) -> None:
    """Hours, minutes and seconds, or seconds alone."""
    minutes, rest = divmod(seconds, 60)
    assert read_clock(f"{minutes // 60}:{minutes % 60:02}:{rest:02}") == seconds
    assert read_clock(f"{minutes}:{rest:02}") == seconds
    assert read_clock(str(seconds)) == seconds
