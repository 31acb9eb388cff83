"""Files of recordings, as links: what is there, what is made of it on demand, new mixes."""

from __future__ import annotations

import asyncio
import math
import re
import time
from typing import Any, Final

import msgspec

from capture.commands.answer import Answer
from capture.commands.deeds import length_s, page
from capture.commands.desk import Denied, Desk, written_title
from capture.words.catalogue import clock, moment, size
from contracts.artifacts import RenderStored
from contracts.clock import TICKS_PER_SECOND
from contracts.directory import SessionEntry
from contracts.errors import MalformedError
from contracts.jetstream.directory import get_entry
from contracts.jetstream.rendering import RenderFailedError, render
from contracts.recipes import Recipe

TELL_EVERY_S: Final = 2.0  # progress; Discord limits edits
PATIENCE_S: Final = 13 * 60.0  # an answer can be edited for a quarter of an hour
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
        name=written_title(entry, answer.words),
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
    name, kind = written_title(entry, answer.words), _format(answer, recipe)
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
            stored = await render(desk.bus, entry.session, recipe, by=by, progress=tell)
    except RenderFailedError as error:
        raise Denied("download.failed", reason=str(error)) from error
    except TimeoutError:
        await answer.say(answer.words("download.slow", url=f"<{desk.linker(by).page(entry.session)}>"))
        return None
    finally:
        await asyncio.gather(*telling)
    if await get_entry(desk.bus, entry.session) is None:  # deleted meanwhile: a link would lead nowhere
        raise Denied("refused.gone")
    return stored


def _links(desk: Desk, answer: Answer, entry: SessionEntry, stored: RenderStored) -> str:
    linker = desk.linker(str(answer.interaction.user.id))
    files = stored.artifacts
    expires, name = moment(linker.expires_unix_s, "R"), written_title(entry, answer.words)
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
