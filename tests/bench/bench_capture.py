"""Capture's packet path: microseconds of CPU per packet for each stage and the whole, each beside its floor.

A stage's floor is the library call that it cannot do without; the whole's is a bare loop that receives, opens both
encryptions by the libraries' own functions, and publishes once per 25 packets. Keys, groups, sockets and server are
real; datagrams are sealed beforehand and sent by another process.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import davey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_decrypt

from capture.batches import Batcher
from capture.clock import boottime_ns
from capture.consent import Consent
from capture.take import Take
from capture.voice.dave import FrameOpener, Heard, Sealed
from capture.voice.reorder import Sequencer
from capture.voice.stamps import StampedReader
from capture.voice.transport import HEADER, open_datagram, opener, parse_header
from contracts.guilds import GuildSettings
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.streams import create_session
from contracts.packets import BATCH_PACKETS, Outcome, PacketBatch, encode_batch
from contracts.subjects import packets as packet_subject
from ops.embedded import EmbeddedServer
from ops.loopback.transport import AES_GCM, XCHACHA
from tests.sealed_call import SealedCall, opus

PACKETS: Final = 20_000
SSRC, SPEAKER = 4242, 1001
OPUS_BYTES: Final = 120
CLEAR_BYTES: Final = 16  # header and extension preamble
ELEMENT_BYTES: Final = 4
ROUNDS: Final = 3  # the best of them counts: the others carry the neighbours' load
RATE: Final = 5_000  # packets per second over the socket
FRAME_NS: Final = 20_000_000
DEADLINE_S: Final = 60.0
LENGTH: Final = struct.Struct(">H")
SENDER: Final = """
import socket, struct, sys, time
path, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
data, sends, at = open(path, "rb").read(), [], 0
while at < len(data):
    size = struct.unpack_from(">H", data, at)[0]
    sends.append(data[at + 2 : at + 2 + size])
    at += 2 + size
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.connect(("127.0.0.1", port))
start = time.monotonic()
for number, each in enumerate(sends):
    wait = start + number / rate - time.monotonic()
    if wait > 0:
        time.sleep(wait)
    out.send(each)
"""


def rows() -> Iterator[dict[str, Any]]:
    """CPU per packet of each stage, and of the whole."""
    yield _row("parse the header", _parse, _parse_floor)
    yield _row("open XChaCha20-Poly1305", lambda: _transport(XCHACHA), _xchacha_floor)
    yield _row("open AES-256-GCM", lambda: _transport(AES_GCM), _gcm_floor)
    yield _row("put in order", _order, None)
    yield _row("open DAVE", _dave, _dave_floor)
    yield _row("batch and encode", _batch, _batch_floor)
    yield _row("datagram to batch", lambda: _path(XCHACHA), _both_floor)
    yield _row("datagram to batch, AES-256-GCM", lambda: _path(AES_GCM), None)
    yield from asyncio.run(_over_the_wire())


def _row(name: str, stage: Callable[[], float], floor: Callable[[], float] | None) -> dict[str, Any]:
    value = min(stage() for _ in range(ROUNDS))
    least = None if floor is None else min(floor() for _ in range(ROUNDS))
    return _as_row(name, value, least)


def _as_row(name: str, value: float, floor: float | None) -> dict[str, Any]:
    ratio = None if floor is None else value / floor
    return {"name": f"capture: {name}, CPU per packet", "value": value, "unit": "us", "floor": floor, "ratio": ratio}


def _us(work: Callable[[], object]) -> float:
    """Microseconds of CPU per packet."""
    before = time.process_time()
    work()
    return (time.process_time() - before) / PACKETS * 1e6


class Sealed20k:
    """One speaker's datagrams, fresh: a group opens each frame once."""

    def __init__(self, mode: str = XCHACHA) -> None:
        self.call = SealedCall(SPEAKER, mode=mode)
        self.call.connection.named[SSRC] = SPEAKER
        frames = [self.call.say(SPEAKER, opus(number, OPUS_BYTES)) for number in range(PACKETS)]
        self.frames = frames
        self.datagrams = [self.call.datagram(each, sequence=n, ssrc=SSRC) for n, each in enumerate(frames)]

    @property
    def session(self) -> davey.DaveSession:
        session = self.call.connection.session
        assert session is not None
        return session


def _parse() -> float:
    sealed = Sealed20k()
    return _us(lambda: [parse_header(data) for data in sealed.datagrams])


