"""Several shards in one capture: each guild is served once, commands too, however slowly Discord lets bots in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import discord
import pytest

from capture.app import run
from capture.bot import Bot
from capture.home import Home
from capture.shard import Shard
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.leases import renewals, take_lease
from contracts.settings import load_settings
from contracts.shards import SNOWFLAKE_TIME_BITS, shard_of
from contracts.streams import LEASE_S
from ops.embedded import EmbeddedServer
from ops.loopback.plan import CallPlan, Person
from ops.loopback.room import RoomSpec
from ops.loopback.server import LoopbackDiscord
from tests.recorder import recorder

GUILDS = [(9_000_000 + number) << SNOWFLAKE_TIME_BITS for number in range(2)]
ADA = Person(user_id=501, name="Ada")
PLAN = CallPlan(people=(ADA,), utterances=(), seconds=1.0)
IDENTIFY_EVERY_S = 2.0


class InLogin(Bot):
    """A bot that is closed between two requests of its login: the next one fails while it is still being closed."""

    def __init__(self) -> None:
        super().__init__(intents=discord.Intents.none())
        self.begun, self.closing, self.closed = asyncio.Event(), asyncio.Event(), False

    async def start(self, token: str, *, reconnect: bool = True) -> None:
        self.begun.set()
        await self.closing.wait()
        raise RuntimeError("Session is closed")

    async def close(self) -> None:
        self.closing.set()
        await asyncio.sleep(0.1)
        self.closed = True


async def test_each_server_is_served_by_its_shard_alone(
    nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both shards get in one after the other; a command is answered once; a request reaches the shard it is for."""
    monkeypatch.setattr("capture.bot.IDENTIFY_EVERY_S", IDENTIFY_EVERY_S)
    first, second = (RoomSpec(plan=PLAN, guild_id=guild, channel_id=guild + 1) for guild in GUILDS)
    discord = LoopbackDiscord(
        plan=PLAN, guild_id=first.guild_id, channel_id=first.channel_id, directory=tmp_path, more_rooms=(second,)
    )
    discord.main.identify_every_s = IDENTIFY_EVERY_S
    async with discord, recorder(discord, nats_url=nats_server.url, data=tmp_path, RETOLD_SHARDS="2") as each:
        assert sorted(session.shard for session in discord.main.sessions) == [(0, 2), (1, 2)]
        for guild in GUILDS:
            (owner,) = [session for session in discord.main.sessions if session.hears_of(guild)]
            assert owner.shard == (shard_of(guild, 2), 2)
            person = discord.person(ADA.user_id, guild_id=guild)
            await (await person.types("/record start", name=str(guild))).reads("Recording")
        live = (await each.status()).sessions
        assert sorted((one.guild_id, one.name) for one in live) == [(str(guild), str(guild)) for guild in GUILDS]
        assert {command["name"] for command in discord.rest.commands[None]} >= {"record"}
        for room in discord.rooms.values():
            await each.stop(room)


async def test_captures_that_divide_the_servers_otherwise_do_not_mix(
    nats_server: EmbeddedServer, tmp_path: Path
) -> None:
    """A capture with another RETOLD_SHARDS takes no shard as long as those before it live; then it takes them all."""
    discord = LoopbackDiscord(plan=PLAN, guild_id=GUILDS[0], channel_id=GUILDS[0] + 1, directory=tmp_path)
    async with discord:
        environ = {**discord.environ, "RETOLD_NATS_URL": nats_server.url, "RETOLD_SHARDS": "2"}
        settings = load_settings({**environ, "RETOLD_DATA": str(tmp_path / "other")})
        stop = asyncio.Event()
        async with recorder(discord, nats_url=nats_server.url, data=tmp_path / "first"):
            other = asyncio.create_task(run(settings, stop=stop))
            bus = await connect(nats_server.url, name="test")
            seen: set[str] = set()

            async def hear(key: str, owner: str) -> None:
                if owner:
                    seen.add(key)

            await renewals(bus, hear)
            async with asyncio.timeout(LEASE_S):
                while not any(key.endswith("-2") for key in seen):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(2.0)
            assert "shard.1" not in seen
        async with asyncio.timeout(3 * LEASE_S):
            while not {"shard.0", "shard.1"} <= seen:
                await asyncio.sleep(0.05)
        stop.set()
        await other
        await bus.close()


async def test_a_shard_that_is_told_to_end_in_its_login_ends_in_order(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a login makes of a connection that we closed is no fault: it would cut short the end of all else."""
    bot, home = InLogin(), Home(tmp_path)
    monkeypatch.setattr("capture.shard.make_bot", lambda *_, **__: bot)
    settings = load_settings({"RETOLD_DISCORD_TOKEN": "x", "RETOLD_DATA": str(tmp_path)})
    shard = Shard(bus, settings, home, 0, await take_lease(bus, "shard.0", home.owner))
    running = asyncio.create_task(shard.run())
    async with asyncio.timeout(LEASE_S):
        await bot.begun.wait()
        shard.stop()
        await running
    assert bot.closed
    home.close()
