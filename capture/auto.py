"""Recording without being asked: by a server's rules, and ending where nobody is left or the limit is reached.

Looked at whenever somebody comes or goes, and every few seconds. What a person stopped is not started again before the
channel has been left by all; what a rule never allows is not started at all.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

import discord
import structlog

from capture.guilds import Guilds
from contracts.commands import LiveSession, RefusedError, StartRecording, StopRecording
from contracts.errors import RetoldError
from contracts.guilds import GuildSettings
from contracts.jetstream.asking import ask_status, start_recording, stop_recording
from contracts.jetstream.connection import Bus
from contracts.jetstream.guilds import list_guilds

log = structlog.get_logger()

LOOK_EVERY_S: Final = 2.0
SETTLE_S: Final = 1.0  # people come in pairs, and pass through
RETRY_S: Final = 60.0  # after a start was refused
HOUR_S: Final = 3600.0
Cause: TypeAlias = Literal["alone", "limit"]
VOICE = discord.VoiceChannel | discord.StageChannel


class AutoRecord:
    """Starts and stops by rule."""

    def __init__(self, bus: Bus, bot: discord.Client, guilds: Guilds) -> None:
        self._bus = bus
        self._bot = bot
        self._guilds = guilds
        self._moved = asyncio.Event()
        self._left_alone: set[int] = set()  # channels that were recorded, and whose people have not all left since
        self._not_before_s: dict[int, float] = {}
        self._alone_since_s: dict[str, float] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._ended: set[str] = set()

    def moved(self) -> None:
        """Somebody came or went."""
        self._moved.set()

    async def run(self) -> None:
        """Look until cancelled."""
        known = False
        while True:
            try:
                known = known or await self._learn()
                await self._look()
            except RetoldError as error:
                log.info("auto_record_waits", reason=str(error))
            self._moved.clear()
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._moved.wait()
                await asyncio.sleep(SETTLE_S)
            except TimeoutError:
                continue

    async def _learn(self) -> bool:
        """Follow the settings of every server that has rules."""
        for settings in await list_guilds(self._bus):
            if settings.auto:
                await self._guilds.settings(int(settings.guild_id))
        return True

    async def _look(self) -> None:
        live = {
            int(each.guild_id): each for each in (await ask_status(self._bus, shard=self._bot.shard_id or 0)).sessions
        }
        for session in live.values():
            self._judge_end(session)
        for guild in self._bot.guilds:
            settings = self._guilds.known(guild.id)
            if settings is not None and settings.auto and guild.id not in live:
                await self._judge_start(guild, settings)
        for guild_id, session in live.items():
            place = self._bot.get_guild(guild_id)
            if place is not None and people_in(place, session.channel_id):
                self._left_alone.add(int(session.channel_id))

    # --- starting

    async def _judge_start(self, guild: discord.Guild, settings: GuildSettings) -> None:
        for rule in settings.auto:
            channel_id = int(rule.channel_id)
            if not people_in(guild, rule.channel_id):
                self._left_alone.discard(channel_id)
        channel = wanted_channel(guild, settings, hour=datetime.now(tz=UTC).hour)
        if channel is None or channel.id in self._left_alone:
            return
        if time.monotonic() < self._not_before_s.get(guild.id, 0.0):
            return
        request = StartRecording(
            guild_id=str(guild.id), channel_id=str(channel.id), panel_channel_id=settings.panel_channel_id
        )
        try:
            started = await start_recording(self._bus, request)
        except RefusedError as error:
            self._not_before_s[guild.id] = time.monotonic() + RETRY_S
            log.warning("auto_record_refused", guild=str(guild.id), code=error.refused.code)
        else:
            log.info("auto_record_started", session=started.session)

    # --- ending

    def _judge_end(self, session: LiveSession) -> None:
        guild = self._bot.get_guild(int(session.guild_id))
        settings = self._guilds.known(int(session.guild_id))
        if guild is None or settings is None or session.session in self._ended:
            return
        now_s = time.monotonic()
        alone_s = 0.0
        if people_in(guild, session.channel_id):
            self._alone_since_s.pop(session.session, None)
        else:
            alone_s = now_s - self._alone_since_s.setdefault(session.session, now_s)
        if settings.stop_alone_s and alone_s >= settings.stop_alone_s:
            self._end(session, "alone")
        elif session.elapsed_s >= settings.most_hours * HOUR_S:
            self._end(session, "limit")

    def _end(self, session: LiveSession, cause: Cause) -> None:
        self._ended.add(session.session)
        self._alone_since_s.pop(session.session, None)
        task = asyncio.create_task(self._stop(session, cause))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _stop(self, session: LiveSession, cause: Cause) -> None:
        try:
            await stop_recording(self._bus, StopRecording(guild_id=session.guild_id, cause=cause))
            log.info("auto_stopped", session=session.session, cause=cause)
        except RetoldError as error:  # refused: somebody was faster; no server: tried again
            self._ended.discard(session.session)
            log.info("auto_stop_put_off", session=session.session, reason=str(error))


def wanted_channel(guild: discord.Guild, settings: GuildSettings, *, hour: int) -> VOICE | None:
    """The first channel whose rule is fulfilled now; `hour` of the day, UTC."""
    for rule in settings.auto:
        channel = guild.get_channel(int(rule.channel_id))
        if rule.channel_id in settings.never or not rule.at(hour) or not isinstance(channel, VOICE):
            continue
        people = people_in(guild, rule.channel_id)
        roles = {str(role.id) for member in people for role in member.roles}
        if len(people) >= rule.minimum and (rule.role_id is None or rule.role_id in roles):
            return channel
    return None


def people_in(guild: discord.Guild, channel_id: str) -> list[discord.Member]:
    """Who is in a voice channel, bots not counted."""
    channel = guild.get_channel(int(channel_id))
    return [member for member in channel.members if not member.bot] if isinstance(channel, VOICE) else []
