"""The Discord bot: discord.py's client, pointed by the settings at Discord or at a loopback of it."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any, Final

import aiohttp
import discord
import discord.http
import yarl
from discord.gateway import DiscordWebSocket
from discord.state import ConnectionState

from contracts.errors import SettingsError
from contracts.settings import Settings

IDENTIFY_EVERY_S: Final = 5.0  # one identification in so many seconds (Discord, Gateway: Rate Limiting)
INVALID_SESSION_S: Final = 1.0  # after op 9, "a random amount of time between 1 and 5 seconds"
GUILD_READY_S: Final = 0.3  # ready so long after the last guild came; those that come later are waited for by name


class BotState(ConnectionState["Bot"]):
    """discord.py's state, which does not forget its voice clients when the main gateway begins a new session."""

    _voice_clients: dict[int, discord.VoiceProtocol]

    def clear(self, *, views: bool = True) -> None:
        """Forget all but the calls."""
        calls = getattr(self, "_voice_clients", {})  # none at the first time: this is called while it is made
        super().clear(views=views)
        self._voice_clients.update(calls)


class Bot(discord.Client):
    """discord.py's client, which identifies anew as soon as Discord allows it: calls wait for it."""

    _identified_s = float("-inf")

    def _get_state(self, **options: Any) -> BotState:
        return BotState(dispatch=self.dispatch, handlers=self._handlers, hooks=self._hooks, http=self.http, **options)

    async def before_identify_hook(self, shard_id: int | None, *, initial: bool = False) -> None:  # noqa: ARG002
        """Wait until the next identification may be sent."""
        wait_s = self._identified_s + IDENTIFY_EVERY_S - time.monotonic()
        if not initial:
            await asyncio.sleep(max(wait_s, INVALID_SESSION_S))
        self._identified_s = time.monotonic()


def make_bot(settings: Settings, *, shard: int = 0) -> Bot:
    """A client with the intents a recorder needs: guilds and voice states, no message content; for one shard.

    Call it inside the event loop. The addresses of API and gateway are discord.py's process-wide constants.

    Raises
    ------
    SettingsError
        If RETOLD_DISCORD_CA_FILE cannot be read.
    """
    if settings.discord_api_url:
        discord.http.Route.BASE = settings.discord_api_url
    if settings.discord_gateway_url:
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(settings.discord_gateway_url)
    connector = aiohttp.TCPConnector(limit=0, ssl=_trust(settings.discord_ca_file))
    intents = discord.Intents(guilds=True, voice_states=True)
    return Bot(
        intents=intents,
        shard_id=shard if settings.shards > 1 else None,
        shard_count=settings.shards if settings.shards > 1 else None,
        connector=connector,
        max_messages=None,
        guild_ready_timeout=GUILD_READY_S,
        chunk_guilds_at_startup=False,
        allowed_mentions=discord.AllowedMentions.none(),
    )


def _trust(ca_file: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError([f"RETOLD_DISCORD_CA_FILE: {error}"]) from error
    return context
