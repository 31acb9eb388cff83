"""Erasing takes away names as well as voices, and never more than was named."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from contracts.artifacts import RenderProgressed, RenderStored
from contracts.directory import SessionEntry
from contracts.errors import MalformedError
from contracts.ids import new_id
from contracts.jetstream.connection import connect
from contracts.jetstream.directory import get_entry, list_entries, put_entry, was_erased
from contracts.jetstream.erase import delete_session
from contracts.jetstream.jobs import publish_render_fact
from contracts.jetstream.streams import create_session, ensure_shared
from ops.embedded import EmbeddedServer

NAME, OTHER = "Zephyrine-of-the-Test", "Balthasar-of-the-Test"


def an_entry(session: str, name: str, *, revision: int) -> SessionEntry:
    return SessionEntry(
        session=session,
        guild_id="1",
        guild_name="G",
        channel_id="2",
        channel_name="C",
        started_unix_ns=revision,
        people={"7": name},
    )


def on_disk(directory: Path, name: str) -> bool:
    return any(name.encode() in path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_no_name_of_an_erased_session_is_left_on_the_disk(tmp_path: Path):
    """Every revision of its entry and what its renders told are overwritten; the others' stay."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        sessions = {new_id(): NAME, new_id(): OTHER}
        for session, name in sessions.items():
            await create_session(bus, session)
            for revision in range(5):
                await put_entry(bus, an_entry(session, name, revision=revision))
            now = time.time_ns()
            await publish_render_fact(
                bus, RenderProgressed(job=name, session=session, unix_ns=now, stage="render", fraction=0.5)
            )
            await publish_render_fact(bus, RenderStored(job=name, session=session, unix_ns=now, artifacts=()))
        first, second = sessions
        assert on_disk(server.store, NAME)
        assert await delete_session(bus, first)
        await bus.close()
        await server.stop()
        assert not on_disk(server.store, NAME)
        assert on_disk(server.store, OTHER)
        await server.start()
        bus = await connect(server.url, name="test")
        assert await was_erased(bus, first)
        assert await get_entry(bus, first) is None
        assert [entry.session for entry in await list_entries(bus)] == [second]
        await bus.close()


@pytest.mark.parametrize("session", ["*", ">", "", "a b", "../..", "x" * 16 + "*"])
async def test_what_is_no_session_id_erases_nothing(tmp_path: Path, session: str):
    """A wildcard would reach every session."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        kept = new_id()
        await put_entry(bus, an_entry(kept, NAME, revision=1))
        with pytest.raises(MalformedError):
            await delete_session(bus, session)
        assert [entry.session for entry in await list_entries(bus)] == [kept]
        await bus.close()
