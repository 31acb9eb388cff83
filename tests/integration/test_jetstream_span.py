"""A span of a session's log: all facts, and of the audio what came then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.clock import NS_PER_SECOND
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.replay import last_sequence, replay_span
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.packets import decode_batch
from contracts.subjects import FactSubject, parse
from ops.embedded import EmbeddedServer
from tests.builders import build_session

SECONDS = 300.0
BUILT = build_session(SECONDS, 3, 0.4, 5)


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[Bus]:
    async with EmbeddedServer(tmp_path / "nats") as server:
        connected = await connect(server.url, name="test")
        await ensure_shared(connected)
        await create_session(connected, BUILT.session)
        publisher = Publisher(connected)
        await publisher.start()
        for message in BUILT.messages:
            publisher.publish(message.subject, message.message_id, message.data)
        await publisher.drain(timeout_s=30)
        await publisher.close()
        yield connected
        await connected.close()


async def test_a_span_holds_its_audio_every_fact_and_little_else(bus: Bus):
    """Every batch that came in it is there, in the log's order; of the rest at most what stands at its edges."""
    last = await last_sequence(bus, BUILT.session)
    facts = [message.message_id for message in BUILT.messages if is_fact(message.subject)]
    batches = {
        message.message_id: decode_batch(message.data).base_ns
        for message in BUILT.messages
        if not is_fact(message.subject)
    }
    for start_s, stop_s in ((None, 30.0), (100.0, 130.0), (250.0, None), (0.0, SECONDS), (290.0, 10_000.0)):
        start = None if start_s is None else round(start_s * NS_PER_SECOND)
        stop = None if stop_s is None else round(stop_s * NS_PER_SECOND)
        found = [message async for message in replay_span(bus, BUILT.session, start_ns=start, stop_ns=stop, last=last)]
        assert [message.sequence for message in found] == sorted({message.sequence for message in found})
        assert [message.message_id for message in found if is_fact(message.subject)] == facts
        heard = {message.message_id for message in found if not is_fact(message.subject)}
        low, high = start or 0, stop if stop is not None else 1 << 62
        inside = {name for name, base_ns in batches.items() if low + NS_PER_SECOND <= base_ns < high - NS_PER_SECOND}
        near = {name for name, base_ns in batches.items() if low - NS_PER_SECOND <= base_ns < high + NS_PER_SECOND}
        assert inside <= heard <= near


def is_fact(subject: str) -> bool:
    return isinstance(parse(subject), FactSubject)