def _parse_floor() -> float:
    sealed = Sealed20k()
    return _us(lambda: [HEADER.unpack_from(data) for data in sealed.datagrams])


def _transport(mode: str) -> float:
    sealed = Sealed20k(mode)
    unseal, header = opener(mode, sealed.call.cipher.key), parse_header(sealed.datagrams[0])
    return _us(lambda: [open_datagram(data, header, unseal) for data in sealed.datagrams])


def _xchacha_floor() -> float:
    sealed = Sealed20k()
    key = sealed.call.cipher.key
    return _us(lambda: [_open_xchacha(data, key) for data in sealed.datagrams])


def _open_xchacha(data: bytes, key: bytes) -> bytes:
    nonce = data[-4:] + bytes(20)
    return crypto_aead_xchacha20poly1305_ietf_decrypt(data[CLEAR_BYTES:-4], data[:CLEAR_BYTES], nonce, key)


def _gcm_floor() -> float:
    sealed = Sealed20k(AES_GCM)
    gcm = AESGCM(sealed.call.cipher.key)
    return _us(
        lambda: [
            gcm.decrypt(data[-4:] + bytes(8), data[CLEAR_BYTES:-4], data[:CLEAR_BYTES]) for data in sealed.datagrams
        ]
    )


def _order() -> float:
    order: Sequencer[int] = Sequencer()

    def work() -> None:
        for number in range(PACKETS):
            if number == order.expected:
                order.pass_next()
            elif not order.is_duplicate(number):
                order.push(number, number * FRAME_NS, number)
                order.release(number * FRAME_NS)

    return _us(work)


def _sealed(frames: list[bytes]) -> list[Sealed]:
    return [Sealed(n, n * 960, n * FRAME_NS, frame, 30) for n, frame in enumerate(frames)]


def _dave() -> float:
    sealed = Sealed20k()
    frames = FrameOpener(sealed.call.connection, lambda _: None)
    frames.user_id = SPEAKER
    waiting = _sealed(sealed.frames)
    return _us(lambda: [frames.push(each, 0) for each in waiting])


def _dave_floor() -> float:
    sealed = Sealed20k()
    session = sealed.session
    return _us(lambda: [session.decrypt(SPEAKER, davey.MediaType.audio, frame) for frame in sealed.frames])


def _heard() -> list[Heard]:
    frames = [opus(number, OPUS_BYTES) for number in range(PACKETS)]
    return [Heard(each, each.payload, Outcome.VOICE) for each in _sealed(frames)]


def _batch() -> float:
    batcher = Batcher(take=1, ssrc=SSRC, zero_ns=0, publish=encode_batch)
    heard = _heard()
    return _us(lambda: [batcher.add(each) for each in heard])


def _batch_floor() -> float:
    heard = _heard()
    starts = range(0, PACKETS, BATCH_PACKETS)
    batches = [
        PacketBatch(1, SSRC, n, 0, tuple(each.packet(0) for each in heard[start : start + BATCH_PACKETS]))
        for n, start in enumerate(starts)
    ]
    return _us(lambda: [encode_batch(batch) for batch in batches])


def _path(mode: str) -> float:
    sealed = Sealed20k(mode)
    written: list[bytes] = []
    take = _take(sealed, lambda batch: written.append(encode_batch(batch)))

    def work() -> None:
        for number, data in enumerate(sealed.datagrams):
            take.datagram(data, number * FRAME_NS)
            if number % 2 == 0:
                take.tick(number * FRAME_NS)
        take.finish()

    cost = _us(work)
    assert sum(track.outcomes["VOICE"] for track in take.counts()) == PACKETS
    return cost


def _take(sealed: Sealed20k, publish: Callable[[PacketBatch], None]) -> Take:
    return Take(
        consent=Consent(GuildSettings(guild_id="1")),
        number=1,
        zero_ns=0,
        connection=sealed.call.connection,
        publish=publish,
        identified=lambda _ssrc, _user: None,
    )


def _both_floor() -> float:
    sealed = Sealed20k()
    session, key = sealed.session, sealed.call.cipher.key

    def work() -> None:
        for data in sealed.datagrams:
            session.decrypt(SPEAKER, davey.MediaType.audio, _open_xchacha(data, key)[ELEMENT_BYTES:])

    return _us(work)


async def _over_the_wire() -> list[dict[str, Any]]:
    """Publishing alone, and the whole path, with a real socket and a real server."""
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedServer(Path(folder)) as server:
            bus = await connect(server.url, name="bench")
            wire = Wire(bus, Path(folder))
            rows = [
                _as_row("publish", await wire.publish(), await wire.publish_floor()),
                _as_row("socket to acknowledged batch", await wire.whole(), await wire.whole_floor()),
            ]
            await bus.close()
            return rows


