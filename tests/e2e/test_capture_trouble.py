"""Trouble around capture: a full disk, a server that refuses it, and a second capture that wants the same session."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path

import msgspec
import pytest

from contracts.events import SessionEnded, TakeClosed, TakeOpened, decode_fact
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.replay import replay
from contracts.packets import decode_batch
from contracts.permissions import CAPTURE, USERS
from contracts.streams import LEASE_S
from contracts.subjects import PacketSubject, facts, parse
from ops.embedded import EmbeddedServer
from ops.loopback.plan import make_plan
from ops.loopback.server import LoopbackDiscord
from tests.killable import CHANNEL, GUILD, READY_S, Room, check_nothing_lost, room

pytestmark = pytest.mark.long

SPOOL_BYTES = 20_000  # a second of three voices
ENDS_S = 30.0
MANAGER_WAITS_S = 9.9  # Docker and others kill after ten seconds


async def test_a_full_disk_raises_an_alarm_and_loses_nothing(tmp_path: Path) -> None:
    """The spool cannot grow: that is said and counted, and memory holds what the disk did not, over a dying server."""
    async with room(tmp_path, seconds=7) as here:
        session = await here.begin()
        assert here.capture is not None
        _, hard = resource.prlimit(here.capture.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(here.capture.pid, resource.RLIMIT_FSIZE, (SPOOL_BYTES, hard))
        talk = asyncio.create_task(here.discord.talk())
        for _ in range(2):
            await asyncio.sleep(1.5)
            await here.kill_server()
            await asyncio.sleep(0.3)
            await here.server.start()
        await talk
        (live,) = (await here.recording()).sessions
        assert live.spool_failures > 0
        assert live.spool_bytes <= SPOOL_BYTES
        assert live.dropped_batches == 0
        await here.stop()
        await check_nothing_lost(here, session)
        assert here.log_of().read_text().count("spool_failed") == 1


@pytest.mark.parametrize("denied", ["rec.>", "$KV.leases.>", "$KV.sessions.>"])
async def test_a_server_that_refuses_capture_ends_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    """Before anybody asks for a recording: exit code 1, and what is refused is named."""
    refused = msgspec.structs.replace(CAPTURE, never=(*CAPTURE.never, denied))
    monkeypatch.setitem(USERS, "capture", refused)
    plan = make_plan(seconds=5, speakers=1, seed=1, joins=False)
    async with (
        EmbeddedServer(tmp_path / "nats") as server,
        LoopbackDiscord(plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as discord,
    ):
        here = Room(tmp_path, server, discord)
        process = await here.spawn(discord, "data", **server.environ("capture"))
        try:
            assert await asyncio.wait_for(process.wait(), ENDS_S) == 1
        finally:
            await here.end()
        said = here.log_of().read_text().lower()
        assert "permissions violation" in said
        assert denied.rstrip(">").lower() in said
        assert "nats.conf" in said


async def test_a_capture_ends_when_told_with_no_server_left(tmp_path: Path) -> None:
    """Soon enough for a service manager, without an error; the next one puts what the disk holds into the log."""
    async with room(tmp_path, seconds=5) as here:
        session = await here.begin()
        talk = asyncio.create_task(here.discord.talk())
        await asyncio.sleep(1.5)
        await here.server.stop()
        await talk
        assert here.capture is not None
        here.capture.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(here.capture.wait(), MANAGER_WAITS_S) == 0
        assert "shutdown_before_saved" in here.log_of().read_text()
        await here.server.start()
        await here.start_capture()
        async with asyncio.timeout(READY_S):
            while list((tmp_path / "data" / "spool").glob("*.spool")):
                await asyncio.sleep(0.1)
        await check_nothing_lost(here, session)
        bus = await connect(here.server.url, name="check")
        told = [decode_fact(message.data) async for message in replay(bus, session, filter_subject=facts(session))]
        assert [fact.cause for fact in told if isinstance(fact, SessionEnded)] == ["shutdown"]
        await bus.close()


@pytest.mark.alone
async def test_a_session_has_one_writer(tmp_path: Path) -> None:
    """A second capture waits; when the first is frozen it goes on with its session, and the first is silent."""
    async with room(tmp_path, seconds=2 * LEASE_S + 12) as here:
        session = await here.begin()
        talk = asyncio.create_task(here.discord.talk())
        plan = make_plan(seconds=6, speakers=2, seed=9, joins=False)
        async with LoopbackDiscord(
            plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path / "second"
        ) as elsewhere:
            second = await here.spawn(elsewhere, "second")
            await asyncio.sleep(2.0)
            assert not here.log_of("second").exists() or "shard_taken" not in here.log_of("second").read_text()
            assert here.capture is not None
            os.kill(here.capture.pid, signal.SIGSTOP)
            await _said(here, "second", "session_resumes")
            await elsewhere.wait_for_bot(timeout_s=READY_S)
            bus = await connect(here.server.url, name="test")
            taken_over = await _sequence(bus, session)
            os.kill(here.capture.pid, signal.SIGCONT)
            await asyncio.gather(_said(here, "data", "shard_lost"), elsewhere.talk())
            await talk
            second.send_signal(signal.SIGINT)  # for good; SIGTERM would leave the session to the first
            assert await asyncio.wait_for(second.wait(), ENDS_S) == 0
            await _check_one_writer(bus, session, taken_over, {frame.ssrc for frame in elsewhere.journal.frames})
            await bus.close()


async def _said(here: Room, data: str, event: str) -> None:
    async with asyncio.timeout(READY_S):
        while not here.log_of(data).exists() or event not in here.log_of(data).read_text():
            await asyncio.sleep(0.1)


async def _sequence(bus: Bus, session: str) -> int:
    return max([message.sequence async for message in replay(bus, session)])


async def _check_one_writer(bus: Bus, session: str, taken_over: int, ssrcs: set[int]) -> None:
    """Everything behind the take-over is the second's, and it ended the session."""
    found = []
    async for message in replay(bus, session):
        if isinstance(parse(message.subject), PacketSubject):
            batch = decode_batch(message.data)
            assert (batch.take, batch.ssrc in ssrcs) == ((2, True) if message.sequence > taken_over else (1, False))
        else:
            found.append(decode_fact(message.data))
    assert [fact.take for fact in found if isinstance(fact, TakeOpened)] == [1, 2]
    assert [fact.cause for fact in found if isinstance(fact, TakeClosed)] == ["capture_died", "shutdown"]
    assert [fact.cause for fact in found if isinstance(fact, SessionEnded)] == ["shutdown"]
