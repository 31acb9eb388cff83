"""What somebody typed becomes a recipe, or is refused with a sentence."""

from __future__ import annotations

import pytest

from capture.commands.desk import Denied, meant
from capture.commands.downloads import Wish
from contracts.directory import SessionEntry

PEOPLE = {"501": "Ada", "502": "Dee, the Bard", "503": "Dee", "504": "Émile (he, him), bass"}


def entry(session: str = "s1", name: str = "") -> SessionEntry:
    return SessionEntry(
        session=session,
        guild_id="1",
        guild_name="G",
        channel_id="2",
        channel_name="Tavern",
        started_unix_ns=1,
        name=name,
        people=PEOPLE,
    )


@pytest.mark.parametrize(
    ("typed", "muted"),
    [
        ("Dee, the Bard", {"502"}),
        ("dee, THE bard , Ada", {"502", "501"}),
        ("Ada,Dee", {"501", "503"}),
        ("Émile (he, him), bass, Dee", {"504", "503"}),
        (" , Ada ,, ", {"501"}),
    ],
)
def test_a_name_may_have_commas(typed: str, muted: set[str]):
    """Known names stay whole; all else stands between commas."""
    assert set(Wish(mute=typed).recipe(entry()).mute) == muted


def test_a_gain_may_follow_such_a_name():
    """Each with its own value."""
    assert Wish(gain="Dee, the Bard=+3, Dee=-2.5dB").recipe(entry()).gain_db == {"502": 3.0, "503": -2.5}


@pytest.mark.parametrize(
    ("wish", "key"),
    [
        (Wish(mute="Dee, the Smith"), "remix.unknown"),
        (Wish(gain="=3"), "remix.bad_gain"),
        (Wish(gain="Ada=loud"), "remix.bad_gain"),
        (Wish(gain="Ada=99"), "remix.bad_gain"),
        (Wish(start="2:00", stop="1:00"), "download.range"),
        (Wish(stop="99999999999999999999"), "download.range"),
    ],
)
def test_what_cannot_be_made_is_refused_by_its_own_sentence(wish: Wish, key: str):
    """Not by Python's."""
    with pytest.raises(Denied) as denied:
        wish.recipe(entry())
    assert denied.value.key == key


def test_an_id_means_one_and_a_name_means_those_that_have_it():
    """In this order: id, whole name, a part of name, channel or people; nothing typed means all, the newest first."""
    entries = [entry("s3", "s1"), entry("s2", "Evening 2"), entry("s1", "Evening")]
    assert [each.session for each in meant(entries, "s1")] == ["s1"]
    assert [each.session for each in meant(entries, "evening")] == ["s1"]
    assert [each.session for each in meant(entries, "even")] == ["s2", "s1"]
    assert [each.session for each in meant(entries, "Ada")] == ["s3", "s2", "s1"]
    assert [each.session for each in meant(entries, "")] == ["s3", "s2", "s1"]
    assert meant(entries, "morning") == []
