"""File names for people: safe anywhere, and telling."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from contracts.events import SessionStarted
from contracts.recipes import Recipe
from mixer.names import MAX_FILENAME_BYTES, filename, object_name
from mixer.replay import Session, SessionFold

STARTED = SessionStarted(
    id="s",
    session="s",
    at_ns=0,
    unix_ns=1_795_000_000_000_000_000,
    guild_id="1",
    guild_name="",
    channel_id="2",
    channel_name="table",
)
EMPTY = SessionFold().session()


def session(*, name: str = "", people: dict[str, str]) -> Session:
    return msgspec.structs.replace(EMPTY, started=msgspec.structs.replace(STARTED, name=name), people=people)


@given(name=st.text(max_size=300), speaker=st.text(max_size=300))
def test_any_name_is_safe_and_bounded(name: str, speaker: str):
    made = filename(session(name=name, people={"1": speaker}), user_id="1", extension="flac")
    assert not set(made) & set('/\\:*?"<>|\n\r\t\0')
    assert len(made.encode()) <= MAX_FILENAME_BYTES + 20
    assert made.endswith(".flac")
    assert made.isprintable()


def test_namesakes_are_told_apart():
    two = session(people={"1": "Ada", "2": "Ada", "3": "Bob"})
    assert len({filename(two, user_id=user, extension="mp3") for user in two.people}) == 3
    assert filename(two, user_id="3", extension="mp3").endswith(" - Bob.mp3")


def test_without_a_name_the_channel_is_named():
    assert filename(session(people={}), user_id=None, extension="mp3") == "2026-11-18 11-06 table - mix.mp3"


def test_objects_are_named_by_recipe_log_and_engine():
    names = {
        object_name(recipe, log_end=end, engine=engine, user_id=user)
        for recipe in (Recipe(), Recipe(format="flac"))
        for end in (1, 2)
        for engine in ("a", "b")
        for user in (None, "7")
    }
    assert len(names) == 16
    assert all(name.endswith((".mp3", ".flac")) for name in names)
