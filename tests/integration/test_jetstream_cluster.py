"""A cluster of three servers: whichever dies, what was stored is there, and whoever works goes on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts import subjects
from contracts.artifacts import Artifact
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.copies import copy_sessions
from contracts.jetstream.leases import take_lease
from contracts.jetstream.objects import find_artifact, put_artifact, read_artifact
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.replay import last_sequence, replay
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.recipes import DEFAULT_RECIPES
from contracts.streams import SHARED, object_stream_name, session_stream_name
from ops.embedded import EmbeddedServer, addresses, embedded_cluster

pytestmark = pytest.mark.long

MESSAGES = 4_000
PATIENCE_S = 60.0
OBJECT_BYTES = 6 * 1024 * 1024


class Cluster:
    """Three servers, and a connection to whichever is there."""

    def __init__(self, servers: list[EmbeddedServer], bus: Bus) -> None:
        self.servers = servers
        self.bus = bus

    async def leader_of(self, stream: str) -> EmbeddedServer:
        """The server that leads a stream now."""
        name = (await self.bus.api(f"STREAM.INFO.{stream}"))["cluster"]["leader"]
        return next(server for server in self.servers if server.name == name)

    async def lose_leader(self, stream: str) -> EmbeddedServer:
        """Kill the server that leads a stream."""
        server = await self.leader_of(stream)
        await server.kill()
        return server


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with embedded_cluster(tmp_path) as servers:
        bus = await connect(addresses(servers), name="test", replicas=3)
        await ensure_shared(bus)
        yield Cluster(servers, bus)
        await bus.close()


@pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=pytest.mark.soak)])
async def test_whoever_dies_nothing_is_lost_nor_doubled(cluster: Cluster, tmp_path: Path, rounds: int) -> None:
    """The server that leads a log is killed while it, a lease and a file are written and read: all of it goes on."""
    bus, session = cluster.bus, new_id()
    await create_session(bus, session)
    for stream in (session_stream_name(session), object_stream_name(session), *(each.name for each in SHARED)):
        assert (await bus.api(f"STREAM.INFO.{stream}"))["config"]["num_replicas"] == 3
    await check_growing(cluster)
    artifact = await store(bus, session, tmp_path)
    publisher = Publisher(bus)
    await publisher.start()
    lease = await take_lease(bus, session, "a")
    for number in range(rounds):
        for message in range(number * MESSAGES, (number + 1) * MESSAGES):
            publisher.publish(subjects.packets(session, 1, 7), f"1.7.{message}", b"%d" % message)
        reading = asyncio.create_task(read(bus, session, artifact))
        await asyncio.sleep(0.05)
        dead = await cluster.lose_leader(session_stream_name(session))
        await bus.insist(lease.renew)
        assert lease.held
        assert await reading == artifact.sha256
        await publisher.drain(timeout_s=PATIENCE_S)
        assert [int(each.data) async for each in replay(bus, session, last=await last_sequence(bus, session))]
        if number < rounds - 1:
            await dead.start()
            await whole(cluster, session)
    await publisher.close()
    found = [int(message.data) async for message in replay(bus, session)]
    assert sorted(found) == list(range(rounds * MESSAGES))


async def check_growing(cluster: Cluster) -> None:
    """A session from when there was one copy has three, once somebody looks."""
    small, session = await connect(addresses(cluster.servers), name="small", replicas=1), new_id()
    await create_session(small, session)
    await small.close()
    assert await copy_sessions(cluster.bus) == 2
    assert (await cluster.bus.api(f"STREAM.INFO.{session_stream_name(session)}"))["config"]["num_replicas"] == 3
    assert await copy_sessions(cluster.bus) == 0


async def store(bus: Bus, session: str, folder: Path) -> Artifact:
    """A file in the session's bucket."""
    data = hashlib.shake_128(b"seed").digest(OBJECT_BYTES)
    path = folder / "file"
    path.write_bytes(data)
    artifact = Artifact(
        name="file",
        session=session,
        filename="file.mp3",
        recipe=DEFAULT_RECIPES[0],
        log_end=1,
        engine="test",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        duration_ticks=1,
        rendered_unix_ns=1,
    )
    await put_artifact(bus, artifact, path)
    return artifact


async def read(bus: Bus, session: str, artifact: Artifact) -> str:
    """The digest of what comes, slowly."""
    stored = await find_artifact(bus, session, artifact.name)
    assert stored is not None
    digest = hashlib.sha256()
    async for piece in read_artifact(bus, stored):
        digest.update(piece)
        await asyncio.sleep(0.01)
    return digest.hexdigest()


async def whole(cluster: Cluster, session: str) -> None:
    """Wait until every server has all of the session again: only so many may be away at a time."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            about = (await cluster.bus.api(f"STREAM.INFO.{session_stream_name(session)}"))["cluster"]
            if all(copy["current"] and not copy.get("lag") for copy in about["replicas"]):
                return
            await asyncio.sleep(0.1)
