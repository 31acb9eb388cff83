"""The gateway as a process: slow clients, an orderly end, a port that is taken, a store that is away."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from contracts.artifacts import Artifact
from contracts.errors import UnavailableError
from contracts.recipes import Recipe
from contracts.settings import Settings
from gateway.app import DRAIN_S, run
from gateway.downloads import PLACE_BYTES
from ops.embedded import EmbeddedServer, free_port
from tests.gateway_server import RunningGateway, running_gateway, until

SLOW_CLIENTS = 12
BIG_BYTES = 32 * 1024 * 1024
SLACK_BYTES = 24 * 1024 * 1024  # what the interpreter's allocator keeps; one whole object more would not fit


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def big_file(gateway: RunningGateway) -> Artifact:
    return await gateway.store(await gateway.session(), "big.wav", os.urandom(BIG_BYTES), recipe=Recipe(format="wav"))


async def ask_and_wait(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that asks for a file, takes the head of the answer, and nothing more."""
    target = httpx.URL(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (target.host, target.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=16_384)
    writer.write(b"GET " + target.raw_path + b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see the memory")
async def test_slow_clients_cost_little_memory_and_hurt_nobody(gateway: RunningGateway) -> None:
    """Beside a dozen clients that take nothing, one gets its file at once; then a slow one gets every byte, too."""
    artifact = await big_file(gateway)
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(gateway.link(artifact))).status_code == 200  # what one download leaves behind
        before = resident_bytes(gateway.pid)
        slow = [await ask_and_wait(gateway.link(artifact)) for _ in range(SLOW_CLIENTS)]
        fast = await client.get(gateway.link(artifact))
        assert hashlib.sha256(fast.content).hexdigest() == artifact.sha256
    assert resident_bytes(gateway.pid) - before <= SLOW_CLIENTS * PLACE_BYTES + SLACK_BYTES
    digest = hashlib.sha256()
    while data := await slow[0][0].read(65_536):
        digest.update(data)
    assert digest.hexdigest() == artifact.sha256
    for _, writer in slow:
        writer.close()


async def test_what_is_being_sent_is_finished_at_the_end(gateway: RunningGateway) -> None:
    """On SIGTERM nobody new is let in, and a running download comes to its last byte."""
    artifact = await big_file(gateway)
    reader, writer = await ask_and_wait(gateway.link(artifact))
    gateway.process.terminate()
    await until(lambda: refuses(gateway.url))
    data = await reader.read(-1)
    writer.close()
    assert hashlib.sha256(data).hexdigest() == artifact.sha256
    assert await asyncio.wait_for(gateway.process.wait(), 10) == 0


async def test_an_open_page_does_not_hold_up_the_end(gateway: RunningGateway) -> None:
    """Feeds have no end of their own: on SIGTERM they are ended, and the gateway is gone long before its deadline."""
    feed = httpx.URL(gateway.page(await gateway.session()) + "/events")
    reader, writer = await asyncio.open_connection(feed.host, feed.port)
    writer.write(b"GET " + feed.raw_path + b" HTTP/1.1\r\nHost: test\r\n\r\n")
    await reader.readuntil(b"event: state")
    gateway.process.terminate()
    assert await asyncio.wait_for(gateway.process.wait(), DRAIN_S / 2) == 0
    writer.close()


async def refuses(url: str) -> bool:
    target = httpx.URL(url)
    try:
        _, writer = await asyncio.open_connection(target.host, target.port)
    except OSError:
        return True
    writer.close()
    return False


async def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """The message names the settings; nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match="RETOLD_GATEWAY_PORT"):
            await run(Settings(data=tmp_path, gateway_port=port), stop=asyncio.Event())


async def test_without_a_store_it_does_not_start(tmp_path: Path) -> None:
    """The message names the server's setting."""
    settings = Settings(data=tmp_path, gateway_port=0, nats_url=f"nats://127.0.0.1:{free_port()}")
    with pytest.raises(UnavailableError, match="RETOLD_NATS_URL"):
        await run(settings, stop=asyncio.Event())


async def test_without_streams_and_keys_it_is_live_but_not_ready(tmp_path: Path) -> None:
    """Before anything was set up: live, not ready with every missing thing named, and no link opens."""
    async with EmbeddedServer(tmp_path / "nats") as server:
        settings = Settings(data=tmp_path, gateway_port=0, nats_url=server.url)
        stop = asyncio.Event()
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(run(settings, stop=stop, listening=listening))
        try:
            url = await asyncio.wait_for(listening, 10)
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"{url}/health/live")).status_code == 200
                ready = await client.get(f"{url}/health/ready")
                assert ready.status_code == 503
                assert ready.json()["checks"] == {"nats": True, "streams": False, "keys": False}
                assert (await client.get(f"{url}/s/a.b.c")).status_code == 403
        finally:
            stop.set()
            await serving


async def test_a_store_that_goes_away_is_a_503(tmp_path: Path) -> None:
    """With NATS gone the answer is 503 with Retry-After, and ready says no; when it is back, links open again."""
    async with running_gateway(tmp_path) as gateway:
        artifact = await gateway.store(await gateway.session(), "file.mp3", b"bytes")
        link = gateway.link(artifact)
        async with httpx.AsyncClient(timeout=30) as client:
            await gateway.server.stop()
            await until(lambda: says_ready(client, gateway.url, 503))
            response = await client.get(link)
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert response.json()["type"] == "urn:retold:problem:unavailable"
            await gateway.server.start()
            await until(lambda: says_ready(client, gateway.url, 200))
            assert (await client.get(link)).content == b"bytes"


async def says_ready(client: httpx.AsyncClient, url: str, status: int) -> bool:
    return (await client.get(f"{url}/health/ready")).status_code == status
