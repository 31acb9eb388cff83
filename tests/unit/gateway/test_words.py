"""How numbers are said."""

from __future__ import annotations

import pytest

from contracts.recipes import Recipe
from gateway.pages.words import say_bytes, say_duration_iso, say_moment, say_moment_iso, say_recipe, say_seconds


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (99_949, "99.9 kB"),
        (99_951, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (3_400_000, "3.4 MB"),
        (7_000_000_000_000_000, "7000 TB"),
    ],
)
def test_bytes_are_said_in_decimal_units(size: int, said: str) -> None:
    """Never `1000 kB`, never `100.0`."""
    assert say_bytes(size) == said


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (59.99, "0:59"), (61, "1:01"), (3600 * 10 + 5, "10:00:05")])
def test_durations_are_said_like_a_clock(seconds: float, said: str) -> None:
    """Hours only if there are any."""
    assert say_seconds(seconds) == said
    assert say_duration_iso(seconds) == f"PT{int(seconds)}S"


def test_moments_are_said_in_utc() -> None:
    """For people and for machines."""
    assert say_moment(0) == "1 January 1970, 00:00 UTC"
    assert say_moment_iso(0) == "1970-01-01T00:00:00+00:00"


def test_a_recipe_is_said_by_what_is_special_in_it() -> None:
    """Nothing for a plain one."""
    people = {"1": "Alice", "2": "Bob"}
    assert not say_recipe(Recipe(), people)
    special = Recipe(people=("1", "2"), mute=("3",), gain_db={"1": -3.0}, start_tick=480_000, bitrate_kbps=96)
    assert say_recipe(special, people) == "only Alice and Bob, without 3, Alice -3 dB, 0:10 to the end, 96 kbit/s"
