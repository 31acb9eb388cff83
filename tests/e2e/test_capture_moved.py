"""A recording is where its call is, for everybody who asks."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ops.embedded import EmbeddedServer
from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.plan import make_plan
from ops.loopback.server import LoopbackDiscord
from tests.never_deaf import CHANNEL, GUILD
from tests.recorder import recorder

MOVED_S = 20.0


async def test_a_recording_that_is_moved_says_so(tmp_path: Path) -> None:
    """Whoever looks for the people in its channel, as the end for want of people does, looks into the right one."""
    plan = make_plan(seconds=5, speakers=2, seed=1, joins=False)
    async with (
        EmbeddedServer(tmp_path / "nats") as nats,
        LoopbackDiscord(plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as discord,
        recorder(discord, nats_url=nats.url, data=tmp_path / "data") as capture,
    ):
        await capture.start()
        (before,) = (await capture.status()).sessions
        assert before.channel_id == str(CHANNEL)
        discord.move_bot(CHANNEL + CHANNEL_OFFSET)
        async with asyncio.timeout(MOVED_S):
            while (await capture.status()).sessions[0].channel_id != str(CHANNEL + CHANNEL_OFFSET):
                await asyncio.sleep(0.05)
        await capture.stop()
