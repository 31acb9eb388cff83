"""Files of recordings: links first, a file attached only where it fits; new mixes, clips, and erasing."""

from __future__ import annotations

import asyncio
import io
import math
import re
import time
from typing import Any, Final

import discord
import msgspec
import structlog

from capture.commands.answer import Answer
from capture.commands.buttons import single
from capture.commands.deeds import length_s, page
from capture.commands.desk import Denied, Desk, title
from capture.commands.forms import typed_form, was_typed
from capture.words.catalogue import clock, moment, size
from contracts.artifacts import Artifact, RenderStored
from contracts.clock import TICKS_PER_SECOND
from contracts.commands import LiveSession
from contracts.directory import SessionEntry
from contracts.errors import MalformedError
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import find_entry
from contracts.jetstream.keeping import pin, undelete, withdraw
from contracts.jetstream.objects import find_artifact, read_artifact
from contracts.jetstream.rendering import RenderFailedError, render
from contracts.recipes import Recipe

log = structlog.get_logger()

TELL_EVERY_S: Final = 2.0  # progress; Discord limits edits
PATIENCE_S: Final = 13 * 60.0  # an answer can be edited for a quarter of an hour
MOST_CLIP_S: Final = 15 * 60.0
SETTLE_S: Final = 1.0  # what was just said is in the log by then: a batch waits half a second
CLIP_KBPS: Final = (128, 96, 64, 48, 32)  # the best that fits
ROOM_FOR_REST: Final = 0.9  # of the limit: frames, tags
HOUR_S: Final = 3600
LONGEST_S: Final = 1000 * HOUR_S  # no session is so long
LINKS: Final = 10  # in one answer
CONTAINERS: Final = {"zip", "matroska", "audacity", "reaper"}
DENOISE_DB: Final = -50.0  # what is quieter between words is room


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What file somebody wants, as they typed it."""

    format: str = ""
    tracks: bool = False
    start: str = ""
    stop: str = ""
    gain: str = ""
    mute: str = ""
    denoise: bool = False
    trim: bool = False

    @property
    def anything(self) -> bool:
        """Whether they want more than the page."""
        return bool(self.format or self.tracks or self.start or self.stop)

    def recipe(self, entry: SessionEntry, base: Recipe | None = None) -> Recipe:
        """As a recipe, beginning with a preset's if there is one; Denied if it cannot be one."""
        start_tick, stop_tick = self._range(entry)
        fields = {
            **({} if base is None else msgspec.structs.asdict(base)),
            **({} if base is not None and not self.format else self._kind()),
            **({"gate_db": DENOISE_DB} if self.denoise else {}),
            **({"silence": "trim"} if self.trim else {}),
            **({"mute": [_person(entry, name) for name in _split(entry, self.mute)]} if self.mute else {}),
            **({"gain_db": dict(_gain(entry, text) for text in _split(entry, self.gain))} if self.gain else {}),
            "start_tick": start_tick,
            "stop_tick": stop_tick,
        }
        try:
            return msgspec.convert(fields, Recipe)
        except (MalformedError, msgspec.ValidationError) as error:
            raise Denied("download.failed", reason=str(error)) from error

    def _kind(self) -> dict[str, Any]:
        """Output, container and format, whatever a preset says of them: a project or an archive holds tracks."""
        contained = self.format in CONTAINERS
        return {
            "output": "tracks" if contained or self.tracks else "mix",
            "container": self.format if contained else "files",
            "format": "flac" if contained else self.format or ("flac" if self.tracks else "mp3"),
            "bitrate_kbps": None,
            "vbr_quality": None,
        }

    def _range(self, entry: SessionEntry) -> tuple[int, int | None]:
        length = (entry.duration_ns or 0) / 1e9
        try:
            start_s = length_s(self.start) if self.start else 0.0
            stop_s = length_s(self.stop) if self.stop else math.inf
        except ValueError as error:
            raise Denied("download.range", duration=clock(length)) from error
        if stop_s <= start_s or (length and start_s >= length) or start_s > LONGEST_S or LONGEST_S < stop_s < math.inf:
            raise Denied("download.range", duration=clock(length))
        return round(start_s * TICKS_PER_SECOND), None if stop_s == math.inf else round(stop_s * TICKS_PER_SECOND)


