"""A file system with no room left, below each part that writes: it is told, and what was safe stays safe.

The disk is a real one, of a few megabytes, and really full: not a byte and not a file more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts.commands import LiveSession, StartRecording, StopRecording
from contracts.errors import RetoldError
from contracts.jetstream.asking import ask_status, start_recording, stop_recording
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.objects import list_artifacts
from contracts.recipes import DEFAULT_RECIPES, encode_recipe
from contracts.streams import session_stream_name
from ops.embedded import addresses, embedded_cluster, free_port
from ops.loopback.plan import make_plan
from ops.loopback.server import LoopbackDiscord
from ops.monitor import ALL_STREAMS, Monitor
from ops.thaw import can_thaw
from tests.killable import CHANNEL, GUILD, Room, check_nothing_lost, key, recorded, room
from tests.processes import RETOLD, environ, free_ports, start
from tests.small_disk import small_disk

pytestmark = pytest.mark.long

START_S = 60.0
SEEN_S = 30.0
TALK_S = 30.0
METRICS = 2  # the exporter's port, from RETOLD_METRICS_PORT on


async def test_everything_on_one_disk_that_is_full(tmp_path: Path) -> None:
    """Alarms say what is wrong; memory holds what is said, though nats-server dies, too.

    When there is room again, the server is started again by itself, and nothing is lost or there twice.
    """
    plan = make_plan(seconds=TALK_S, speakers=3, seed=3, joins=False)
    with small_disk(tmp_path / "data", megabytes=96) as disk:
        async with (
            LoopbackDiscord(plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as discord,
            running_up(tmp_path, discord) as up,
            connected(up.nats_url) as bus,
        ):
            started = await start_recording(bus, StartRecording(guild_id=str(GUILD), channel_id=str(CHANNEL)))
            await discord.wait_for_bot()
            talk = asyncio.create_task(discord.talk())
            await asyncio.sleep(3.0)
            disk.fill()
            await check_alarms(up, bus, started.session)
            os.kill(up.nats_pid, signal.SIGKILL)
            await until(lambda: "nats_ended" in up.log(), "it is noticed", but=up.log)
            await asyncio.sleep(3.0)
            disk.empty()
            await until(lambda: saved(bus), "everything is in the log", but=up.log)
            await talk
            await stop_recording(bus, StopRecording(guild_id=str(GUILD)))
            await check_all_there(bus, started.session, discord)
            assert "Traceback" not in up.log()


async def check_alarms(up: Up, bus: Bus, session: str) -> None:
    """The log, `lag`, the figures, `doctor` and capture each say their part."""
    await until(lambda: "nats_frozen" in up.log(), "it is told", but=up.log)
    assert f"REC_{session}" in (await up.told("lag"))["server"]["frozen"]
    assert "retold_nats_frozen_streams" in up.metrics()
    assert "retold_nats_frozen_streams 0.0" not in up.metrics()
    findings = (await up.told("doctor", code=1))["findings"]
    wrong = {finding["check"]: finding["remedy"] for finding in findings if finding["verdict"] == "wrong"}
    assert "systemctl restart retold-nats" in wrong["nats-server's store"]
    assert {"disk", "data folder"} <= set(wrong)
    live = await status(bus)
    assert live is not None
    assert live.unacked_batches > 0
    assert live.spool_failures > 0
    assert live.dropped_batches == 0


async def check_all_there(bus: Bus, session: str, discord: LoopbackDiscord) -> None:
    """Once."""
    found = await recorded(bus, session)
    owed = {key(frame) for frame in discord.journal.owed()}
    assert owed
    assert owed == set(found)
    assert max(found.values()) == 1


async def test_a_disk_without_room_for_a_spool(tmp_path: Path) -> None:
    """A recording begins all the same, and is told; with room again, its spool is one that the next capture reads."""
    with small_disk(tmp_path / "data", megabytes=16) as disk:
        async with room(tmp_path, seconds=8) as here:
            disk.fill(files=True)
            session = await here.begin()
            talk = asyncio.create_task(here.discord.talk())
            await asyncio.sleep(3.0)
            (live,) = (await here.recording()).sessions
            assert live.spool_failures > 0
            assert (live.spool_bytes, live.dropped_batches) == (0, 0)
            disk.empty()
            await here.server.stop()
            await talk
            assert here.capture is not None
            here.capture.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(here.capture.wait(), START_S) == 0
            assert "shutdown_before_saved" in here.log_of().read_text()
            assert here.log_of().read_text().count("spool_failed") == 1
            await here.server.start()
            await here.start_capture()
            await until(lambda: not list((tmp_path / "data" / "spool").glob("*.spool")), "the spool is in the log")
            await check_nothing_lost(here, session)


async def test_a_mixer_whose_disks_are_full(tmp_path: Path) -> None:
    """It says which, for scratch files and for what it follows by; with room again, it makes everything by itself."""
    with small_disk(tmp_path / "mixer", megabytes=16) as disk:
        async with room(tmp_path, seconds=6) as here:
            scratch = disk.path / "scratch"
            scratch.mkdir()
            with (tmp_path / "mixer.log").open("wb") as log:
                mixer = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "mixer"),
                    env=environ(
                        tmp_path,
                        **here.server.environ("mixer"),
                        RETOLD_DATA=str(disk.path / "data"),
                        TMPDIR=str(scratch),
                    ),
                    stdout=log,
                    stderr=log,
                )
            said = (tmp_path / "mixer.log").read_text
            try:
                await until(lambda: "mixer_ready" in said(), "it is ready", but=said)
                disk.fill(files=True)
                session = await here.begin()
                await here.discord.talk()
                await until(lambda: "follow_failed" in said(), "it cannot follow, and says so", but=said)
                await here.stop()
                await until(lambda: "the mixer's disk is full" in said(), "it cannot render, and says so", but=said)
                assert str(scratch) in said()
                disk.empty()
                async with connected(here.server.url) as bus:
                    await until(lambda: all_made(bus, session), "everything is made", seconds=2 * START_S, but=said)
                assert list(scratch.iterdir()) == []
                assert mixer.returncode is None
            finally:
                mixer.kill()
                await mixer.wait()


async def test_one_of_three_servers_with_a_full_disk(tmp_path: Path) -> None:
    """The others go on; alone among them it says that it is ill, and after a restart with room it has everything."""
    plan = make_plan(seconds=12.0, speakers=3, seed=3, joins=False)
    with small_disk(tmp_path / "n1", megabytes=96) as disk:
        async with (
            embedded_cluster(tmp_path) as servers,
            LoopbackDiscord(plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as discord,
        ):
            first, second, third = servers
            here = Room(tmp_path, first, discord)
            kept = {"RETOLD_NATS_URL": addresses(servers), "RETOLD_NATS_REPLICAS": "3"}
            here.capture = await here.spawn(discord, "data", **kept)
            async with (
                contextlib.AsyncExitStack() as stack,
                connected(addresses((second, third))) as bus,
                Monitor(first.monitor_url) as ill,
                Monitor(second.monitor_url) as well,
            ):
                stack.push_async_callback(here.end)
                await until(lambda: ready(bus), "capture is ready", seconds=START_S)
                started = await start_recording(bus, StartRecording(guild_id=str(GUILD), channel_id=str(CHANNEL)))
                await discord.wait_for_bot()
                talk = asyncio.create_task(discord.talk())
                await asyncio.sleep(2.0)
                disk.fill()
                await until(ill.frozen_streams, "it is told")
                assert await ill.frozen_streams() == (ALL_STREAMS,)
                assert not await can_thaw(ill, first.store)
                assert not await well.frozen_streams()
                await talk
                await until(lambda: saved(bus), "everything is in the log")
                disk.empty()
                assert await can_thaw(ill, first.store)
                await first.stop()
                await first.start()
                await until(lambda: whole(bus, started.session), "it has everything")
                assert not await ill.frozen_streams()
                await stop_recording(bus, StopRecording(guild_id=str(GUILD)))
                await check_all_there(bus, started.session, discord)


async def all_made(bus: Bus, session: str) -> bool:
    """Whether the files are there that every session gets."""
    return len({encode_recipe(one.artifact.recipe) for one in await list_artifacts(bus, session)}) == len(
        DEFAULT_RECIPES
    )


async def ready(bus: Bus) -> bool:
    """Whether capture records."""
    try:
        return (await ask_status(bus)).ready
    except RetoldError:
        return False


async def whole(bus: Bus, session: str) -> bool:
    """Whether every server has all of a session's log."""
    told = (await bus.api(f"STREAM.INFO.{session_stream_name(session)}"))["cluster"]
    return len(told["replicas"]) == 2 and all(replica["current"] for replica in told["replicas"])


