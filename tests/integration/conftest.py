"""A real nats-server for each module of integration tests, and a connection for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.streams import create_session, ensure_shared
from ops.embedded import EmbeddedServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """A server that the module's tests share; each uses sessions of its own."""
    async with EmbeddedServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def bus(nats_server: EmbeddedServer) -> AsyncIterator[Bus]:
    """A connection to the module's server, with the shared streams in place."""
    connected = await connect(nats_server.url, name="test")
    await ensure_shared(connected)
    yield connected
    await connected.close()


@pytest.fixture
async def session(bus: Bus) -> str:
    """A new session with nothing in it."""
    identifier = new_id()
    await create_session(bus, identifier)
    return identifier
