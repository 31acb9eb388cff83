r"""Bytes out of JetStream, by direct gets over a connection of their own that does nothing else.

A recording is gigabytes. nats-py reads 32 KiB at a time, searches them with six patterns and copies them four times;
here a message's payload is received where it stays:

    line     HMSG <inbox>.<request> <sid> <header bytes> <all bytes>\r\n     read into a small buffer
    payload  NATS/1.0 ... headers ..., then the data, \r\n                   received straight into the chunk

Nothing can pile up: whoever asks says how many messages may come, and asks again when they are used. If the connection
goes, whoever waits is told at once, and the next request opens another, to another server if there are several. One
that does not answer is taken for gone.

https://docs.nats.io/reference/reference-protocols/nats-protocol, ADR-31 (direct get, batched).
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final, cast
from urllib.parse import SplitResult, urlsplit

import msgspec
import structlog

from contracts.errors import UnavailableError
from contracts.jetstream.server import PORT, Server

log = structlog.get_logger()

LINE_BYTES: Final = 4096  # the longest line of the protocol; INFO may be longer
MAX_LINE_BYTES: Final = 64 * 1024
TIMEOUT_S: Final = 5.0
CRLF: Final = b"\r\n"


class ChunkGoneError(UnavailableError):
    """What was asked for is not there, or did not come in time."""


class ChunkDelayedError(ChunkGoneError):
    """It did not come in time, or the connection was lost: asked again, it may come."""


class _Answers:
    """What came for one request, until it is taken."""

    def __init__(self) -> None:
        self._ready: deque[tuple[bytes, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._lost = False

    def put(self, head: bytes, data: bytes) -> None:
        self._ready.append((head, data))
        self._wake()

    def lose(self) -> None:
        self._lost = True
        self._wake()

    async def take(self) -> tuple[bytes, bytes]:
        while not self._ready:
            if self._lost:
                raise ChunkDelayedError("the connection to the object store was lost")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._waiter
            except TimeoutError as error:
                raise ChunkDelayedError("the object store did not answer in time") from error
        return self._ready.popleft()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Wire(asyncio.BufferedProtocol):
    """The bytes of one connection, cut into messages."""

    def __init__(self) -> None:
        self._line = bytearray(LINE_BYTES)
        self._filled = 0  # of the line buffer
        self._payload: bytearray | None = None
        self._received = 0  # of the payload
        self._head_bytes = 0
        self._request = ""
        self.transport: asyncio.Transport | None = None
        self.info: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        self.waiting: dict[str, _Answers] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self.info.done():
            self.info.set_exception(exc or ConnectionError("closed"))
        for answers in self.waiting.values():
            answers.lose()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # asyncio's signature
        if self._payload is not None:
            return memoryview(self._payload)[self._received :]
        if self._filled == len(self._line):
            if self._filled >= MAX_LINE_BYTES:
                raise ConnectionError("a line of the server does not end")
            self._line.extend(bytes(len(self._line)))
        return memoryview(self._line)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._payload is not None:
            self._received += nbytes
            if self._received == len(self._payload):
                self._deliver(self._payload)
            return
        self._filled += nbytes
        self._read_lines()

    def _read_lines(self) -> None:
        """Every whole line in the buffer; what follows a message's line is the beginning of its payload."""
        while (end := self._line.find(CRLF, 0, self._filled)) >= 0:
            line = bytes(self._line[:end])
            rest = bytes(self._line[end + 2 : self._filled])
            self._filled = 0
            if line.startswith(b"HMSG "):
                rest = self._begin_payload(line, rest)
            else:
                self._obey(line)
            self._line[: len(rest)] = rest
            self._filled = len(rest)
            if self._payload is not None:
                return

    def _begin_payload(self, line: bytes, rest: bytes) -> bytes:
        """Start to receive a payload; what is left of `rest` behind it."""
        _, subject, _, head, size = line.split()
        self._request = subject.rpartition(b".")[2].decode()
        self._head_bytes = int(head)
        payload = bytearray(int(size) + len(CRLF))
        taken = min(len(rest), len(payload))
        payload[:taken] = rest[:taken]
        if taken == len(payload):
            self._deliver(payload)
            return rest[taken:]
        self._payload, self._received = payload, taken
        return b""

    def _deliver(self, payload: bytearray) -> None:
        self._payload = None
        view = memoryview(payload)
        if answers := self.waiting.get(self._request):
            answers.put(bytes(view[: self._head_bytes]), bytes(view[self._head_bytes : -len(CRLF)]))

    def _obey(self, line: bytes) -> None:
        if line == b"PING" and self.transport is not None:
            self.transport.write(b"PONG\r\n")
        elif line.startswith(b"INFO ") and not self.info.done():
            self.info.set_result(msgspec.json.decode(line[5:]))
        elif line.startswith(b"-ERR"):
            log.warning("chunks_refused", why=line.decode(errors="replace"))
            if self.transport is not None:
                self.transport.close()