class Up:
    """A running `retold up` with a bot on a loopback Discord."""

    def __init__(self, folder: Path, discord: LoopbackDiscord) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.metrics_port = free_ports(4)
        self.process = start(
            folder,
            "up",
            **discord.environ,
            RETOLD_DATA=str(self.data),
            RETOLD_GATEWAY_PORT=str(free_port()),
            RETOLD_METRICS_PORT=str(self.metrics_port),
        )

    @property
    def nats_pid(self) -> int:
        return int((self.data / "nats" / "nats.pid").read_text())

    def log(self) -> str:
        return (self.folder / "stdout").read_text() + (self.folder / "stderr").read_text()

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.metrics_port + METRICS}/metrics").text

    @property
    def nats_url(self) -> str:
        """With the password for everything."""
        password = (self.data / "nats" / "password").read_text()
        address = json.loads((self.data / "running.json").read_text())["nats_url"].removeprefix("nats://")
        return f"nats://retold:{password}@{address}"

    async def told(self, *command: str, code: int = 0) -> Any:
        """What a command says in JSON, as a user runs it."""
        process = await asyncio.create_subprocess_exec(
            *(*RETOLD, *command, "--json"),
            env=environ(self.folder, RETOLD_DATA=str(self.data)),
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate()
        assert process.returncode == code
        return json.loads(said)

    async def end(self) -> None:
        """In order, as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(START_S):
                while self.process.poll() is None:
                    await asyncio.sleep(0.1)
        finally:
            self.process.kill()


@contextlib.asynccontextmanager
async def running_up(folder: Path, discord: LoopbackDiscord) -> AsyncIterator[Up]:
    """One that is ready to record."""
    up = Up(folder, discord)
    try:
        await until(lambda: "capture_ready" in up.log(), "capture is ready", seconds=START_S, but=up.log)
        yield up
    finally:
        await up.end()


@contextlib.asynccontextmanager
async def connected(where: str) -> AsyncIterator[Bus]:
    """A connection that may do everything."""
    bus = await connect(where, name="test")
    try:
        yield bus
    finally:
        await bus.close()


async def status(bus: Bus) -> LiveSession | None:
    """The running session; None while capture does not answer."""
    try:
        sessions = (await ask_status(bus)).sessions
    except RetoldError:
        return None
    return sessions[0] if sessions else None


async def saved(bus: Bus) -> bool:
    """Whether all that was heard is in the log."""
    live = await status(bus)
    return live is not None and live.unacked_batches == 0 and live.packets["recorded"] > 0


async def until(
    condition: Callable[[], object], what: str, *, seconds: float = SEEN_S, but: Callable[[], str] = str
) -> None:
    try:
        async with asyncio.timeout(seconds):
            while True:
                held = condition()
                if await held if isinstance(held, Awaitable) else held:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise AssertionError(f"{what}, within {seconds:g} s; but: {but()[-3000:]}") from error
