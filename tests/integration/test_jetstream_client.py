"""A task that is cancelled while it waits for NATS ends, whatever comes at the same moment."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from contracts.jetstream.connection import Bus, connect
from ops.embedded import EmbeddedServer

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


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_server_that_is_gone_is_no_crash(tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]):
    """What is said to it meanwhile is dropped, and the connection closes without a word, on either event loop."""
    errors: list[str] = []

    async def outlive() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(str(context)))
        async with EmbeddedServer(tmp_path) as server:
            bus = await connect(server.url, name="test")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            await server.wait()
            async with asyncio.timeout(DEADLINE_S):
                while bus.client.is_connected:
                    await bus.client.publish("gone", b"word")
                    await asyncio.sleep(0)
            await bus.client.publish("gone", b"kept until it is back")
            async with asyncio.timeout(DEADLINE_S):
                await bus.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(outlive())
    assert errors == []
