"""A nats-server whose disk was full is told from one that is well, and ended when there is room, by each who may."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.streams import session_stream_name
from contracts.subjects import facts
from ops.embedded import EmbeddedServer
from ops.monitor import Monitor
from ops.thaw import can_thaw
from tests.busybox import busybox_path
from tests.small_disk import SmallDisk, small_disk

HEALTH = Path(__file__).parents[2] / "ops" / "deploy" / "nats" / "health.sh"
ENDS_S = 30.0  # of a busy machine
MESSAGE = bytes(100_000)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedServer, SmallDisk, Bus]]:
    """One on a disk of its own."""
    with small_disk(tmp_path / "disk", megabytes=64) as disk:
        async with EmbeddedServer(disk.path / "nats") as running:
            bus = await connect(running.url, name="test")
            await ensure_shared(bus)
            yield running, disk, bus
            await bus.close()


async def freeze(disk: SmallDisk, bus: Bus, monitor: Monitor) -> str:
    """Fill the disk, and publish until a session's stream is frozen; the session."""
    session = new_id()
    await create_session(bus, session)
    disk.fill()
    publisher = Publisher(bus)
    await publisher.start()
    async with asyncio.timeout(ENDS_S):
        while not await monitor.frozen_streams():
            publisher.publish(facts(session), new_id(), MESSAGE)
            await asyncio.sleep(0.05)
    await publisher.close()
    return session


async def test_it_is_to_be_started_again_when_there_is_room(server: tuple[EmbeddedServer, SmallDisk, Bus]) -> None:
    """Not before, and not one that is well; the command says so by its exit code."""
    running, disk, bus = server
    async with Monitor(running.monitor_url) as monitor:
        assert (await monitor.state()).frozen == ()
        assert not await can_thaw(monitor, running.store)
        session = await freeze(disk, bus, monitor)
        assert (await monitor.state()).frozen == (session_stream_name(session),)
        assert await command(running) == 1
        disk.empty()
        assert await can_thaw(monitor, running.store)
        assert await command(running) == 0
        await running.interrupt()
        await running.start()
        assert (await monitor.state()).frozen == ()
        await bus.publish(facts(session), MESSAGE)


async def command(running: EmbeddedServer) -> int:
    """What the timer of systemd asks."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.thaw", str(running.store)),
        env={"RETOLD_NATS_MONITOR_URL": running.monitor_url, "PYTHONPATH": str(HEALTH.parents[3])},
    )
    return await process.wait()


async def test_its_health_check_ends_it_when_there_is_room(
    server: tuple[EmbeddedServer, SmallDisk, Bus], tmp_path: Path
) -> None:
    """The script of the image, by what the image has: well, ill without room, and ended with room."""
    running, disk, bus = server
    if (path := busybox_path(tmp_path / "bin")) is None:
        pytest.skip("there is no BusyBox here (Debian: busybox)")
    assert running.pid is not None
    environ = {
        "PATH": path,
        "NATS_MONITOR": running.monitor_url.removeprefix("http://"),
        "NATS_STORE": str(running.store),
        "NATS_PID": str(running.pid),
    }

    async def health() -> int:
        process = await asyncio.create_subprocess_exec("/usr/bin/env", "-i", *_pairs(environ), "sh", str(HEALTH))
        try:
            async with asyncio.timeout(ENDS_S):  # as Docker has one, too
                return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    assert await health() == 0
    async with Monitor(running.monitor_url) as monitor:
        await freeze(disk, bus, monitor)
    assert await health() == 1
    await asyncio.sleep(1.0)
    assert await health() == 1, "without room it is left as it is: it answers readers"
    disk.empty()
    assert await health() == 1
    async with asyncio.timeout(ENDS_S):
        await running.wait()


def _pairs(environ: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environ.items()]
