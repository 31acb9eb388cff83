"""The panel: one message that shows a session while it runs, and its card afterwards. What it says, and no more.

`live_view` and `card_view` make the message of what is known; `fingerprint` tells whether a new one would say anything
else, so that nothing is edited for nothing. Times are Discord's own, which each reader's client keeps moving.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import discord
from discord import ui

from capture.commands.buttons import row
from capture.words.catalogue import Words, clock, moment, size
from contracts.commands import LiveSession, LiveSpeaker
from contracts.directory import SessionEntry
from contracts.guilds import GuildSettings

SHOWN: Final = 25  # people by name; more are counted
TEXT_CHARACTERS: Final = 120  # of a note
NAME_CHARACTERS: Final = 60
SAVED_STEP_S: Final = 60  # "saved up to" alone is news once a minute
SILENT_S: Final = 300.0
RED: Final = 0xD9363E
GREY: Final = 0x6B7078
GREEN: Final = 0x2E8B57

Files = Literal["making", "ready", "failed", "deleted"]


class Message(ui.LayoutView):
    """A message of components: text in a box with a colour, and rows of buttons."""

    def __init__(self, parts: list[str], rows: list[ui.ActionRow[Any]], *, colour: int) -> None:
        super().__init__(timeout=None)
        box: ui.Container[Any] = ui.Container(accent_colour=discord.Colour(colour))
        for part in parts:
            box.add_item(ui.TextDisplay(part))
        self.add_item(box)
        for line in rows:
            self.add_item(line)
        self.stop()  # its buttons are known by their ids: nothing of it is to be remembered


def live_view(live: LiveSession, settings: GuildSettings, words: Words, *, unheard: tuple[str, ...] = ()) -> Message:
    """The panel of a running session."""
    since = moment(live.started_unix_ns / 1e9, "R")
    head = "### " + words("panel.live", name=_plain(live.name))
    about = words("panel.since", channel=f"<#{live.channel_id}>", since=since)
    saved = words("panel.saved", saved=clock(live.saved_up_to_s), size=size(live.bytes))
    parts = [f"{head}\n{about}", _people(live, words), "\n".join([saved, *_remarks(live, words, unheard)])]
    parts.append("-# " + words(f"consent.{settings.consent}"))
    rows = [row(live.session, "panel", ("stop", "note", "clip", "link"), words)]
    if settings.consent == "opt-out":
        rows.append(row(live.session, "panel", ("refuse",), words))
    if settings.consent == "opt-in":
        rows.append(row(live.session, "panel", ("allow", "refuse"), words))
    return Message(parts, rows, colour=RED)


def fingerprint(live: LiveSession, settings: GuildSettings, unheard: tuple[str, ...]) -> tuple[object, ...]:
    """What makes a panel different from the one before."""
    behind = live.elapsed_s - live.saved_up_to_s >= SAVED_STEP_S
    return (
        live.name,
        live.channel_id,
        tuple((each.user_id, each.name, each.state) for each in live.speakers),
        int(live.saved_up_to_s // SAVED_STEP_S),
        behind,
        live.notes,
        live.last_note,
        live.privacy_code,
        live.dave_version,
        live.deafened,
        _silent_minutes(live),
        settings.consent,
        settings.language,
        unheard,
    )


def card_view(entry: SessionEntry, words: Words, files: Files) -> Message:
    """The card of a session that is over."""
    if files == "deleted":
        return Message(["-# " + words("card.deleted")], [], colour=GREY)
    name = _plain(entry.name) or words("word.unnamed", channel=_plain(entry.channel_name))
    duration = clock((entry.duration_ns or 0) / 1e9)
    when = moment(entry.started_unix_ns / 1e9)
    about = words("card.about", when=when, duration=duration, channel=f"<#{entry.channel_id}>")
    people = words.list_of(_plain(each) for each in list(entry.people.values())[:SHOWN])
    lines = [words("card.people", people=people) if entry.people else words("card.nobody")]
    if entry.notes:
        lines.append(words("card.notes", count=len(entry.notes)))
    if entry.cause != "stopped":
        lines.append(words("card.why", cause=cause_words(entry.cause, words)))
    keeping = entry.keeping
    if keeping.pinned:
        lines.append(words("card.pinned"))
    elif keeping.going_unix_ns is not None:
        lines.append(words("card.going", when=moment(keeping.going_unix_ns / 1e9, "R")))
    parts = [f"### {words('card.title', name=name)}\n{about}", "\n".join(lines), words(f"card.{files}")]
    buttons = row(entry.session, "card", ("listen", "download", "remix", "delete"), words)
    return Message(parts, [buttons], colour=GREEN if files == "ready" else GREY)


def cause_words(cause: str, words: Words) -> str:
    """Why a session ended."""
    key = f"cause.{cause}"
    return words(key) if words.has(key) else words("cause.other", cause=cause.replace("_", " "))


def _people(live: LiveSession, words: Words) -> str:
    if not live.speakers:
        return words("panel.nobody")
    named = sorted(live.speakers, key=lambda each: (each.user_id is None, each.name.casefold()))
    lines = [words("panel.people"), *(_person(each, words) for each in named[:SHOWN])]
    if len(named) > SHOWN:
        lines.append(words("panel.others", count=len(named) - SHOWN))
    return "\n".join(lines)


def _person(speaker: LiveSpeaker, words: Words) -> str:
    return words(f"panel.{speaker.state}", name=_plain(speaker.name) or words("panel.unknown"))


def _remarks(live: LiveSession, words: Words, unheard: tuple[str, ...]) -> Iterator[str]:
    if live.notes:
        note = live.last_note if len(live.last_note) <= TEXT_CHARACTERS else live.last_note[:TEXT_CHARACTERS] + "…"
        yield words("panel.notes", count=live.notes, text=_plain(note) or "…")
    yield words("panel.encrypted", code=live.privacy_code or "…") if live.dave_version else words("panel.plain")
    if live.deafened:
        yield words("panel.deafened")
    if unheard:
        yield words("panel.unheard", people=words.list_of(_plain(each) for each in unheard))
    if minutes := _silent_minutes(live):
        yield words("panel.silent", minutes=minutes)


def _silent_minutes(live: LiveSession) -> int:
    """Minutes without any audio, if that is long enough to say so."""
    silent_s = live.elapsed_s if live.last_packet_age_s is None else live.last_packet_age_s
    return int(silent_s // 60) if silent_s >= SILENT_S else 0


def _plain(text: str) -> str:
    """A person's or a guild's own words, without anything that Discord would take for markup or a mention."""
    return discord.utils.escape_markdown(discord.utils.escape_mentions(text))
