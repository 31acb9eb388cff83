"""The reader's stamps are the kernel's, and no datagram is left behind."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from capture.clock import boottime_ns
from capture.voice.stamps import READS_PER_TURN, StampedReader

DEADLINE_S = 5.0
STAMP_ERROR_NS = 5_000_000  # sender and kernel read their clocks one after another, on a busy machine
BLOCKED_S = 0.3


class State:
    """What the reader needs of discord.py's connection state."""

    def __init__(self) -> None:
        self.socket = udp()


def udp() -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.setblocking(False)
    return receiver


class Heard:
    """Collects what the reader hands on."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[bytes, int]] = []

    def __call__(self, data: bytes, arrival_ns: int) -> None:
        self.datagrams.append((data, arrival_ns))

    async def wait(self, count: int) -> None:
        """Until so many have come."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.datagrams) < count:  # a plain callback
                await asyncio.sleep(0.002)


class Reading:
    """A reader with its state, its ears, and a sender."""

    def __init__(self) -> None:
        self.state = State()
        self.heard = Heard()
        self.reader = StampedReader(self.state, asyncio.get_running_loop(), self.heard)
        self.sender = udp()

    def send(self, data: bytes) -> None:
        """To the socket that is read."""
        self.sender.sendto(data, self.state.socket.getsockname())


@pytest.fixture
async def reading() -> AsyncIterator[Reading]:
    each = Reading()
    each.reader.resume()
    yield each
    each.reader.stop()
    each.state.socket.close()
    each.sender.close()


async def test_stamps_are_true_while_the_loop_is_blocked(reading: Reading):
    """30 datagrams in 300 ms, none read meanwhile: each stamp is within a few ms of its sending."""
    sent: list[int] = []
    address = reading.state.socket.getsockname()

    def send() -> None:
        for number in range(30):
            sent.append(boottime_ns())
            reading.sender.sendto(bytes([number]), address)
            time.sleep(BLOCKED_S / 30)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()  # the event loop stands still
    await reading.heard.wait(30)
    assert [data[0] for data, _ in reading.heard.datagrams] == list(range(30))
    errors = [arrival_ns - sent_ns for (_, arrival_ns), sent_ns in zip(reading.heard.datagrams, sent, strict=True)]
    errors.sort()
    assert errors[0] > -STAMP_ERROR_NS
    assert errors[len(errors) * 9 // 10] < STAMP_ERROR_NS
    assert reading.reader.unstamped == 0


async def test_what_the_kernel_holds_at_a_pause_is_delivered(reading: Reading):
    """More than one turn's worth, each once, in order."""
    count = 3 * READS_PER_TURN + 5
    for number in range(count):
        reading.send(number.to_bytes(2))
    reading.reader.pause()
    assert [int.from_bytes(data) for data, _ in reading.heard.datagrams] == list(range(count))
    assert not reading.reader.is_alive()


async def test_reading_goes_on_with_the_next_socket(reading: Reading):
    """After a reconnect discord.py has another socket; what comes there is read, what came before is not lost."""
    reading.send(b"old")
    reading.reader.pause()
    reading.state.socket.close()
    reading.state.socket = udp()
    reading.reader.resume()
    assert reading.reader.is_alive()
    reading.send(b"new")
    await reading.heard.wait(2)
    assert [data for data, _ in reading.heard.datagrams] == [b"old", b"new"]


async def test_a_socket_closed_without_a_word_does_no_harm(reading: Reading):
    """Its number may be given to the next socket at once."""
    for number in range(5):
        descriptor = reading.state.socket.fileno()
        reading.state.socket.close()
        reading.state.socket = udp()
        assert reading.state.socket.fileno() == descriptor
        reading.reader.resume()
        reading.send(bytes([number]))
        await reading.heard.wait(number + 1)


async def test_resuming_twice_reads_once(reading: Reading):
    """The same socket is not registered again."""
    reading.reader.resume(force=True)
    reading.send(b"x")
    await reading.heard.wait(1)
    reading.reader.pause()
    reading.reader.pause()
    assert len(reading.heard.datagrams) == 1


async def test_listeners_get_the_bytes_until_they_leave(reading: Reading):
    """discord.py's IP discovery waits for its answer here, and takes itself off while it is called."""
    got: list[bytes] = []

    def once(data: bytes) -> None:
        got.append(data)
        reading.reader.unregister(once)

    reading.reader.register(once)
    reading.reader.register(got.append)
    reading.send(b"1")
    reading.send(b"2")
    await reading.heard.wait(2)
    assert got == [b"1", b"1", b"2"]
    reading.reader.unregister(once)


async def test_an_icmp_error_does_not_end_the_reading(reading: Reading):
    """Somebody whom we sent to is not there; what comes next is read."""
    gone = udp()
    nobody = gone.getsockname()
    gone.close()
    receiver = reading.state.socket
    receiver.connect(nobody)
    with suppress(ConnectionRefusedError):
        receiver.send(b"hello?")
        receiver.send(b"hello?")
    receiver.connect(reading.sender.getsockname())
    reading.send(b"x")
    await reading.heard.wait(1)


async def test_a_stamp_that_cannot_be_right_is_replaced(reading: Reading):
    """None at all, or one from before the wall clock was set: now, and it is counted."""
    before = boottime_ns()
    stamp = reading.reader._arrival_ns([], 0)
    assert before <= stamp <= boottime_ns()
    old = (socket.SOL_SOCKET, 35, bytes(16))
    assert before <= reading.reader._arrival_ns([old], 0) <= boottime_ns()
    assert reading.reader.unstamped == 2
