"""Clips: what was just said, posted where it was asked for; a link for who asked, if the file does not fit."""

from __future__ import annotations

import asyncio
import io
from typing import Final

import discord
import structlog

from capture.commands.answer import Answer
from capture.commands.deeds import length_s
from capture.commands.desk import Denied, Desk
from capture.words.catalogue import clock, moment
from contracts.artifacts import Artifact
from contracts.clock import TICKS_PER_SECOND
from contracts.commands import LiveSession
from contracts.jetstream.connection import Bus
from contracts.jetstream.objects import find_artifact, read_artifact
from contracts.jetstream.rendering import RenderFailedError, render
from contracts.recipes import Recipe

log = structlog.get_logger()

MOST_CLIP_S: Final = 15 * 60.0
SETTLE_S: Final = 1.0  # what was just said is in the log by then: a batch waits half a second
CLIP_KBPS: Final = (128, 96, 64, 48, 32)  # the best that fits
ROOM_FOR_REST: Final = 0.9  # of the limit: frames, tags


async def clip(desk: Desk, answer: Answer, last: str, who: discord.Member | None = None, session: str = "") -> None:
    """Post what was just said where it was asked for; if Discord does not take the file, its link for who asked."""
    words, interaction = answer.words, answer.interaction
    person, _ = await desk.who(interaction)
    live = await desk.running(interaction.guild_id, session)
    if not person.may_mark(live.channel_id):
        raise Denied("rights.clip")
    wanted_s = _length_s(last)
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


def _length_s(last: str) -> float:
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
