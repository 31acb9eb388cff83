"""A nats-server that a test kills and starts again, on the same port and the same store."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.streams import ensure_shared
from ops.embedded import EmbeddedServer, free_port


@contextlib.asynccontextmanager
async def restartable(directory: Path) -> AsyncIterator[tuple[EmbeddedServer, Bus]]:
    """A server of its own and a connection to it, which finds it again after a restart."""
    async with EmbeddedServer(directory, port=free_port()) as server:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        yield server, bus
        await bus.close()
