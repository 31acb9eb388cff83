"""A task that is cancelled while it waits for NATS ends, whatever comes at the same moment."""

from __future__ import annotations

import asyncio

import pytest

from contracts.jetstream.connection import Bus

DEADLINE_S = 5.0


async def test_a_cancellation_that_comes_with_the_answer_is_heeded(bus: Bus):
    """Both in one turn of the loop: the answer must not hide that the task was told to end."""
    ended: list[str] = []

    async def wait() -> None:
        await bus.client.flush()
        ended.append("went on")

    task = asyncio.create_task(wait())
    async with asyncio.timeout(DEADLINE_S):
        while not bus.client._pongs:
            await asyncio.sleep(0)
    bus.client._pongs[-1].add_done_callback(lambda _pong: task.cancel())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == []
