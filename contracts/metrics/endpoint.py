"""`/metrics` of a process that serves nothing else: one small listener, for Prometheus on this machine or network.

It asks for no password, so it listens on loopback unless told otherwise. If its port is taken, the service goes on
without: figures are no reason not to record.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Final

import structlog

from contracts.metrics.figures import MEDIA_TYPE, Figures
from contracts.settings import Settings

log = structlog.get_logger()

HEAD_BYTES: Final = 8 * 1024
HEAD_TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 8  # connections; Prometheus has one


@contextlib.asynccontextmanager
async def serve_metrics(figures: Figures, settings: Settings) -> AsyncIterator[None]:
    """Answer on RETOLD_METRICS_HOST and RETOLD_METRICS_PORT inside the context; port 0 = do not."""
    if not settings.metrics_port:
        yield
        return
    places = asyncio.Semaphore(AT_ONCE)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not places.locked():
                async with places:
                    await _answer(figures, reader, writer)
        finally:
            writer.close()

    address = (settings.metrics_host, settings.metrics_port)
    try:
        server = await asyncio.start_server(answer, *address, limit=HEAD_BYTES)
    except OSError as error:
        log.error("metrics_unavailable", address=address, reason=str(error))  # noqa: TRY400  # the reason says it all
        yield
        return
    async with server:
        log.info("metrics_listening", address=address)
        yield


async def serving(figures: Figures, settings: Settings, work: Awaitable[None]) -> None:
    """Do the work, with figures served meanwhile."""
    async with serve_metrics(figures, settings):
        await work


async def _answer(figures: Figures, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request, one answer; whoever sends nothing, or too much, gets none."""
    try:
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        return
    method, _, rest = head.decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if path != "/metrics":
        status, body = "404 Not Found", b"figures are at /metrics\n"
    elif method not in {"GET", "HEAD"}:
        status, body = "405 Method Not Allowed", b""
    else:
        status, body = "200 OK", await figures.text()
    fields = f"Content-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + (b"" if method == "HEAD" else body))
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            await writer.drain()
