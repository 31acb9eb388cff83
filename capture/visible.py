"""Recording that nobody can miss, beside the panel: the channel's status line, the nickname, a word to who comes later.

Each is tried once per change; what Discord does not allow is logged and done without, and never holds up a recording.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import discord
import structlog

from capture.commands.buttons import SessionButton
from capture.words.catalogue import LANGUAGES, Words, words_in
from contracts.commands import LiveSession
from contracts.guilds import GuildSettings

log = structlog.get_logger()

STATUS_CHARACTERS: Final = 100
NICK_CHARACTERS: Final = 32
GREETING_S: Final = 90.0  # then it is taken away: the panel stands
UNHEARD_S: Final = 60.0  # unmuted for so long without a packet
REMEMBERED_S: Final = 2 * 3600.0  # what is over; a status line is looked for in the hour after it
END_S: Final = 3.0  # Discord may take longer: then the next process takes it back
TROUBLE: Final = (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError)


class Visible:
    """What is shown where, by session. Discord may take its time: what it is asked for is asked beside all else."""

    def __init__(self) -> None:
        self._channels: dict[str, int] = {}  # whose status line says so
        self._nicknames: dict[str, tuple[int, str | None]] = {}  # the server, and what it was there before
        self._guilds: dict[str, discord.Guild] = {}
        self._ending = False
        self._over: dict[str, float] = {}  # since when, time.monotonic
        self._heard: dict[str, dict[str, float]] = {}  # since when somebody is unmuted and was not heard; 0: was
        self._asking: dict[tuple[int, str], asyncio.Task[None]] = {}  # by server and kind: one after the other

    def running(self, guild: discord.Guild, live: LiveSession, settings: GuildSettings, words: Words) -> None:
        """A session runs: its channel's status says so, also after a move."""
        if self._ending:
            return
        self._over.pop(live.session, None)
        self._guilds[live.session] = guild
        channel_id = int(live.channel_id) if settings.status_line else 0
        before = self._channels.get(live.session, 0)
        if before != channel_id:
            self._channels[live.session] = channel_id
            text = words("visible.status", name=live.name).strip(" ·")[:STATUS_CHARACTERS]
            self._status(guild, before, None)
            self._status(guild, channel_id, text)
        if settings.nickname and live.session not in self._nicknames:
            plain = _plain(guild.me)
            self._nicknames[live.session] = guild.id, plain
            nick = words("visible.nickname", name=plain or guild.me.global_name or guild.me.name)[:NICK_CHARACTERS]
            self._ask(guild, "nickname", lambda: guild.me.edit(nick=nick))

    def over(self, guild: discord.Guild, session: str, *, channel_id: int) -> None:
        """A session is over: nothing says any more that it runs, also if an earlier process said so.

        Parameters
        ----------
        channel_id
            Where it was recorded at last; 0 = nobody knows.
        """
        self._heard.pop(session, None)
        self._guilds.pop(session, None)
        if session in self._over:
            return
        now_s = time.monotonic()
        self._over = {each: since_s for each, since_s in self._over.items() if now_s - since_s < REMEMBERED_S}
        self._over[session] = now_s
        shown = self._channels.pop(session, channel_id)
        if shown not in self._channels.values():
            self._status(guild, shown, None)
        ours, left = session in self._nicknames, _plain(guild.me)
        _, plain = self._nicknames.pop(session, (guild.id, left))
        still = any(other == guild.id for other, _ in self._nicknames.values())
        if ours or (left != guild.me.nick and not still):
            self._ask(guild, "nickname", lambda: guild.me.edit(nick=plain))

    async def end(self) -> None:
        """Every recording ends with this process: nothing says any more that they run."""
        self._ending = True
        for session, guild in list(self._guilds.items()):
            self.over(guild, session, channel_id=0)
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=END_S)

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

    def _status(self, guild: discord.Guild, channel_id: int, text: str | None) -> None:
        channel = guild.get_channel(channel_id)
        if isinstance(channel, discord.VoiceChannel):
            self._ask(guild, "status_line", lambda: channel.edit(status=text))

    def _ask(self, guild: discord.Guild, what: str, attempt: Callable[[], Awaitable[Any]]) -> None:
        before = self._asking.get((guild.id, what))

        async def ask() -> None:
            if before is not None:
                await asyncio.wait({before})
            await _try(what, attempt())

        self._asking[guild.id, what] = asyncio.create_task(ask())


def _plain(me: discord.Member) -> str | None:
    """Our nickname when nothing is recorded; None = we have none, but the account's name."""
    plain = plain_nickname(me.nick)
    return None if plain in {me.global_name, me.name} else plain


def plain_nickname(nick: str | None) -> str | None:
    """A nickname without the mark of a recording, in any language: an earlier process may have left it there."""
    for language in LANGUAGES:
        mark = words_in(language)("visible.nickname", name="")
        while nick is not None and nick.startswith(mark.lstrip()):
            nick = nick.removeprefix(mark.lstrip()) or None
    return nick


async def _try(what: str, attempt: Awaitable[Any]) -> None:
    try:
        await attempt
    except TROUBLE as error:
        log.warning("not_shown", what=what, code=getattr(error, "code", 0), error=str(error)[:200])