class State:
    """What the reader needs of discord.py's connection state."""

    def __init__(self, receiver: socket.socket) -> None:
        self.socket = receiver


class Wire:
    """The path between a socket and a server."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self._bus = bus
        self._folder = folder

    async def publish(self) -> float:
        """25 packets a message, until every one is acknowledged."""
        session = await self._session()
        messages = self._messages()
        publisher = Publisher(self._bus)
        await publisher.start()
        before = time.process_time()
        for batch, data in messages:
            publisher.publish(packet_subject(session, 1, SSRC), batch.message_id, data)
            await asyncio.sleep(0)
        await publisher.drain(timeout_s=DEADLINE_S)
        cost = time.process_time() - before
        await publisher.close()
        return cost / PACKETS * 1e6

    async def publish_floor(self) -> float:
        """The client's own publish, without identity and acknowledgement."""
        session = await self._session()
        messages = self._messages()
        client = self._bus.client
        before = time.process_time()
        for _, data in messages:
            await client.publish(packet_subject(session, 1, SSRC), data)
            await asyncio.sleep(0)
        await client.flush()
        return (time.process_time() - before) / PACKETS * 1e6

    async def whole(self) -> float:
        """From the socket to acknowledged batches, as capture runs it."""
        session, sealed = await self._session(), Sealed20k()
        publisher = Publisher(self._bus)
        await publisher.start()

        def publish(batch: PacketBatch) -> None:
            publisher.publish(packet_subject(session, 1, SSRC), batch.message_id, encode_batch(batch))

        take = _take(sealed, publish)
        with _receiver() as receiver:
            reader = StampedReader(State(receiver), asyncio.get_running_loop(), take.datagram)
            reader.resume()
            sender = await self._send(sealed, receiver)
            before = time.process_time()
            while take.tap.streams.get(SSRC) is None or sum(self._recorded(take)) < PACKETS:
                await asyncio.sleep(0.025)
                take.tick(boottime_ns())
            take.finish()
            await publisher.drain(timeout_s=DEADLINE_S)
            cost = time.process_time() - before
            reader.stop()
            await sender.wait()
        await publisher.close()
        return cost / PACKETS * 1e6

    async def whole_floor(self) -> float:
        """Receive, open both encryptions, publish once per 25 packets."""
        session, sealed = await self._session(), Sealed20k()
        client, dave, key = self._bus.client, sealed.session, sealed.call.cipher.key
        opened: list[bytes] = []
        with _receiver() as receiver:
            receiver.settimeout(DEADLINE_S)
            sender = await self._send(sealed, receiver)
            before = time.process_time()
            for _ in range(PACKETS // BATCH_PACKETS):
                for _ in range(BATCH_PACKETS):
                    data = receiver.recv(2048)
                    opened.append(
                        dave.decrypt(SPEAKER, davey.MediaType.audio, _open_xchacha(data, key)[ELEMENT_BYTES:])
                    )
                await client.publish(packet_subject(session, 1, SSRC), b"".join(opened))
                opened.clear()
                await asyncio.sleep(0)
            await client.flush()
            cost = time.process_time() - before
            await sender.wait()
        return cost / PACKETS * 1e6

    @staticmethod
    def _recorded(take: Take) -> Iterator[int]:
        return (sum(track.outcomes.values()) for track in take.counts())

    @staticmethod
    def _messages() -> list[tuple[PacketBatch, bytes]]:
        batches: list[PacketBatch] = []
        batcher = Batcher(take=1, ssrc=SSRC, zero_ns=0, publish=batches.append)
        for each in _heard():
            batcher.add(each)
        return [(batch, encode_batch(batch)) for batch in batches]

    async def _session(self) -> str:
        session = new_id()
        await create_session(self._bus, session)
        return session

    async def _send(self, sealed: Sealed20k, receiver: socket.socket) -> asyncio.subprocess.Process:
        """A process that sends the datagrams."""
        path = self._folder / "datagrams"
        path.write_bytes(b"".join(LENGTH.pack(len(data)) + data for data in sealed.datagrams))
        port = receiver.getsockname()[1]
        return await asyncio.create_subprocess_exec(sys.executable, "-c", SENDER, str(path), str(port), str(RATE))


def _receiver() -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    receiver.setblocking(False)
    return receiver
