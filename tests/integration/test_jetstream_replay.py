"""Replaying gives every stored message once, in order, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from contracts.ids import new_id
from contracts.jetstream.configuration import stream_config
from contracts.jetstream.connection import Bus, JetStreamError, SessionNotFoundError
from contracts.jetstream.erase import delete_session
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.pull import REQUEST_BYTES, REQUEST_MESSAGES, read_stream
from contracts.jetstream.replay import last_sequence, replay
from contracts.jetstream.streams import create_session
from contracts.streams import session_stream, session_stream_name
from contracts.subjects import facts, packets, session_all
from tests.restartable import restartable

MIB = 1024 * 1024
LARGE = MIB - 512  # the server takes 1 MiB with its headers

NOWHERE = "0" * 16


async def fill(bus: Bus, session: str, count: int, *, size: int = 8, first: int = 1) -> None:
    """Messages whose id and whose beginning are their stream sequence."""
    publisher = Publisher(bus)
    await publisher.start()
    for number in range(first, first + count):
        publisher.publish(facts(session), str(number), number.to_bytes(8) * (size // 8))
    await publisher.drain(timeout_s=30.0)
    await publisher.close()


async def sequences(bus: Bus, session: str, **options: int) -> list[int]:
    found = []
    async for message in replay(bus, session, **options):
        assert message.message_id == str(message.sequence) == str(int.from_bytes(message.data[:8]))
        found.append(message.sequence)
    return found


async def test_an_empty_session_has_no_messages(bus: Bus, session: str):
    """It ends at once."""
    assert await last_sequence(bus, session) == 0
    assert await sequences(bus, session) == []


async def test_an_unknown_session_is_not_found(bus: Bus):
    """SessionNotFoundError, not an empty answer."""
    with pytest.raises(SessionNotFoundError, match=NOWHERE):
        await last_sequence(bus, NOWHERE)
    with pytest.raises(SessionNotFoundError, match=NOWHERE):
        await anext(replay(bus, NOWHERE))


@pytest.mark.parametrize("count", [1, REQUEST_MESSAGES, REQUEST_MESSAGES + 1, 5 * REQUEST_MESSAGES + 3])
async def test_every_message_comes_in_order(bus: Bus, session: str, count: int):
    """Also if they need more than one request."""
    await fill(bus, session, count)
    assert await last_sequence(bus, session) == count
    assert await sequences(bus, session) == list(range(1, count + 1))


async def test_first_and_last_are_included(bus: Bus, session: str):
    """Any part of the log, with both ends."""
    await fill(bus, session, 20)
    assert await sequences(bus, session, first=5, last=7) == [5, 6, 7]
    assert await sequences(bus, session, first=20) == [20]
    assert await sequences(bus, session, first=21) == []
    assert await sequences(bus, session, first=500) == []
    assert await sequences(bus, session, last=1) == [1]
    assert await sequences(bus, session, last=0) == []
    assert await sequences(bus, session, first=7, last=5) == []
    assert await sequences(bus, session, last=99) == list(range(1, 21))


async def test_large_messages_pass_the_limit_of_a_request(bus: Bus, session: str):
    """Messages of nearly 1 MiB, together more than both requests may hold."""
    count = 3 * REQUEST_BYTES // MIB
    await fill(bus, session, count, size=LARGE)
    assert await sequences(bus, session) == list(range(1, count + 1))


@pytest.fixture
async def holey(bus: Bus) -> str:
    """A session out of which messages can be taken, as a damaged disk takes them: with ours it cannot be done."""
    identifier = new_id()
    config = stream_config(session_stream(identifier))
    await bus.api(f"STREAM.CREATE.{config['name']}", {**config, "deny_delete": False})
    return identifier


async def test_deleted_messages_are_skipped(bus: Bus, holey: str):
    """Gaps in the stream are no gaps in the reading, at both ends and in between."""
    await fill(bus, holey, 600)
    gone = {1, 2, 5, 256, 257, 300, 599, 600}
    for sequence in gone:
        await bus.js.delete_msg(session_stream_name(holey), sequence)
    expected = [number for number in range(1, 601) if number not in gone]
    assert await sequences(bus, holey) == expected
    assert await sequences(bus, holey, last=257) == [number for number in expected if number <= 257]
    assert await sequences(bus, holey, first=599) == []


async def test_an_end_that_is_deleted_meanwhile_ends_the_reading(bus: Bus, holey: str):
    """A reader that was promised more messages does not wait for them for ever."""
    await fill(bus, holey, 12, size=LARGE)
    seen = []
    async for message in replay(bus, holey):
        if not seen:
            for sequence in (10, 11, 12):
                await bus.js.delete_msg(session_stream_name(holey), sequence)
        seen.append(message.sequence)
    assert seen[:9] == list(range(1, 10))
    assert seen == sorted(set(seen))


async def test_messages_that_come_meanwhile_are_read_once(bus: Bus, session: str):
    """A writer appends while we read: no gap, no duplicate, at least what was there at the start."""
    await fill(bus, session, 1000)
    writing = asyncio.create_task(fill(bus, session, 1000, first=1001))
    found = await sequences(bus, session)
    await writing
    assert found == list(range(1, len(found) + 1))
    assert len(found) >= 1000
    assert await sequences(bus, session) == list(range(1, 2001))


async def test_a_session_that_is_deleted_meanwhile_is_not_found(bus: Bus, session: str):
    """The reader learns it; it does not take the part that it saw for the whole."""
    await fill(bus, session, 30, size=LARGE)
    async with aclosing(replay(bus, session)) as messages:
        await anext(messages)
        await delete_session(bus, session)
        with pytest.raises(SessionNotFoundError):
            assert len([message async for message in messages]) < 29


async def test_a_reader_that_stops_leaves_no_consumer(bus: Bus, session: str):
    """Reading up to `last`, or giving up half-way, takes the consumer along."""
    await fill(bus, session, 10)
    assert await sequences(bus, session, last=3) == [1, 2, 3]
    async with aclosing(replay(bus, session)) as messages:
        await anext(messages)
    info = await bus.api(f"STREAM.INFO.{session_stream_name(session)}")
    assert info["state"]["consumer_count"] == 0


async def test_a_filter_reads_its_subject_only(bus: Bus, session: str):
    """Facts without audio."""
    for number in range(1, 7):
        subject = facts(session) if number % 2 else packets(session, 1, number)
        await bus.publish(subject, number.to_bytes(8), message_id=str(number))
    stream = session_stream_name(session)
    assert [message.sequence async for message in replay(bus, session, filter_subject=facts(session))] == [1, 3, 5]
    newest = [
        message.sequence
        async for message in read_stream(bus, stream, filter_subject=session_all(session), last_per_subject=True)
    ]
    assert newest == [2, 4, 5, 6]
    with pytest.raises(JetStreamError):
        await anext(read_stream(bus, "NO_SUCH_STREAM"))


@pytest.mark.parametrize("stop_after", [1, 700])
async def test_a_restart_in_mid_read_leaves_no_gap_and_no_duplicate(tmp_path: Path, stop_after: int):
    """Kill -9 while somebody reads: after the restart reading goes on behind the last message seen."""
    async with restartable(tmp_path / "nats") as (server, bus):
        session = new_id()
        await create_session(bus, session)
        await fill(bus, session, 2000, size=4096)
        found = []
        async for message in replay(bus, session):
            found.append(message.sequence)
            if len(found) == stop_after:
                await server.kill()
                await server.start()
    assert found == list(range(1, 2001))


async def test_the_newest_of_each_subject_comes_once_over_a_restart(tmp_path: Path):
    """Reading the last message of each subject starts over after an interruption, and repeats nothing."""
    async with restartable(tmp_path / "nats") as (server, bus):
        session = new_id()
        await create_session(bus, session)
        for ssrc in range(1500):
            await bus.client.publish(packets(session, 1, ssrc), bytes(4096))
        async with asyncio.timeout(30):
            while await last_sequence(bus, session) < 1500:  # they were published without acknowledgements
                await asyncio.sleep(0.01)
        stream = session_stream_name(session)
        found = []
        async for message in read_stream(bus, stream, filter_subject=session_all(session), last_per_subject=True):
            found.append(message.sequence)
            if len(found) == 100:
                await server.kill()
                await server.start()
    assert found == list(range(1, 1501))
