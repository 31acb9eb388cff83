"""What people ask for, each as one function: used by a command, a button or a form alike, and answered in words."""

from __future__ import annotations

import math
import re
from typing import Final

import discord

from capture.commands.answer import Answer
from capture.commands.buttons import page_view
from capture.commands.desk import Denied, Desk, written_title
from capture.commands.forms import was_typed
from capture.words.catalogue import Words, clock, moment, size
from contracts.commands import AddNote, ChooseConsent, ForgetPerson, StartRecording, Stopped, StopRecording
from contracts.directory import SessionEntry
from contracts.errors import UnavailableError
from contracts.guilds import Choice
from contracts.jetstream.asking import add_note, choose_consent, forget_person, start_recording, stop_recording

LISTED: Final = 10
MOST_NOTE: Final = 1000  # characters; as capture takes them
NAMES_SHOWN: Final = 3  # in a row of a list; a message has 2000 characters
NAME_SHOWN: Final = 16
NEEDED: Final = ("view_channel", "connect")
LENGTH: Final = re.compile(r"(?:(\d+)h)?\s*(?:(\d+)m)?\s*(?:(\d+)s?)?")
CLOCK: Final = re.compile(r"(?:(\d+):)?(\d+):(\d{2})")
VOICE = discord.VoiceChannel | discord.StageChannel


async def start(desk: Desk, answer: Answer, channel: VOICE | None, name: str, preset: str = "") -> None:
    """Record a channel, the person's own if none is given; at the end it is mixed by the preset, too."""
    interaction, words = answer.interaction, answer.words
    who, settings = await desk.who(interaction)
    channel = channel or _own_channel(interaction)
    if channel is None:
        raise Denied("start.nobody")
    if all(member.bot for member in channel.members):
        raise Denied("start.empty", channel=channel.mention)
    if not who.may_start(str(channel.id)):
        raise Denied("start.not_yours", channel=channel.mention)
    if str(channel.id) in settings.never:
        raise Denied("start.never", channel=channel.mention)
    allowed = channel.permissions_for(channel.guild.me)
    missing = [words(f"permission.{each}") for each in NEEDED if not getattr(allowed, each)]
    if missing:
        raise Denied("start.missing", channel=channel.mention, permissions=words.list_of(missing))
    request = StartRecording(
        guild_id=str(channel.guild.id),
        channel_id=str(channel.id),
        name=name.strip(),
        requested_by=who.user_id,
        panel_channel_id=settings.panel_channel_id or str(interaction.channel_id),
        mix=desk.preset(preset),
    )
    await start_recording(desk.bus, request)
    desk.changed()
    kept = desk.kept_words(settings, words)
    lines = [words("start.done", channel=channel.name, kept=kept), words(f"consent.{settings.consent}")]
    lines += [words("start.preset", preset=preset)] if preset else []
    await answer.say("\n".join(lines))


def _own_channel(interaction: discord.Interaction) -> VOICE | None:
    user = interaction.user
    voice = user.voice if isinstance(user, discord.Member) else None
    return voice.channel if voice else None


async def stop(desk: Desk, answer: Answer, session: str = "") -> None:
    """End the server's recording."""
    who, _ = await desk.who(answer.interaction)
    live = await desk.running(answer.interaction.guild_id, session)
    if not who.may_stop(live.channel_id, live.started_by):
        raise Denied("rights.stop")
    request = StopRecording(guild_id=live.guild_id, requested_by=who.user_id)
    stopped = await stop_recording(desk.bus, request)
    desk.changed()
    await answer.say(stop_words(answer, stopped))


def stop_words(answer: Answer, stopped: Stopped) -> str:
    """What came of it."""
    heard = stopped.recorded + stopped.undecryptable + stopped.lost
    key = "stop.lost" if stopped.lost else "stop.done"
    return answer.words(key, duration=clock(stopped.duration_s), lost=stopped.lost, all=heard)


async def note(desk: Desk, answer: Answer, text: str, ago: str = "", session: str = "") -> None:
    """Mark a moment, `ago` before now."""
    who, _ = await desk.who(answer.interaction)
    live = await desk.running(answer.interaction.guild_id, session)
    if not who.may_mark(live.channel_id):
        raise Denied("rights.note")
    if not 0 < len(text.strip()) <= MOST_NOTE:
        raise Denied("note.bad_text", most=MOST_NOTE)
    request = AddNote(
        guild_id=live.guild_id,
        text=text.strip(),
        ago_s=_ago_s(ago),
        author=answer.interaction.user.display_name,
        author_id=who.user_id,
    )
    noted = await add_note(desk.bus, request)
    desk.changed()
    await answer.say(answer.words("note.done", at=clock(noted.at_s), text=discord.utils.escape_markdown(text.strip())))


def _ago_s(ago: str) -> float:
    try:
        return length_s(ago) if ago else 0.0
    except ValueError as error:
        raise Denied("note.bad_ago") from error


