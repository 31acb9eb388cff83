"""What somebody typed becomes a recipe, or is refused with a sentence."""

from __future__ import annotations

import msgspec
import pytest

from capture.commands.deeds import LISTED, NAMES_SHOWN, _some_people
from capture.commands.desk import NAME_CHARACTERS, Denied, meant
from capture.commands.downloads import Wish
from capture.words.catalogue import LANGUAGES, words_in
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


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_page_of_a_list_fits_into_a_message(language: str):
    """Ten long names, fifteen people in each: more than three are counted."""
    words = words_in(language)
    people = {str(number): f"Somebody with a long name {number:02}" for number in range(15)}
    known = _some_people(words, SessionEntry(**{**msgspec.structs.asdict(entry()), "people": people}))
    assert known.count("Somebody") == NAMES_SHOWN
    assert "12" in known
    row = words("list.row", name="n" * NAME_CHARACTERS, when="<t:1790000000:R>", duration="10:00:00", people=known)
    whole = [words("list.title"), *[row] * LISTED, words("list.page", page=10, pages=10)]
    assert len("\n".join(whole)) <= 2000
    assert "\\*" in _some_people(words, SessionEntry(**{**msgspec.structs.asdict(entry()), "people": {"1": "*"}}))


def test_an_id_means_one_and_a_name_means_those_that_have_it():
    """In this order: id, whole name, a part of name, channel or people; nothing typed means all, the newest first."""
    entries = [entry("s3", "s1"), entry("s2", "Evening 2"), entry("s1", "Evening")]
    assert [each.session for each in meant(entries, "s1")] == ["s1"]
    assert [each.session for each in meant(entries, "evening")] == ["s1"]
    assert [each.session for each in meant(entries, "even")] == ["s2", "s1"]
    assert [each.session for each in meant(entries, "Ada")] == ["s3", "s2", "s1"]
    assert [each.session for each in meant(entries, "")] == ["s3", "s2", "s1"]
    assert meant(entries, "morning") == []
