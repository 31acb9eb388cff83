"""Encryption at rest by a real nats-server: what the disk shows, what an older store becomes, what a lost key does."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.errors import UnavailableError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.replay import replay
from contracts.jetstream.streams import create_session
from contracts.subjects import facts
from ops.embedded import STORE_KEY, EmbeddedServer
from ops.setup.secrets import keep_secret, store_key_line

SPOKEN = b"what somebody said, in full"


async def test_a_new_store_shows_nothing_of_what_it_holds(tmp_path: Path):
    """With encryption on, no payload and no subject stands in any file; it is all there after a restart."""
    session = new_id()
    async with EmbeddedServer(tmp_path, encrypted=True) as server:
        await _fill(server, session)
    assert not _found(tmp_path, SPOKEN)
    assert not _found(tmp_path, facts(session).encode())
    async with EmbeddedServer(tmp_path, encrypted=True) as server:
        assert await _read(server, session) == [SPOKEN] * 300


async def test_a_store_that_is_there_stays_as_it_is_until_it_gets_a_key(tmp_path: Path):
    """An installation from before goes on working; given a key, the server encrypts what it holds and loses nothing."""
    session = new_id()
    async with EmbeddedServer(tmp_path) as server:
        await _fill(server, session)
    async with EmbeddedServer(tmp_path, encrypted=True) as server:
        assert await _read(server, session) == [SPOKEN] * 300
    assert _found(tmp_path, SPOKEN)
    keep_secret(tmp_path / STORE_KEY, store_key_line)
    async with EmbeddedServer(tmp_path, encrypted=True) as server:
        assert await _read(server, session) == [SPOKEN] * 300
    assert not _found(tmp_path, SPOKEN)


async def test_a_store_whose_key_is_gone_is_not_started_empty(tmp_path: Path):
    """The server alone would begin anew beside it; the error names the file to put back, and then all is there."""
    session = new_id()
    async with EmbeddedServer(tmp_path, encrypted=True) as server:
        await _fill(server, session)
    key = (tmp_path / STORE_KEY).rename(tmp_path / "backup")
    with pytest.raises(UnavailableError, match=STORE_KEY):
        await EmbeddedServer(tmp_path, encrypted=True).start()
    key.rename(tmp_path / STORE_KEY)
    async with EmbeddedServer(tmp_path) as server:
        assert await _read(server, session) == [SPOKEN] * 300


async def _fill(server: EmbeddedServer, session: str) -> None:
    bus = await connect(server.url, name="test")
    await create_session(bus, session)
    for _ in range(300):
        await bus.publish(facts(session), SPOKEN)
    await bus.close()


async def _read(server: EmbeddedServer, session: str) -> list[bytes]:
    bus: Bus = await connect(server.url, name="test")
    try:
        return [message.data async for message in replay(bus, session)]
    finally:
        await bus.close()


def _found(folder: Path, what: bytes) -> bool:
    return any(what in path.read_bytes() for path in (folder / "store").rglob("*") if path.is_file())