def _split(entry: SessionEntry, text: str) -> list[str]:
    """What stands between commas; a person's name that has some stays whole."""
    with_commas = sorted((name for name in entry.people.values() if "," in name), key=len, reverse=True)
    either = "|".join([*(re.escape(name) + "[^,]*" for name in with_commas), "[^,]+"])
    return [part.strip() for part in re.findall(rf"\s*({either})", text, flags=re.IGNORECASE) if part.strip()]


def _person(entry: SessionEntry, name: str) -> str:
    for user_id, known in entry.people.items():
        if name.casefold() in {known.casefold(), user_id}:
            return user_id
    raise Denied("remix.unknown", name=name, people=", ".join(entry.people.values()) or "-")


def _gain(entry: SessionEntry, text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        gain_db = float(value.replace("dB", ""))
    except ValueError as error:
        raise Denied("remix.bad_gain") from error
    if not name.strip() or not equals or not -60 <= gain_db <= 30:  # noqa: PLR2004  # a recipe's own limits
        raise Denied("remix.bad_gain")
    return _person(entry, name.strip()), gain_db


async def download(desk: Desk, answer: Answer, session: str, wish: Wish) -> None:
    """A link to the page, or to the files that are wanted."""
    if not wish.anything:
        await page(desk, answer, session)
        return
    entry = await desk.session(answer.interaction, session)
    stored = await _made(desk, answer, entry, wish.recipe(entry))
    if stored is not None:
        await answer.say(_links(desk, answer, entry, stored))


async def remix(desk: Desk, answer: Answer, session: str, wish: Wish, preset: str = "") -> None:
    """Another mix; the one that was there stays."""
    entry = await desk.session(answer.interaction, session)
    recipe = wish.recipe(entry, desk.preset(preset))
    stored = await _made(desk, answer, entry, recipe)
    if stored is None:
        return
    if len(stored.artifacts) > 1:  # a preset of tracks
        await answer.say(_links(desk, answer, entry, stored))
        return
    linker = desk.linker(str(answer.interaction.user.id))
    (mix,) = stored.artifacts
    text = answer.words(
        "remix.done",
        name=_name(answer, entry),
        settings=_settings(answer, entry, recipe),
        size=size(mix.bytes),
        expires=moment(linker.expires_unix_s, "R"),
    )
    await answer.say(f"{text}\n<{linker.download(entry.session, mix.name, mix.filename)}>")


def _settings(answer: Answer, entry: SessionEntry, recipe: Recipe) -> str:
    parts = [f"{entry.people.get(user, user)} {gain:+g} dB" for user, gain in recipe.gain_db.items()]
    parts += [f"~~{entry.people.get(user, user)}~~" for user in recipe.mute]
    parts += [answer.words("remix.denoise")] if recipe.gate_db is not None else []
    parts += [answer.words("remix.trim")] if recipe.silence == "trim" else []
    parts += [answer.words("remix.untouched")] if recipe.loudness == "off" else []
    parts += [_format(answer, recipe)] if recipe.output == "tracks" else []
    return ", ".join(parts) or answer.words("remix.plain")


async def _made(desk: Desk, answer: Answer, entry: SessionEntry, recipe: Recipe) -> RenderStored | None:
    """The files, with progress told meanwhile; None if it takes too long for an answer: then the page is named."""
    told_s = time.monotonic()
    name, kind = _name(answer, entry), _format(answer, recipe)
    telling: set[asyncio.Task[bool]] = set()

    def tell(fraction: float) -> None:
        nonlocal told_s
        if time.monotonic() - told_s >= TELL_EVERY_S and fraction < 1:
            told_s = time.monotonic()
            text = answer.words("download.making", name=name, format=kind, percent=int(fraction * 100))
            telling.add(asyncio.create_task(answer.say(text)))

    by = str(answer.interaction.user.id)
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await render(desk.bus, entry.session, recipe, by=by, progress=tell)
    except RenderFailedError as error:
        raise Denied("download.failed", reason=str(error)) from error
    except TimeoutError:
        await answer.say(answer.words("download.slow", url=f"<{desk.linker(by).page(entry.session)}>"))
        return None
    finally:
        await asyncio.gather(*telling)


def _links(desk: Desk, answer: Answer, entry: SessionEntry, stored: RenderStored) -> str:
    linker = desk.linker(str(answer.interaction.user.id))
    files = stored.artifacts
    expires, name = moment(linker.expires_unix_s, "R"), _name(answer, entry)
    kind = _format(answer, files[0].recipe)
    if len(files) == 1:
        head = answer.words("download.file", name=name, format=kind, size=size(files[0].bytes), expires=expires)
    else:
        head = answer.words("download.files", name=name, format=kind, count=len(files), expires=expires)
    lines, room = [head], 1900 - len(head)
    for file in files[:LINKS]:
        line = f"[{file.speaker or file.filename}](<{linker.download(entry.session, file.name, file.filename)}>)"
        if room < len(line) + 1:
            lines[1:] = [f"<{linker.page(entry.session)}>"]
            break
        room -= len(line) + 1
        lines.append(line)
    return "\n".join(lines)


def _format(answer: Answer, recipe: Recipe) -> str:
    if recipe.container != "files":
        return answer.words(f"format.{recipe.container}")
    key = f"format.{recipe.format}"
    return answer.words(key) if recipe.output == "mix" and answer.words.has(key) else recipe.format.upper()


def _name(answer: Answer, entry: SessionEntry) -> str:
    return discord.utils.escape_markdown(title(entry, answer.words))


# --- clips


async def clip(desk: Desk, answer: Answer, last: str, who: discord.Member | None = None, session: str = "") -> None:
    """Post what was just said where it was asked for; if Discord does not take the file, its link for who asked."""
    words, interaction = answer.words, answer.interaction
    person, _ = await desk.who(interaction)
    live = await desk.running(interaction.guild_id, session)
    if not person.may_mark(live.channel_id):
        raise Denied("rights.clip")
    wanted_s = _clip_s(last)
    await asyncio.sleep(SETTLE_S)
    settings = await desk.guilds.settings(interaction.guild_id or 0)
    people = _chosen(_recorded(live), who)
    length_of_it_s = min(wanted_s, live.elapsed_s)
    if not any(each.packets for each in live.speakers if each.user_id in people):
        raise Denied("clip.nobody", length=clock(length_of_it_s))
    limit = interaction.filesize_limit
    recipe = clip_recipe(live, wanted_s, limit_bytes=limit, people=tuple(people))
    try:
        stored = await render(desk.bus, live.session, recipe, by=person.user_id, progress=lambda _: None)
    except RenderFailedError as error:
        log.info("clip_failed", session=live.session, reason=str(error))
        raise Denied("download.failed", reason=str(error)) from error
    (file,) = stored.artifacts
    room = desk.room_words(interaction.guild, settings)
    names = [discord.utils.escape_markdown(name) for name in people.values()]
    public = room("clip.done", length=clock(length_of_it_s), people=room.list_of(names))
    if file.bytes <= limit and await _post(desk.bus, interaction, public, file):
        await answer.say(public)
        return
    linker = desk.linker(person.user_id)
    url = f"<{linker.download(live.session, file.name, file.filename)}>"
    expires = moment(linker.expires_unix_s, "R")
    text = words("clip.link", length=clock(length_of_it_s), people=words.list_of(names), url=url, expires=expires)
    await answer.say(text)


def clip_recipe(live: LiveSession, last_s: float, *, limit_bytes: int, people: tuple[str, ...]) -> Recipe:
    """The last seconds of a running session, at the best bitrate that fits into `limit_bytes`.

    Only of these people: who does not want to be recorded any more is not posted, nor who has left and cannot say so.
    """
    last_s = min(last_s, live.elapsed_s)
    fits = [kbps for kbps in CLIP_KBPS if kbps * 125 * last_s <= limit_bytes * ROOM_FOR_REST]
    return Recipe(
        output="mix",
        format="mp3",
        people=people,
        start_tick=round((live.elapsed_s - last_s) * TICKS_PER_SECOND),
        stop_tick=round(live.elapsed_s * TICKS_PER_SECOND),
        bitrate_kbps=fits[0] if fits else CLIP_KBPS[-1],
    )


def _clip_s(last: str) -> float:
    try:
        wanted_s = length_s(last or "1m")
    except ValueError:
        wanted_s = 0.0
    if not 0 < wanted_s <= MOST_CLIP_S:
        raise Denied("clip.bad_length", most=clock(MOST_CLIP_S))
    return wanted_s


def _recorded(live: LiveSession) -> dict[str, str]:
    """Names of those who are there and are recorded, by user id."""
    withheld = {"opted_out", "not_opted_in"}
    return {each.user_id: each.name for each in live.speakers if each.user_id and each.state not in withheld}


def _chosen(speakers: dict[str, str], who: discord.Member | None) -> dict[str, str]:
    if who is None:
        return speakers
    if (user_id := str(who.id)) not in speakers:
        name = discord.utils.escape_markdown(who.display_name)
        raise Denied("clip.not_recorded", name=name, people=", ".join(speakers.values()) or "-")
    return {user_id: speakers[user_id]}


async def _post(bus: Bus, interaction: discord.Interaction, text: str, file: Artifact) -> bool:
    """Put the file into the channel; whether Discord took it."""
    channel = interaction.channel
    stored = await find_artifact(bus, file.session, file.name)
    if stored is None or not isinstance(channel, discord.abc.Messageable):
        return False
    content = b"".join([chunk async for chunk in read_artifact(bus, stored)])
    try:
        await channel.send(text, file=discord.File(io.BytesIO(content), filename=file.filename))
    except discord.HTTPException as error:
        log.warning("upload_refused", status=error.status, code=error.code)
        return False
    return True


# --- erasing


async def ask_delete(desk: Desk, answer: Answer, session: str) -> None:
    """Ask for the word that erases; who may not is told at once."""
    try:
        entry = await _deletable(desk, answer, session)
    except Denied as denied:
        await answer.say(answer.words(denied.key, **denied.fields))
        return
    await answer.ask(typed_form("delete", entry.session, answer.words))


async def delete(desk: Desk, answer: Answer, session: str, typed: str) -> SessionEntry:
    """Erase a recording, if the word was typed; what it was."""
    if not was_typed("delete", typed, answer.words):
        raise Denied("delete.not_typed")
    entry = await _deletable(desk, answer, session)
    by, grace_h = str(answer.interaction.user.id), desk.settings.grace_hours
    await withdraw(desk.bus, entry.session, by=f"user:{by}", grace_s=grace_h * HOUR_S)
    log.info("session_deleted", session=entry.session, by=by)
    if grace_h > 0:
        grace, view = f"{grace_h:g} h", single(entry.session, "card", "undo", answer.words)
        await answer.say(answer.words("delete.done", name=_name(answer, entry), grace=grace), view=view)
    else:
        await answer.say(answer.words("delete.erased", name=_name(answer, entry)))
    return entry


async def undo(desk: Desk, answer: Answer, session: str) -> None:
    """Bring a deleted recording back, for whoever may delete it."""
    who, settings = await desk.who(answer.interaction)
    entry = await find_entry(desk.bus, session)
    if entry is None or entry.guild_id != settings.guild_id:
        raise Denied("delete.too_late")
    if not who.may_delete(entry):
        raise Denied("rights.delete")
    await undelete(desk.bus, session)
    log.info("session_undeleted", session=session, by=who.user_id)
    desk.revised([session], int(entry.guild_id))
    await answer.say(answer.words("delete.undone", name=_name(answer, entry)))


async def keep(desk: Desk, answer: Answer, session: str) -> None:
    """Keep a recording that is about to go, for whoever may delete it."""
    entry = await desk.deletable(answer.interaction, session)
    await pin(desk.bus, entry.session)
    desk.revised([entry.session], int(entry.guild_id))
    await answer.say(answer.words("going.kept", name=_name(answer, entry)))


async def _deletable(desk: Desk, answer: Answer, session: str) -> SessionEntry:
    entry = await desk.deletable(answer.interaction, session)
    if entry.ended_unix_ns is None:
        raise Denied("delete.running")
    return entry
