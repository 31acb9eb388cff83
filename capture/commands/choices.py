"""What Discord's client offers while somebody types: recordings by name, channel or person; people by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import discord
import structlog
from discord.app_commands import Choice, locale_str

from capture.commands.desk import Desk, matches, title
from capture.words.catalogue import clock, words_in
from contracts.directory import SessionEntry
from contracts.errors import RetoldError
from contracts.presets import PRESETS, preset_names

log = structlog.get_logger()

Find = Callable[[discord.Interaction], Awaitable[list[SessionEntry]]]

MOST: Final = 25  # Discord's limit
CHARACTERS: Final = 100  # of a choice
FORMATS: Final = [
    Choice(name=locale_str("MP3"), value="mp3"),
    Choice(name=locale_str("FLAC"), value="flac"),
    Choice(name=locale_str("Opus"), value="opus"),
    Choice(name=locale_str("WAV"), value="wav"),
    Choice(name=locale_str("AAC"), value="m4a"),
]
PACKAGES: Final = [
    *FORMATS,
    Choice(name=locale_str("ZIP with all tracks"), value="zip"),
    Choice(name=locale_str("Audacity project"), value="audacity"),
    Choice(name=locale_str("Reaper project"), value="reaper"),
    Choice(name=locale_str("Matroska with all tracks"), value="matroska"),
]
GAINS: Final = ("=+3", "=-3")  # decibels: so one sees how to write another
SERVER: Final = "server"
CONSENT: Final = [
    Choice(name=locale_str("everybody, who is told (notice)"), value="notice"),
    Choice(name=locale_str("everybody who does not say no (opt-out)"), value="opt-out"),
    Choice(name=locale_str("only who says yes (opt-in)"), value="opt-in"),
]
LANGUAGES: Final = [
    Choice(name="English", value="en"),
    Choice(name="Deutsch", value="de"),
    Choice(name="server", value=SERVER),
]
ACCESS: Final = [
    Choice(name=locale_str("who was there, and managers"), value="present"),
    Choice(name=locale_str("managers only"), value="managers"),
]


async def recordings(interaction: discord.Interaction, typed: str, find: Find) -> list[Choice[str]]:
    """Recordings of those that `find` finds which the person could mean; nothing if the server is away."""
    words = words_in(str(interaction.locale))
    try:
        entries = await find(interaction)
    except RetoldError as error:
        log.warning("not_completed", reason=str(error))
        return []
    offered = []
    for entry in entries:
        if typed and not matches(entry, typed):
            continue
        date = datetime.fromtimestamp(entry.started_unix_ns / 1e9, tz=UTC).date()
        length = clock((entry.duration_ns or 0) / 1e9)
        text = f"{title(entry, words)} · {date} · {length} · {words.list_of(entry.people.values())}"
        offered.append(Choice(name=_shown(text), value=entry.session))
    return offered[:MOST]


async def presets(desk: Desk, interaction: discord.Interaction, typed: str) -> list[Choice[str]]:
    """Presets, those that come with Retold with what they are for."""
    words = words_in(str(interaction.locale))
    offered = []
    for name in preset_names(desk.settings.data):
        text = f"{name}: " + words(f"preset.{name}") if name in PRESETS else name
        if typed.casefold() in text.casefold():
            offered.append(Choice(name=_shown(text), value=name))
    return offered[:MOST]


def _shown(text: str) -> str:
    """As much of it as Discord shows."""
    return text if len(text) <= CHARACTERS else text[: CHARACTERS - 1] + "…"


async def people(
    desk: Desk, interaction: discord.Interaction, typed: str, *, each_with: tuple[str, ...] = ("",)
) -> list[Choice[str]]:
    """What was typed so far, with each of the recording's people in place of its last word.

    A choice is what is sent, so one that is too long is left out, not cut.

    Parameters
    ----------
    each_with
        What may stand behind a name.
    """
    try:
        entry = await desk.session(interaction, str(getattr(interaction.namespace, "recording", "") or ""))
    except RetoldError as error:
        log.warning("not_completed", reason=str(error))
        return []
    before, comma, last = typed.rpartition(",")
    start = f"{before}{comma} ".lstrip() if comma else ""
    names = [name for name in entry.people.values() if last.strip().lower() in name.lower()]
    offered = [f"{start}{name}{end}" for name in names for end in each_with]
    every = [each for each in (typed, *offered) if 0 < len(each) <= CHARACTERS]
    return [Choice(name=each, value=each) for each in every[:MOST]]
