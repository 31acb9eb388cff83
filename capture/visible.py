"""Recording that nobody can miss, beside the panel: the channel's status line, the nickname, a word to who comes later.

Each is tried once per change; what Discord does not allow is logged and done without, and never holds up a recording.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any, Final

import aiohttp
import discord
import structlog

from capture.commands.buttons import SessionButton
from capture.words.catalogue import Words, words_in
from contracts.commands import LiveSession
from contracts.guilds import GuildSettings

log = structlog.get_logger()

STATUS_CHARACTERS: Final = 100
NICK_CHARACTERS: Final = 32
GREETING_S: Final = 90.0  # then it is taken away: the panel stands
UNHEARD_S: Final = 60.0  # unmuted for so long without a packet
TROUBLE: Final = (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError)


class Visible:
    """What is shown where, by session."""

    def __init__(self) -> None:
        self._channels: dict[str, int] = {}  # whose status line says so
        self._nicknames: dict[str, str | None] = {}  # what it was before
        self._heard: dict[str, dict[str, float]] = {}  # since when somebody is unmuted and was not heard; 0: was

    async def running(self, guild: discord.Guild, live: LiveSession, settings: GuildSettings, words: Words) -> None:
        """A session runs: its channel's status says so, also after a move."""
        channel_id = int(live.channel_id) if settings.status_line else 0
        before = self._channels.get(live.session, 0)
        if before != channel_id:
            self._channels[live.session] = channel_id
            text = words("visible.status", name=live.name).strip(" ·")[:STATUS_CHARACTERS]
            await self._status(guild, before, None)
            await self._status(guild, channel_id, text)
        if settings.nickname and live.session not in self._nicknames:
            me = guild.me
            self._nicknames[live.session] = me.nick
            nick = words("visible.nickname", name=me.display_name)[:NICK_CHARACTERS]
            await _try("nickname", me.edit(nick=nick))

    async def over(self, guild: discord.Guild, session: str) -> None:
        """A session is over: nothing says any more that it runs."""
        self._heard.pop(session, None)
        await self._status(guild, self._channels.pop(session, 0), None)
        if session in self._nicknames:
            await _try("nickname", guild.me.edit(nick=self._nicknames.pop(session)))

    async def greet(
        self, guild: discord.Guild, live: LiveSession, settings: GuildSettings, newcomers: list[str]
    ) -> None:
        """Tell people who came later, in the voice channel's own chat."""
        channel = guild.get_channel(int(live.channel_id))
        people = [guild.get_member(int(user_id)) for user_id in newcomers]
        named = [member for member in people if member is not None and not member.bot]
        if not named or not isinstance(channel, discord.VoiceChannel | discord.StageChannel):
            return
        if not channel.permissions_for(guild.me).send_messages:
            return
        words = words_in(settings.language or str(guild.preferred_locale))
        text = words(f"joined.{settings.consent}", who=words.list_of(member.mention for member in named))
        view = discord.ui.View(timeout=None)
        for action in {"notice": (), "opt-out": ("refuse",), "opt-in": ("allow", "refuse")}[settings.consent]:
            view.add_item(SessionButton(live.session, action, words(f"panel.{action}")))
        view.stop()
        allowed = discord.AllowedMentions(users=named)
        await _try("greeting", channel.send(text, view=view, allowed_mentions=allowed, delete_after=GREETING_S))

    def unheard(self, guild: discord.Guild, live: LiveSession) -> tuple[str, ...]:
        """Names of people who have been unmuted for a minute, and of whom nothing came since they joined."""
        now_s = time.monotonic()
        heard = self._heard.setdefault(live.session, {})
        names = []
        for speaker in live.speakers:
            member = guild.get_member(int(speaker.user_id)) if speaker.user_id else None
            voice = member.voice if member else None
            muted = voice is None or voice.self_mute or voice.mute or voice.suppress
            key = speaker.user_id or ""
            if speaker.state != "quiet":
                heard[key] = 0.0
            elif muted:
                heard.pop(key, None) if heard.get(key) else None
            elif heard.setdefault(key, now_s) and now_s - heard[key] >= UNHEARD_S:
                names.append(speaker.name)
        return tuple(names)

    @staticmethod
    async def _status(guild: discord.Guild, channel_id: int, text: str | None) -> None:
        channel = guild.get_channel(channel_id)
        if isinstance(channel, discord.VoiceChannel):
            await _try("status_line", channel.edit(status=text))


async def _try(what: str, attempt: Awaitable[Any]) -> None:
    try:
        await attempt
    except TROUBLE as error:
        log.warning("not_shown", what=what, code=getattr(error, "code", 0), error=str(error)[:200])
