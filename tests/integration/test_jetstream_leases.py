"""One session, one writer: leases are taken, renewed, lost and taken back by compare-and-set."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.leases import Lease, LeaseHeldError, take_lease
from contracts.jetstream.streams import ensure_shared
from contracts.tasks import end_tasks
from ops.embedded import EmbeddedServer


async def a_bus(server: EmbeddedServer) -> Bus:
    bus = await connect(server.url, name="test")
    await ensure_shared(bus)
    return bus


async def test_a_second_writer_is_refused_until_the_first_lets_go(tmp_path: Path):
    """While it is held, another is told who has it; the owner itself takes it back at once."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await a_bus(server)
        session = new_id()
        lease = await take_lease(bus, session, "first")
        with pytest.raises(LeaseHeldError, match="first"):
            await take_lease(bus, session, "second")
        await lease.renew()
        restarted = await take_lease(bus, session, "first")
        await restarted.release()
        second = await take_lease(bus, session, "second")
        with pytest.raises(LeaseHeldError, match="second"):
            await lease.renew()
        with pytest.raises(LeaseHeldError):
            await lease.release()
        await second.renew()
        await bus.close()


@pytest.mark.parametrize("first", ["renew", "release"])
async def test_a_lease_that_is_released_while_it_is_renewed_is_free(tmp_path: Path, first: str):
    """Whichever comes first to the server, another takes it at once: nobody waits for it to run out."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await a_bus(server)
        session = new_id()
        lease = await take_lease(bus, session, "first")
        both = [lease.renew(), lease.release()]
        await asyncio.gather(*(both if first == "renew" else both[::-1]))
        await take_lease(bus, session, "second")
        await bus.close()


async def test_a_lease_whose_renewal_was_cancelled_is_released_all_the_same(tmp_path: Path):
    """The renewal is on its way when its task ends, and nobody hears the answer."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await a_bus(server)
        session = new_id()
        lease = await take_lease(bus, session, "first")
        renewing = asyncio.create_task(lease.renew())
        while not bus.client.pending_data_size:  # until it is written
            await asyncio.sleep(0)
        await end_tasks(renewing)
        await lease.release()
        await take_lease(bus, session, "second")
        await bus.close()


async def test_of_many_who_try_at_once_one_has_it(tmp_path: Path):
    """Compare-and-set lets one through."""
    async with EmbeddedServer(tmp_path) as server:
        bus = await a_bus(server)
        session = new_id()
        tries = await asyncio.gather(
            *(take_lease(bus, session, f"capture-{number}") for number in range(10)), return_exceptions=True
        )
        assert sum(isinstance(outcome, Lease) for outcome in tries) == 1
        assert all(isinstance(outcome, (Lease, LeaseHeldError)) for outcome in tries)
        await bus.close()
