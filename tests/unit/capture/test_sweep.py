"""Sockets are read together, none waits for another, and no stamp suffers from the waiting."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator

import pytest

from capture.clock import boottime_ns
from capture.voice.stamps import READS_PER_TURN, StampedReader
from capture.voice.sweep import sweep_of
from tests.listener import until

SOCKETS = 40
P95_NS = 1_000_000  # what an arrival stamp may differ from the time of sending
DEADLINE_S = 30.0
SENDS, PAUSE_S = 400, 0.004
SENDER = """
import socket, struct, sys, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect(("127.0.0.1", int(sys.argv[1])))
for number in range(int(sys.argv[2])):
    out.send(struct.pack(">Q", time.time_ns()))
    time.sleep(float(sys.argv[3]))
"""


class State:
    """What a reader needs of discord.py's connection state."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)


class Ears:
    """Readers of several sockets, and what each heard."""

    def __init__(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.states = [State() for _ in range(count)]
        self.heard: list[list[tuple[bytes, int]]] = [[] for _ in range(count)]
        self.readers = [
            StampedReader(state, loop, lambda data, at_ns, heard=heard: heard.append((data, at_ns)))
            for state, heard in zip(self.states, self.heard, strict=True)
        ]
        for reader in self.readers:
            reader.resume()

    def port(self, number: int) -> int:
        """Of one of the sockets."""
        return int(self.states[number].socket.getsockname()[1])

    def close(self) -> None:
        """Stop reading."""
        for reader, state in zip(self.readers, self.states, strict=True):
            reader.stop()
            state.socket.close()


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    each = Ears(SOCKETS)
    yield each
    each.close()


async def test_every_socket_is_read(ears: Ears):
    """Whatever came to any of them, also more than one turn reads, is handed on once and in order."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for number in range(SOCKETS):
            for count in range(READS_PER_TURN * 3 if number == 7 else 5):
                out.sendto(count.to_bytes(2), ("127.0.0.1", ears.port(number)))
    await until(lambda: all(ears.heard) and len(ears.heard[7]) == READS_PER_TURN * 3)
    await until(lambda: sum(map(len, ears.heard)) == READS_PER_TURN * 3 + 5 * (SOCKETS - 1))
    for number, heard in enumerate(ears.heard):
        assert [int.from_bytes(data) for data, _ in heard] == list(range(READS_PER_TURN * 3 if number == 7 else 5))


async def test_reading_ends_with_the_last_socket(ears: Ears):
    """Nothing is left behind when all are closed; the next socket begins anew."""
    first = sweep_of(asyncio.get_running_loop())
    ears.close()
    assert first.closed
    again = Ears(1)
    assert sweep_of(asyncio.get_running_loop()) is not first
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(b"x", ("127.0.0.1", again.port(0)))
    await until(lambda: again.heard[0])
    again.close()


async def test_stamps_are_true_on_a_busy_loop():
    """95 of 100 stamps are within 1 ms of the sender's clock, in another process, while the loop is kept busy."""
    ears = Ears(1)
    command = [sys.executable, "-c", SENDER, str(ears.port(0)), str(SENDS), str(PAUSE_S)]
    sender = await asyncio.create_subprocess_exec(*command)
    async with asyncio.timeout(DEADLINE_S):
        while len(ears.heard[0]) < SENDS:
            busy_until = time.monotonic() + 0.05
            while time.monotonic() < busy_until:
                sum(range(1000))
            await asyncio.sleep(0)
    assert await sender.wait() == 0
    wall_minus_boot_ns = time.time_ns() - boottime_ns()
    errors = sorted(abs(at_ns + wall_minus_boot_ns - int.from_bytes(data)) for data, at_ns in ears.heard[0])
    ears.close()
    assert len(errors) == SENDS
    assert errors[len(errors) * 95 // 100] < P95_NS, errors[:: len(errors) // 20]
