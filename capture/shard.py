"""One shard: a bot that hears of its servers, the recordings in them, and what people touch."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import aiohttp
import discord
import structlog

from capture.bot import make_bot
from capture.clock import boottime_ns
from capture.control import Control
from capture.errors import LoginError
from capture.front import Front
from capture.home import Home
from contracts.errors import RetoldError, UnavailableError
from contracts.jetstream.connection import Bus
from contracts.jetstream.leases import Lease
from contracts.settings import Settings
from contracts.tasks import end_tasks

log = structlog.get_logger()

TICK_S: Final = 0.025  # gaps wait 80 ms, batches 500 ms


class Shard:
    """Serves the servers of one shard, as long as this process has the shard's lease.

    Parameters
    ----------
    number
        Which of `settings.shards`.
    lease
        Of the shard.

    Attributes
    ----------
    control
        Its recordings.
    """

    def __init__(self, bus: Bus, settings: Settings, home: Home, number: int, lease: Lease) -> None:
        self.number = number
        self.lease = lease
        self._token = settings.discord_token
        self._bot = make_bot(settings, shard=number)
        self.control = Control(bus, self._bot, home, shard=number, shards=settings.shards)
        self._front = Front(bus, self._bot, self.control.guilds, settings)
        self._stop = asyncio.Event()
        self._lost = self._hands_over = False

    @property
    def is_well(self) -> bool:
        """Whether its bot is logged in."""
        return self._bot.is_ready() and not self._bot.is_closed()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost if another capture has it from now on."""
        return self._bot.is_ready() and self.control.is_idle

    def stop(self) -> None:
        """End its recordings, and then itself."""
        self._stop.set()

    def hand_over(self) -> None:
        """Leave its recordings to the next capture, and end."""
        self._hands_over = True
        self._stop.set()

    def abandon(self) -> None:
        """Another capture has it now: end without another word, to the log as to Discord."""
        self._lost = True
        self._stop.set()

    async def run(self) -> None:
        """Serve until it is told to end.

        Raises
        ------
        UnavailableError
            If Discord cannot be reached at the start, or NATS goes away at it.
        LoginError
            If Discord does not accept the token.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                discord_task = tasks.create_task(self._run_bot())
                others = [
                    tasks.create_task(self._tick()),
                    tasks.create_task(self._serve()),
                    tasks.create_task(self._front.run()),
                ]
                try:
                    await self._stop.wait()
                    await self._part()
                finally:
                    await end_tasks(*others)
                    await self._close_bot()  # a cancellation alone may be lost on its way through discord.py
                    await end_tasks(discord_task)
        except* RetoldError as group:
            raise group.exceptions[0] from None
        finally:
            await self._close_bot()

    async def _part(self) -> None:
        if self._lost:
            await self.control.abandon()
        elif self._hands_over:
            await self.control.hand_over()
        else:
            await asyncio.gather(self.control.close(), self._front.end())

    async def _close_bot(self) -> None:
        with contextlib.suppress(discord.DiscordException):
            await self._bot.close()

    async def _run_bot(self) -> None:
        try:
            await self._log_in()
        except Exception as error:
            if not self._stop.is_set():
                raise
            # We closed its connection: no fault, which would cut short what else is ending.
            log.info("login_broken_off", shard=self.number, reason=repr(error))

    async def _log_in(self) -> None:
        try:
            await self._bot.start(self._token)
        except discord.LoginFailure as error:
            raise LoginError from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnavailableError(f"Discord cannot be reached: {error}") from error

    async def _serve(self) -> None:
        """Answer requests, and go on with what an earlier capture left as soon as the bot is logged in."""
        await self.control.serve()
        await self._bot.wait_until_ready()
        log.info("capture_ready", shard=self.number, guilds=len(self._bot.guilds))
        await self.control.resume()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.control.tick(boottime_ns())