class Chunks:
    """Fetches messages of streams by their sequence. Opened by the first request.

    Parameters
    ----------
    server
        As `connect` has it; several of a cluster are tried in turn.
    name
        Shown in the server's list of connections.
    """

    def __init__(self, server: Server, *, name: str) -> None:
        self._server = server
        self._urls = random.sample(server.urls, len(server.urls))  # so that clients spread over a cluster
        self._name = name
        self._inbox = f"{server.inbox_prefix}.{secrets.token_hex(8)}"
        self._requests = 0
        self._wire: _Wire | None = None
        self._opening = asyncio.Lock()

    async def fetch(self, stream: str, subject: str, sequence: int, count: int) -> AsyncGenerator[bytes, None]:
        """The data of `count` messages on a subject whose sequences follow one another, the first at `sequence`.

        Raises
        ------
        ChunkGoneError
            If one of them is not there any more.
        ChunkDelayedError
            If the server went away, or does not answer.
        """
        wire = await self._open()
        self._requests += 1
        request = str(self._requests)
        answers = wire.waiting[request] = _Answers()
        try:
            body = msgspec.json.encode({"seq": sequence, "next_by_subj": subject, "batch": count})
            self._publish(wire, f"$JS.API.DIRECT.GET.{stream}", f"{self._inbox}.{request}", body)
            for offset in range(count):
                head, data = await answers.take()
                _check(head, b"\r\nNats-Sequence: %d\r\n" % (sequence + offset))
                yield data
            head, _ = await answers.take()
            _check(head, b"NATS/1.0 204 ")  # the batch is complete
        except ChunkDelayedError:
            self._drop(wire)
            raise
        finally:
            wire.waiting.pop(request, None)

    def _drop(self, wire: _Wire) -> None:
        """Ask another server from now on; others who wait for this one are told."""
        if self._wire is wire:
            self.close()
            self._urls.append(self._urls.pop(0))

    def close(self) -> None:
        """Leave; a later request opens it again."""
        if self._wire is not None and self._wire.transport is not None:
            self._wire.transport.close()
        self._wire = None

    @staticmethod
    def _publish(wire: _Wire, subject: str, reply: str, body: bytes) -> None:
        if wire.transport is None:
            raise ChunkDelayedError("the connection to the object store was lost")
        wire.transport.write(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + CRLF)

    async def _open(self) -> _Wire:
        async with self._opening:
            if self._wire is None or self._wire.transport is None:
                self._wire = await self._reach()
            return self._wire

    async def _reach(self) -> _Wire:
        """A connection to the first server that takes one."""
        for last in [*[False] * (len(self._urls) - 1), True]:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    return await self._connect(urlsplit(self._urls[0]))
            except (OSError, TimeoutError, msgspec.MsgspecError) as error:
                self._urls.append(self._urls.pop(0))
                if last:
                    raise UnavailableError(f"the object store is not reachable: {error!r}") from error
        raise AssertionError

    async def _connect(self, url: SplitResult) -> _Wire:
        loop = asyncio.get_running_loop()
        transport, wire = await loop.create_connection(_Wire, url.hostname or "127.0.0.1", url.port or PORT)
        try:
            info = await wire.info
            if info.get("tls_required") or self._server.wants_tls:  # one that has none fails the handshake
                context = self._server.context()
                upgraded = await loop.start_tls(transport, wire, context, server_hostname=url.hostname)
                if upgraded is None:
                    raise ConnectionError("no TLS")  # noqa: TRY301  # closed below, like every failure
                transport = wire.transport = upgraded
            options: dict[str, object] = {"verbose": False, "pedantic": False, "headers": True, "protocol": 1}
            options |= {"name": self._name, "lang": "python", "version": "1", "no_responders": True}
            options |= self._server.credentials(url, str(info.get("nonce", "")))
            transport.write(b"CONNECT " + msgspec.json.encode(options) + CRLF)
            transport.write(f"SUB {self._inbox}.* 1\r\n".encode())
        except BaseException:
            with suppress(RuntimeError):
                transport.close()
            raise
        return wire


def _check(head: bytes, expected: bytes) -> None:
    """ChunkGoneError unless the headers say so: instead came a status, or a later message."""
    if expected not in head:
        raise ChunkGoneError
