"""Settings of guilds on a real server."""

from __future__ import annotations

import asyncio

from contracts.guilds import GuildSettings
from contracts.jetstream.connection import Bus
from contracts.jetstream.guilds import change_guild, get_guild, watch_guilds
from contracts.jetstream.pull import read_stream


async def test_everybodys_change_is_kept(bus: Bus):
    """Ten people choose at once; no choice is lost, and every change is told as it passes."""
    told: list[GuildSettings] = []

    async def tell(settings: GuildSettings) -> None:
        told.append(settings)

    await watch_guilds(bus, tell)
    assert await get_guild(bus, "77") == GuildSettings(guild_id="77")
    users = [str(number) for number in range(10)]
    await asyncio.gather(*(change_guild(bus, "77", lambda old, u=user: old.with_choice(u, "out")) for user in users))
    assert await get_guild(bus, "77") == GuildSettings(guild_id="77", opted_out=tuple(users))
    async with asyncio.timeout(5):
        while len(told) < len(users):
            await asyncio.sleep(0.01)
    assert max(told, key=lambda each: len(each.opted_out)).opted_out == tuple(users)


async def test_what_was_replaced_is_overwritten(bus: Bus):
    """The stream holds the newest entry only: an earlier one says who did not want to be recorded."""
    await change_guild(bus, "78", lambda old: old.with_choice("4242", "out"))
    await change_guild(bus, "78", lambda old: old.without("4242"))
    held = [message async for message in read_stream(bus, "KV_guilds", filter_subject="$KV.guilds.78")]
    assert len(held) == 1
    assert b"4242" not in held[0].data