async def status(desk: Desk, answer: Answer) -> None:
    """How it goes."""
    words = answer.words
    live = await desk.live(answer.interaction.guild_id)
    if live is None:
        await answer.say(words("status.idle"))
        return
    elapsed, saved = clock(live.elapsed_s), clock(live.saved_up_to_s)
    channel = f"<#{live.channel_id}>"
    lines = [words("status.live", channel=channel, elapsed=elapsed, saved=saved, size=size(live.bytes))]
    behind_s = live.elapsed_s - live.saved_up_to_s
    if behind_s >= 2:  # noqa: PLR2004  # seconds: a batch and its acknowledgement take less
        lines.append(words("status.behind", seconds=round(behind_s)))
    lines.append(words("status.health", **{name: live.packets.get(name, 0) for name in HEALTH}))
    age_s = live.last_packet_age_s
    lines.append(words("status.silent") if age_s is None else words("status.last", seconds=f"{age_s:.1f}"))
    encrypted = words("status.encrypted", version=live.dave_version, code=live.privacy_code)
    lines.append(encrypted if live.dave_version else words("status.plain"))
    await answer.say("\n".join(lines))


HEALTH: Final = ("recorded", "undecryptable", "lost")


async def list_sessions(desk: Desk, answer: Answer, page: int = 0) -> None:
    """A page of the recordings that the person may open; pages count from 0, and the last stands for any beyond it."""
    words = answer.words
    entries = await desk.sessions(answer.interaction)
    if not entries:
        raise Denied("list.none")
    pages = math.ceil(len(entries) / LISTED)
    page = min(page, pages - 1)
    lines = [words("list.title"), *(row(each, words) for each in entries[page * LISTED : (page + 1) * LISTED])]
    if pages > 1:
        lines.append(words("list.page", page=page + 1, pages=pages))
    await answer.say("\n".join(lines), view=page_view(page, pages, words))


def row(entry: SessionEntry, words: Words) -> str:
    """A recording in one line: its name, when and how long it was, and who was there."""
    when, people = moment(entry.started_unix_ns / 1e9), _some_people(words, entry)
    name = written_title(entry, words)
    if entry.duration_ns is None:
        return words("list.live", name=name, when=when, people=people)
    return words("list.row", name=name, when=when, duration=clock(entry.duration_ns / 1e9), people=people)


def _some_people(words: Words, entry: SessionEntry) -> str:
    """Who was there, so that ten rows fit into a message."""
    names = [discord.utils.escape_markdown(name[:NAME_SHOWN]) for name in entry.people.values()]
    left = len(names) - NAMES_SHOWN
    return words.list_of(names) if left <= 0 else words("list.more", people=", ".join(names[:NAMES_SHOWN]), count=left)


async def page(desk: Desk, answer: Answer, session: str) -> None:
    """A link to a recording's page, for this person."""
    entry = await desk.session(answer.interaction, session)
    linker = desk.linker(str(answer.interaction.user.id))
    name = written_title(entry, answer.words)
    text = answer.words("download.page", name=name, expires=moment(linker.expires_unix_s, "R"))
    await answer.say(f"{text}\n<{linker.page(entry.session)}>")


async def choose(desk: Desk, answer: Answer, choice: Choice) -> None:
    """The person is recorded from now on, or is not."""
    words, interaction = answer.words, answer.interaction
    desk.guilds.hold(interaction.guild_id or 0, str(interaction.user.id), choice)  # at once, whatever the bus does
    request = ChooseConsent(guild_id=str(interaction.guild_id), user_id=str(interaction.user.id), choice=choice)
    try:
        chosen = await choose_consent(desk.bus, request)
    except UnavailableError:
        await answer.say(words(f"consent.{choice}") + "\n" + words("consent.unsaved"))
        return
    desk.changed()
    lines = [words(f"consent.{choice}")]
    if choice == "out" and chosen.live_session:
        lines.append(words("consent.out_live"))
    if choice == "out" and chosen.earlier:
        lines.append(words("consent.earlier", count=chosen.earlier))
    await answer.say("\n".join(lines))


async def forget(desk: Desk, answer: Answer, typed: str) -> None:
    """Take the person out of every past recording of the server, if the word was typed."""
    words, interaction = answer.words, answer.interaction
    if not was_typed("forget", typed, words):
        raise Denied("forget.not_typed")
    request = ForgetPerson(guild_id=str(interaction.guild_id), user_id=str(interaction.user.id))
    forgotten = await forget_person(desk.bus, request)
    desk.revised(forgotten.sessions, interaction.guild_id or 0)
    lines = [words("forget.later")] if forgotten.later else []
    if forgotten.sessions:
        lines.insert(0, words("forget.done", sessions=len(forgotten.sessions), packets=forgotten.packets))
    await answer.say("\n".join(lines) or words("forget.nothing"))


def length_s(text: str) -> float:
    """Seconds in `90`, `90s`, `2m`, `1h 2m`, `1:30`; ValueError if it is none."""
    text = text.strip().lower()
    if found := CLOCK.fullmatch(text):
        hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return hours * 3600.0 + minutes * 60.0 + seconds
    found = LENGTH.fullmatch(text)
    if not text or found is None:
        raise ValueError(text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600.0 + minutes * 60.0 + seconds
