"""What was decided about a session survives whatever is written about it, and a deletion can be undone."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from contracts.directory import Archived, SessionEntry
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.directory import (
    bury_if,
    change_keeping,
    find_entry,
    get_entry,
    list_entries,
    list_every_entry,
    put_entry,
    read_directory,
    watch_deletions,
    watch_entries,
)
from contracts.jetstream.erase import delete_session
from contracts.jetstream.keeping import pin, standing, undelete, unpin, withdraw
from contracts.jetstream.streams import create_session, session_exists
from tests.integration.test_jetstream_sessions import entry_of

GRACE_S = 3600.0


async def a_session(bus: Bus) -> str:
    session = new_id()
    await create_session(bus, session)
    await put_entry(bus, entry_of(session))
    return session


async def test_a_pin_survives_what_the_log_tells_later(bus: Bus):
    """Capture writes the entry anew at every fact; how it is kept is not capture's to say."""
    session = await a_session(bus)
    await pin(bus, session)
    await put_entry(bus, entry_of(session, "renamed"))
    entry = await get_entry(bus, session)
    assert entry is not None
    assert (entry.name, entry.keeping.pinned) == ("renamed", True)
    await unpin(bus, session)
    assert await get_entry(bus, session) == entry_of(session, "renamed")


async def test_writers_at_the_same_time_lose_nothing(bus: Bus):
    """Twelve of each, all at once: the last name and the pin both stand."""
    session = await a_session(bus)
    names = [f"name {number}" for number in range(12)]
    await asyncio.gather(*(put_entry(bus, entry_of(session, name)) for name in names), pin(bus, session))
    entry = await find_entry(bus, session)
    assert entry is not None
    assert entry.name in names
    assert entry.keeping.pinned


async def test_a_deleted_session_is_seen_by_nobody_and_comes_back_as_it_was(bus: Bus):
    """Not listed, not found, not open; undone, it is the very same."""
    session = await a_session(bus)
    before = await get_entry(bus, session)
    seen: list[SessionEntry] = []
    deleted: list[SessionEntry] = []
    await watch_entries(bus, _into(seen))
    await watch_deletions(bus, _into(deleted))
    await withdraw(bus, session, by="operator", grace_s=GRACE_S)
    assert await get_entry(bus, session) is None
    assert session not in [entry.session for entry in await list_entries(bus)]
    assert session in [entry.session for entry in await list_every_entry(bus)]
    assert await standing(bus, session) == "deleted"
    await put_entry(bus, entry_of(session))  # a late fact brings nothing back
    assert await get_entry(bus, session) is None
    await undelete(bus, session)
    assert await get_entry(bus, session) == before
    assert await standing(bus, session) == "here"
    async with asyncio.timeout(5):
        while not (seen and deleted):
            await asyncio.sleep(0.01)
    assert [entry.session for entry in deleted] == [session]
    assert [entry.deleted for entry in seen] == [False]


async def test_without_grace_it_is_erased_at_once(bus: Bus):
    """Nothing is there to be brought back."""
    session = await a_session(bus)
    await withdraw(bus, session, by="operator", grace_s=0)
    assert not await session_exists(bus, session)
    assert await standing(bus, session) == "gone"
    with pytest.raises(SessionNotFoundError):
        await undelete(bus, session)
    assert session in (await read_directory(bus))[1]


async def test_an_undo_wins_over_the_end_of_the_grace_or_loses_but_never_half(bus: Bus):
    """Whoever erases marks it first, if it is deleted at that very moment."""
    session = await a_session(bus)
    await withdraw(bus, session, by="age", grace_s=GRACE_S)
    await undelete(bus, session)
    assert not await bury_if(bus, session, lambda entry: entry.deleted)
    assert await standing(bus, session) == "here"
    await withdraw(bus, session, by="age", grace_s=GRACE_S)
    assert await bury_if(bus, session, lambda entry: entry.deleted)
    assert await standing(bus, session) == "gone"
    with pytest.raises(SessionNotFoundError):
        await undelete(bus, session)  # its stream is still there
    assert await delete_session(bus, session)


async def test_an_archived_session_is_told_from_one_that_is_gone(bus: Bus):
    """It has no stream, but an entry that says where it is."""
    session = await a_session(bus)
    await change_keeping(
        bus, session, lambda keeping: msgspec.structs.replace(keeping, archived=Archived(unix_ns=1, messages=2))
    )
    assert await standing(bus, session) == "archived"
    assert await standing(bus, new_id()) == "gone"


def _into(entries: list[SessionEntry]):
    async def receive(entry: SessionEntry) -> None:
        entries.append(entry)

    return receive
