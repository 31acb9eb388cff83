"""What a streamed download costs, beside the same server streaming constant bytes; a seek's first byte; nginx's part.

CPU seconds per GB hold still on a busy machine, where MB/s do not. The floor is the same edge and uvicorn with
the object store taken out: what is above it is NATS.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from contracts.recipes import Recipe
from contracts.streams import OBJECT_CHUNK_BYTES
from tests.gateway_server import running_gateway
from tests.nginx import NGINX, running_nginx

SIZE: Final = 200 * 1024 * 1024
GB: Final = 1e9
SEEKS: Final = 200
SEEK_BYTES: Final = 64 * 1024
NGINX_ROUNDS: Final = 5  # its share is so small that the clock of 10 ms shows
ROUNDS: Final = 2  # the best of them counts: the others carry the neighbours' load
DEADLINE_S: Final = 10.0
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
CONSTANT: Final = f"""
import asyncio, socket
from gateway.app import serve
from gateway.edge import Edge

CHUNK = bytes({OBJECT_CHUNK_BYTES})

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({{"type": message["type"] + ".complete"}})
            if message["type"] == "lifespan.shutdown":
                return
    seek = any(name == b"range" for name, _ in scope["headers"])
    size = {SEEK_BYTES} if seek else {SIZE}
    headers = [(b"content-length", str(size).encode())]
    await send({{"type": "http.response.start", "status": 206 if seek else 200, "headers": headers}})
    if seek:
        await send({{"type": "http.response.body", "body": bytes(size), "more_body": False}})
        return
    for _ in range({SIZE // OBJECT_CHUNK_BYTES}):
        await send({{"type": "http.response.body", "body": CHUNK, "more_body": True}})
    await send({{"type": "http.response.body", "body": b"", "more_body": False}})

async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    await serve(Edge(app), listener, stop=asyncio.Event())

asyncio.run(main())
"""


def rows() -> Iterator[dict[str, Any]]:
    """CPU seconds per GB against the floor, and the first byte of a seek."""
    cpu, floor, seek_ms, floor_ms = asyncio.run(_measure())
    yield _row("gateway_download_cpu", cpu, "CPU s/GB", floor)
    yield _row("gateway_seek_first_byte_p50", seek_ms, "ms", floor_ms)
    if NGINX is not None:
        accel, plain = asyncio.run(_measure_nginx())
        yield _row("gateway_accel_cpu", accel, "CPU s/GB", plain)


def _row(name: str, value: float, unit: str, floor: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "floor": None if floor is None else round(floor, 3),
        "ratio": None if floor is None else round(value / floor, 2),
    }


async def _measure() -> tuple[float, float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with running_gateway(Path(folder)) as gateway, _constant_bytes() as (floor_url, pid):
            session = await gateway.session()
            data = random.Random(1).randbytes(SIZE)  # no secret
            artifact = await gateway.store(session, "bench.wav", data, recipe=Recipe(format="wav"))
            link = gateway.link(artifact)
            async with httpx.AsyncClient(timeout=60) as client:
                cpu = [await _cpu_s_per_gb(client, link, gateway.pid) for _ in range(ROUNDS)]
                floor = [await _cpu_s_per_gb(client, floor_url, pid) for _ in range(ROUNDS)]
            seeks, floors = await _seek(link), await _seek(floor_url)
    return min(cpu), min(floor), statistics.median(seeks), statistics.median(floors)


async def _measure_nginx() -> tuple[float, float]:
    """Nginx and the gateway together, sending by X-Accel-Redirect, and nginx alone sending the same file."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        cache = folder / "cache"
        more = {"RETOLD_TRUSTED_PROXIES": "127.0.0.1", "RETOLD_CACHE": str(cache)}
        async with (
            running_gateway(folder, **more) as gateway,
            running_nginx(
                folder / "nginx", gateway=gateway.url.removeprefix("http://"), cache=cache, tls=False, plain=cache
            ) as nginx,
            httpx.AsyncClient(timeout=60) as client,
        ):
            session = await gateway.session()
            data = random.Random(1).randbytes(SIZE)  # no secret
            artifact = await gateway.store(session, "bench.wav", data, recipe=Recipe(format="wav"))
            link = gateway.link(artifact).replace(gateway.url, nginx.url)
            for _ in range(2):
                await client.get(link, headers={"Range": "bytes=0-0"})
            async with asyncio.timeout(DEADLINE_S):
                while not (found := [path for path in cache.glob("*/*") if path.suffix != ".part"]):
                    await asyncio.sleep(0.02)
            pids = [gateway.pid, *_workers(nginx.pid)]
            plain_url = f"{nginx.url}/plain/{found[0].relative_to(cache)}"
            accel = [await _cpu_s_per_gb(client, link, *pids) for _ in range(NGINX_ROUNDS)]
            plain = [await _cpu_s_per_gb(client, plain_url, *pids) for _ in range(NGINX_ROUNDS)]
    return min(accel), min(plain)


def _workers(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@asynccontextmanager
async def _constant_bytes() -> AsyncIterator[tuple[str, int]]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CONSTANT, stdout=asyncio.subprocess.PIPE)
    try:
        if process.stdout is None:
            raise RuntimeError
        port = int(await asyncio.wait_for(process.stdout.readline(), DEADLINE_S))
        yield f"http://127.0.0.1:{port}/", process.pid
    finally:
        process.terminate()
        await process.wait()


async def _cpu_s_per_gb(client: httpx.AsyncClient, url: str, *pids: int) -> float:
    before = sum(map(_cpu_s, pids))
    received = 0
    async with client.stream("GET", url) as response:
        async for chunk in response.aiter_raw():
            received += len(chunk)
    if received != SIZE:
        raise RuntimeError(f"{received} bytes of {SIZE} came from {response.status_code}")
    return (sum(map(_cpu_s, pids)) - before) / (SIZE / GB)


def _cpu_s(pid: int) -> float:
    """User and system time of a process (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def _seek(link: str) -> list[float]:
    """Milliseconds from a request for a range anywhere to the first byte of it, over one connection that stands."""
    url = httpx.URL(link)
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=4 * SEEK_BYTES)
    chance = random.Random(2)  # no secret
    taken = []
    for _ in range(SEEKS):
        position = chance.randrange(SIZE - OBJECT_CHUNK_BYTES)
        request = f"Range: bytes={position}-{position + SEEK_BYTES - 1}\r\nHost: bench\r\n\r\n"
        started = time.perf_counter()
        writer.write(b"GET " + url.raw_path + b" HTTP/1.1\r\n" + request.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1)
        taken.append((time.perf_counter() - started) * 1000)
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length - 1)  # to the end, so that the next seek does not pay for what is left of this
    writer.close()
    return taken


if __name__ == "__main__":
    for row in rows():
        print(row)
