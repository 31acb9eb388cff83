"""Many, slow, long, and interrupted downloads: every byte comes, memory stays, nobody hurts another."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from contracts.artifacts import Artifact
from contracts.recipes import Recipe
from tests.gateway_server import RunningGateway, running_gateway, until

pytestmark = pytest.mark.long

SLOW_CLIENTS = 50
SLOW_RATE = 256 * 1024  # bytes/s
SLOW_BYTES = 4 * 1024 * 1024
MEMORY_BYTES = 40 * 1024 * 1024
BIG = 200 * 1024 * 1024
INTERRUPTED = 64 * 1024 * 1024
FAST_S = 5.0  # a fast client's 4 MiB beside the slow ones; alone it takes some 50 ms


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path) as running:
        yield running


async def stored(gateway: RunningGateway, size: int, session: str = "") -> Artifact:
    data = random.Random(size).randbytes(size)
    return await gateway.store(session or await gateway.session(), "big.wav", data, recipe=Recipe(format="wav"))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def read_slowly(url: str, size: int) -> str:
    """The digest of a file that is taken at SLOW_RATE through a small socket buffer."""
    target = httpx.URL(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (target.host, target.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=64 * 1024)
    writer.write(b"GET " + target.raw_path + b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    digest = hashlib.sha256()
    began, taken = time.monotonic(), 0
    while data := await reader.read(32 * 1024):
        digest.update(data)
        taken += len(data)
        await asyncio.sleep(max(0.0, began + taken / SLOW_RATE - time.monotonic()))
    writer.close()
    assert taken == size
    return digest.hexdigest()


@pytest.mark.soak
@pytest.mark.alone  # a fast client's time
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to see the memory")
async def test_fifty_slow_clients_get_every_byte_and_cost_little(gateway: RunningGateway) -> None:
    """50 of 50 at 256 KiB/s are byte-exact, the gateway grows by 40 MB at most, a fast client beside them is fast."""
    artifact = await stored(gateway, SLOW_BYTES)
    async with httpx.AsyncClient(timeout=60) as client:
        await client.get(gateway.link(artifact))
        before = most = resident_bytes(gateway.pid)
        slow = [asyncio.create_task(read_slowly(gateway.link(artifact), SLOW_BYTES)) for _ in range(SLOW_CLIENTS)]
        fast: list[float] = []
        while not all(task.done() for task in slow):
            began = time.monotonic()
            answer = await client.get(gateway.link(artifact))
            fast.append(time.monotonic() - began)
            assert hashlib.sha256(answer.content).hexdigest() == artifact.sha256
            most = max(most, resident_bytes(gateway.pid))
            await asyncio.sleep(0.5)
    assert [task.result() for task in slow] == [artifact.sha256] * SLOW_CLIENTS
    print(f"memory +{(most - before) / 1e6:.1f} MB, fast client at worst {max(fast):.2f} s")
    assert most - before <= MEMORY_BYTES
    assert max(fast) < FAST_S


async def test_a_download_outlives_the_store(gateway: RunningGateway) -> None:
    """NATS is restarted in mid-download: the client sees that it is short, resumes, and the file is whole."""
    artifact = await stored(gateway, INTERRUPTED)
    link, tag, data = gateway.link(artifact), "", bytearray()
    restarted = False
    async with httpx.AsyncClient(timeout=30) as client:
        async with asyncio.timeout(60):
            while len(data) < INTERRUPTED:
                headers = {"Range": f"bytes={len(data)}-", "If-Range": tag} if data else {}
                try:
                    async with client.stream("GET", link, headers=headers) as response:
                        if response.status_code == 503:
                            await asyncio.sleep(0.1)
                            continue
                        assert response.status_code == (206 if data else 200)
                        tag = response.headers["etag"]
                        async for chunk in response.aiter_raw(65_536):
                            data += chunk
                            if not restarted and len(data) > INTERRUPTED // 4:
                                restarted = True
                                await gateway.server.stop()
                                await gateway.server.start()
                except httpx.RemoteProtocolError:
                    continue
    assert restarted
    assert hashlib.sha256(data).hexdigest() == artifact.sha256


@pytest.mark.soak
async def test_two_hundred_megabytes_by_every_client(gateway: RunningGateway, tmp_path: Path) -> None:
    """curl, wget, aria2 with four connections, and a thousand random ranges, while another upload interleaves."""
    session = await gateway.session()
    uploading = asyncio.create_task(stored(gateway, BIG - 1, session))
    artifact = await stored(gateway, BIG, session)
    await uploading
    data, url = gateway.data[artifact.name], gateway.link(artifact)
    commands = {
        "curl": ["curl", "-sS", "-C", "-", "-o", "{file}", url],
        "wget": ["wget", "-q", "-c", "-O", "{file}", url],
        "aria2c": ["aria2c", "-q", "-x4", "-s4", "-k1M", "-d", str(tmp_path), "-o", "aria2c.wav", url],
    }
    for tool, command in commands.items():
        if shutil.which(tool) is None:
            continue
        file = tmp_path / f"{tool}.wav"
        if tool != "aria2c":
            file.write_bytes(data[: BIG // 3])
        filled = [argument.format(file=file) for argument in command]
        done = await asyncio.to_thread(subprocess.run, filled, check=False)
        assert done.returncode == 0, tool
        assert await asyncio.to_thread(digest_of, file) == artifact.sha256, tool
        file.unlink()
    chance = random.Random(3)
    async with httpx.AsyncClient(timeout=30) as client:
        for _ in range(1000):
            start = chance.randrange(BIG)
            stop = min(BIG, start + chance.randrange(1, 400_000))
            part = await client.get(url, headers={"Range": f"bytes={start}-{stop - 1}"})
            assert part.content == data[start:stop]


def digest_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


async def test_a_client_that_stops_half_way_leaves_no_place_taken(gateway: RunningGateway) -> None:
    """A hundred that ask and hang up: the next one is served at once, and nothing is under way any more."""
    artifact = await stored(gateway, 8 * 1024 * 1024)
    target = httpx.URL(gateway.link(artifact))
    for _ in range(100):
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(b"GET " + target.raw_path + b" HTTP/1.1\r\nHost: test\r\n\r\n")
        await reader.read(1000)
        writer.transport.abort()
    async with httpx.AsyncClient(timeout=10) as client:
        answer = await client.get(str(target))
        assert hashlib.sha256(answer.content).hexdigest() == artifact.sha256

        async def is_quiet() -> bool:
            metrics = (await client.get(f"{gateway.url}/metrics")).text
            return "retold_gateway_transfers 0.0\n" in metrics

        await until(is_quiet)
