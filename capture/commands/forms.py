"""Forms (modals): what is asked for in them, and how what was filled in is read.

A form is known by its custom id, `r:<session>:<name>`, and read from the interaction itself: one that was opened before
a restart of the bot is served after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import discord
from discord import ui

from capture.words.catalogue import Words

NOTE_CHARACTERS: Final = 1000
PREFIX: Final = "r:"


class Form(ui.Modal):
    """One form with one field; nothing of it is kept here."""

    def __init__(
        self, name: str, session: str, words: Words, field: ui.TextInput[Any], *, label: str, about: str = ""
    ) -> None:
        super().__init__(title=words(f"{name}.title")[:45], custom_id=f"{PREFIX}{session}:{name}", timeout=1)
        if about:
            self.add_item(ui.TextDisplay(about))
        self.add_item(ui.Label(text=words(label)[:45], component=field))


def note_form(session: str, words: Words) -> Form:
    """Asks what happened."""
    field: ui.TextInput[Any] = ui.TextInput(
        custom_id="text", style=discord.TextStyle.paragraph, max_length=NOTE_CHARACTERS, min_length=1
    )
    return Form("note", session, words, field, label="note.label")


def clip_form(session: str, words: Words, *, most: str) -> Form:
    """Asks how much of what was just said."""
    hint = words("clip.hint", most=most)
    field: ui.TextInput[Any] = ui.TextInput(custom_id="text", default="1m", placeholder=hint, max_length=10)
    return Form("clip", session, words, field, label="clip.label")


def remix_form(session: str, words: Words) -> Form:
    """Asks who is to be louder or softer."""
    field: ui.TextInput[Any] = ui.TextInput(
        custom_id="text", placeholder="Ada=+3, Bela=-6", max_length=200, required=False
    )
    return Form("remix", session, words, field, label="remix.label")


def typed_form(name: str, session: str, words: Words, *, about: str = "") -> Form:
    """A word that has to be typed, so that nobody does it by mistake; `about` says what it is done to."""
    word = words(f"{name}.word")
    field: ui.TextInput[Any] = ui.TextInput(custom_id="text", placeholder=word, max_length=len(word) + 5)
    return Form(name, session, words, field, label=f"{name}.label", about=about)


def was_typed(name: str, text: str, words: Words) -> bool:
    """Whether the word of `typed_form` was typed; capitals and blanks do not matter."""
    return text.strip().casefold() == words(f"{name}.word").casefold()


def read_form(data: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """(name, session, text) of a form of ours that was sent; None if it is none."""
    custom_id = str(data.get("custom_id", ""))
    parts = custom_id.removeprefix(PREFIX).split(":")
    if not custom_id.startswith(PREFIX) or len(parts) != 2:  # noqa: PLR2004  # session and name
        return None
    fields = dict(_fields(data.get("components") or ()))
    return parts[1], parts[0], fields.get("text", "")


def _fields(components: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for component in components:
        if "value" in component:
            yield component["custom_id"], str(component["value"])
        yield from _fields(component.get("components") or ())
        if component.get("component"):
            yield from _fields([component["component"]])
