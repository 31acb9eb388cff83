"""Telling a call that it is recorded: the notice when it begins, and a tone now and then where a server wants one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from capture.call import VoiceChannel
from capture.guilds import Guilds
from capture.recording import Recording
from capture.words.catalogue import words_in
from contracts.guilds import GuildSettings

log = structlog.get_logger()

MINUTE_S: Final = 60.0


def speaks_in(channel: VoiceChannel, settings: GuildSettings) -> bool:
    """Whether the recorder says anything in this channel: it may, and it is to."""
    return bool(settings.spoken_notice or settings.tone_minutes) and channel.permissions_for(channel.guild.me).speak


class Telling:
    """Tells every call, beside everything else: nobody waits for a sentence to be over."""

    def __init__(self, guilds: Guilds) -> None:
        self._guilds = guilds
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, recording: Recording, settings: GuildSettings) -> None:
        """Tell this one until it ends."""
        task = asyncio.create_task(self._tell(recording, settings))
        self._tasks.add(task)
        task.add_done_callback(self._told)

    async def _tell(self, recording: Recording, settings: GuildSettings) -> None:
        guild = recording.channel.guild
        if settings.spoken_notice and recording.is_new:
            await recording.announce(words_in(settings.language or str(guild.preferred_locale)).language)
        while settings.tone_minutes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.tone_minutes * MINUTE_S):
                    await recording.ended.wait()
            if recording.ended.is_set():
                return
            await recording.sound_tone()
            settings = await self._guilds.settings(guild.id)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("not_told", error=repr(error)[:200])
