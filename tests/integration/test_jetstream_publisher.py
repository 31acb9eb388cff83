"""The publisher stores everything exactly once, whatever happens to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import UnavailableError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.publisher import WINDOW, Publisher
from contracts.jetstream.replay import replay
from contracts.jetstream.streams import create_session
from contracts.subjects import facts
from tests.restartable import restartable

DRAIN_S = 30.0


async def stored(bus: Bus, session: str) -> list[tuple[str, bytes]]:
    return [(message.message_id, message.data) async for message in replay(bus, session)]


async def test_what_is_published_is_stored_once_in_order(bus: Bus, session: str):
    """Many more messages than may be under way, each with its id, in the order they were given."""
    publisher = Publisher(bus)
    await publisher.start()
    sent = [(str(number), b"%d" % number) for number in range(5 * WINDOW + 1)]
    for message_id, data in sent:
        publisher.publish(facts(session), message_id, data)
    assert publisher.unacked == len(sent)
    await publisher.drain(timeout_s=DRAIN_S)
    assert await stored(bus, session) == sent
    assert (publisher.acked, publisher.unacked, publisher.refused) == (len(sent), 0, 0)
    assert publisher.ack_latency_s > 0
    await publisher.close()


async def test_the_same_id_twice_is_stored_once(bus: Bus, session: str):
    """Two publishers, the same ids: as after a crash that lost the acks."""
    for _ in range(2):
        publisher = Publisher(bus)
        await publisher.start()
        for number in range(100):
            publisher.publish(facts(session), str(number), b"x")
        await publisher.drain(timeout_s=DRAIN_S)
        await publisher.close()
    assert publisher.duplicates == 100
    assert [message_id for message_id, _ in await stored(bus, session)] == [str(number) for number in range(100)]


async def test_a_killed_server_loses_and_doubles_nothing(tmp_path: Path):
    """Kill -9 twice in mid-publish: after the restarts every message is stored exactly once."""
    async with restartable(tmp_path / "nats") as (server, bus):
        session = new_id()
        await create_session(bus, session)
        publisher = Publisher(bus)
        await publisher.start()
        numbers = iter(range(10**9))

        def publish(count: int) -> None:
            for number in (next(numbers) for _ in range(count)):
                publisher.publish(facts(session), str(number), number.to_bytes(4) * 800)

        for _ in range(2):
            acked = publisher.acked
            publish(3000)
            await until(lambda acked=acked: publisher.acked > acked + 200)
            await server.kill()
            publish(200)
            assert publisher.unacked > 200
            await server.start()
        publish(10)
        await publisher.drain(timeout_s=DRAIN_S)
        await publisher.close()
        ids = [message_id for message_id, _ in await stored(bus, session)]
        assert publisher.retried > 0
    assert sorted(ids, key=int) == [str(number) for number in range(6410)]


async def test_a_refusal_is_tried_again(bus: Bus):
    """No stream takes the subject yet: nothing is lost, and it is stored as soon as there is one."""
    session = new_id()
    publisher = Publisher(bus)
    await publisher.start()
    publisher.publish(facts(session), "1", b"early")
    await until(lambda: publisher.refused > 0)
    with pytest.raises(UnavailableError, match="1 messages"):
        await publisher.drain(timeout_s=0.05)
    await create_session(bus, session)
    await publisher.drain(timeout_s=DRAIN_S)
    await publisher.close()
    assert await stored(bus, session) == [("1", b"early")]


async def test_a_drain_that_takes_too_long_says_how_many(bus: Bus):
    """The number of messages that are not stored is in the error."""
    publisher = Publisher(bus)
    await publisher.start()
    for number in range(7):
        publisher.publish(facts(new_id()), str(number), b"")
    with pytest.raises(UnavailableError, match=r"7 messages .* after 0\.1 s"):
        await publisher.drain(timeout_s=0.1)
    await publisher.close()


async def test_an_empty_publisher_is_drained(bus: Bus):
    """Nothing given, nothing to wait for; closing twice does no harm."""
    publisher = Publisher(bus)
    await publisher.start()
    await publisher.drain(timeout_s=0.01)
    await publisher.close()


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # counters set no event
            await asyncio.sleep(0.005)
