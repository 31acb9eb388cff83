"""One NATS connection.

nats-py's defaults give up after 60 tries and notice a frozen server after minutes; ours never give up and notice within
seconds. Errors that nats-py only whispers to its callback (permissions) are logged loudly.

In a cluster a stream whose leader died answers nobody until another is elected, after four to nine seconds. What is
harmless to ask twice is asked again meanwhile; what is stored has an id, or is compared with what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeVar

import msgspec
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.errors import APIError

from contracts.errors import RetoldError, UnavailableError
from contracts.jetstream.chunks import Chunks
from contracts.jetstream.client import CancellableClient
from contracts.jetstream.server import Server
from contracts.tasks import end_tasks

log = structlog.get_logger()

CONNECT_TIMEOUT_S: Final = 5.0
RECONNECT_WAIT_S: Final = 0.25
PING_INTERVAL_S: Final = 5
API_TIMEOUT_S: Final = 5.0
CLUSTER_API_TIMEOUT_S: Final = 2.5  # of one try: a leader that died takes the request with it
ELECTION_S: Final = 20.0  # two elections; a server waits four to nine seconds before it calls one
PUBLISH_TIMEOUT_S: Final = 3.0
WATCHDOG_S: Final = 2.0
WATCHDOG_TIMEOUT_S: Final = 3
PUBLISH_TRIES: Final = 5
MESSAGE_ID_HEADER: Final = "Nats-Msg-Id"
EXPECTED_LAST_HEADER: Final = "Nats-Expected-Last-Sequence"
NEVER_REACHED: Final = 2**63  # sequence number
STREAM_NOT_FOUND: Final = 10059  # JetStream's err_code
ELECTING: Final = {10008, 10009}  # no leader yet, or not this one
SERVICE_UNAVAILABLE: Final = 503
NS: Final = 1_000_000_000

T = TypeVar("T")
Handler = Callable[[bytes], Awaitable[bytes]]


class JetStreamError(RetoldError):
    """JetStream refused a request.

    Attributes
    ----------
    err_code
        The server's error code (`nats-server` errors.json), 0 if it gave none.
    """

    def __init__(self, message: str, err_code: int = 0) -> None:
        self.err_code = err_code
        super().__init__(message)


class PermissionDeniedError(RetoldError):
    """NATS refuses this service something that it needs; mend its permissions in nats.conf."""


class NobodyError(UnavailableError):
    """Nobody serves what was asked for."""


class SessionNotFoundError(RetoldError):
    """There is no such session; `retold sessions ls` lists them."""


class Bus:
    """A connection with its JetStream context. Made by `connect`."""

    def __init__(self, client: Client, chunks: Chunks, *, replicas: int = 0) -> None:
        self.client = client
        self.replicas = replicas  # copies of what is made here; 0 = as JOBS has it
        self.chunks = chunks  # another connection, for bytes alone
        self.js: JetStreamContext = client.jetstream(timeout=API_TIMEOUT_S)
        self.on_reconnect: set[Callable[[], None]] = set()  # called after every reconnect; must not block
        self.on_ack: Callable[[float], None] = _nobody  # told how long each publication took to be acked, seconds
        self.denied: str | None = None  # what the server last refused us for want of permission
        self._watchdog: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether the server is there right now."""
        return self.client.is_connected

    @property
    def clustered(self) -> bool:
        """Whether the server that we are connected to is one of several."""
        return bool(self.client._server_info.get("cluster"))  # noqa: SLF001  # nats-py tells it nowhere else

    async def insist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` returns; in a cluster it is made again while a leader is being elected.

        Only for what is harmless when it is done twice; raises UnavailableError as the last attempt did.
        """
        until_s = time.monotonic() + ELECTION_S
        while True:
            try:
                return await attempt()
            except UnavailableError:
                if not self.clustered or time.monotonic() >= until_s:
                    raise
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def close(self) -> None:
        """Send what is buffered and leave."""
        self.chunks.close()
        await end_tasks(self._watchdog)
        with contextlib.suppress(NatsError, OSError):  # the server went away meanwhile
            if self.client.is_connected:
                await self.client.drain()
            elif not self.client.is_closed:
                await self.client.close()

    def watch(self) -> None:
        """Notice a server that is connected but silent, by round trip: nats-py alone takes much longer."""
        self._watchdog = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCHDOG_S)
            if not self.client.is_connected:
                continue
            try:
                await self.client.flush(timeout=WATCHDOG_TIMEOUT_S)
            except (NatsError, TimeoutError):
                log.warning("nats_silent", seconds=WATCHDOG_TIMEOUT_S)
                await self.client.force_reconnect()

    async def check_permissions(self, *, writes: Iterable[str] = ()) -> None:
        """Try what this service will do, before it matters; nats-py only whispers it when something is refused.

        Parameters
        ----------
        writes
            Subjects on which an empty message is published. A stream that listens there does not store it.

        Raises
        ------
        PermissionDeniedError
            If the server refuses one of them, or has refused anything else so far.
        """
        for subject in writes:
            await self.client.publish(subject, headers={EXPECTED_LAST_HEADER: str(NEVER_REACHED)})
        for _ in range(2):  # nats-py's ping overtakes what is buffered, the first time
            await self.client.flush()
        if self.denied is not None:
            raise PermissionDeniedError(f"NATS refuses this service: {self.denied}. Mend its permissions in nats.conf.")

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """The reply to a request.

        Raises
        ------
        UnavailableError
            If nobody serves the subject, or no reply came within `timeout_s` seconds.
        """
        try:
            reply = await self.client.request(subject, data, timeout=timeout_s)
        except NoRespondersError as error:
            raise NobodyError(f"nobody answers on {subject}: is the service that serves it running?") from error
        except (NatsError, TimeoutError) as error:
            raise UnavailableError(f"no answer on {subject} within {timeout_s:g} s") from error
        return reply.data

    async def serve(self, subject: str, handler: Handler, *, queue: str = "") -> Callable[[], Awaitable[None]]:
        """Answer every request on a subject with what `handler` returns; each in a task of its own.

        What is returned ends it.
        """
        running: set[asyncio.Task[None]] = set()

        async def answer(message: Msg) -> None:
            await message.respond(await handler(message.data))

        async def receive(message: Msg) -> None:  # nats-py wants a coroutine
            task = asyncio.create_task(answer(message))
            running.add(task)
            task.add_done_callback(running.discard)

        return self._ender(await self.client.subscribe(subject, queue=queue, cb=receive))

    async def subscribe(
        self, subject: str, handler: Callable[[str, bytes], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        """Hand every message on a subject, as it passes, to `handler(subject, data)`; nothing is kept for later.

        What is returned ends it.
        """

        async def receive(message: Msg) -> None:
            await handler(message.subject, message.data)

        return self._ender(await self.client.subscribe(subject, cb=receive))

    def _ender(self, subscription: Subscription) -> Callable[[], Awaitable[None]]:
        async def unsubscribe() -> None:
            if not self.client.is_closed:
                await subscription.unsubscribe()

        return unsubscribe

    async def publish(
        self, subject: str, data: bytes, *, message_id: str = "", headers: dict[str, str] | None = None
    ) -> int:
        """Store one message, tried again with the same id; its stream sequence once it is durable.

        Raises
        ------
        UnavailableError
            If no stream took it in PUBLISH_TRIES tries, and in a cluster for as long as elections may last.
        """
        every = {**(headers or {}), MESSAGE_ID_HEADER: message_id or secrets.token_hex(8)}
        until_s = time.monotonic() + ELECTION_S
        tries = 0
        while True:
            tries += 1
            try:
                ack = await self.js.publish(subject, data, timeout=PUBLISH_TIMEOUT_S, headers=every)
            except (NatsError, TimeoutError) as error:
                patient = self.clustered and not _is_refusal(error) and time.monotonic() < until_s
                if tries >= PUBLISH_TRIES and not patient:
                    raise UnavailableError(f"the server did not store a message on {subject}: {error!r}") from error
                await asyncio.sleep(RECONNECT_WAIT_S)
            else:
                return ack.seq

    async def api(self, verb: str, body: object = None) -> dict[str, Any]:
        """JetStream's answer to `$JS.API.<verb>`; in a cluster it may be asked more than once.

        Raises
        ------
        JetStreamError
            If the server says no.
        UnavailableError
            If it does not answer.
        """
        data = b"" if body is None else msgspec.json.encode(body)
        return await self.insist(lambda: self._ask_api(verb, data))

    async def _ask_api(self, verb: str, data: bytes) -> dict[str, Any]:
        timeout_s = CLUSTER_API_TIMEOUT_S if self.clustered else API_TIMEOUT_S
        reply = await self.request(f"$JS.API.{verb}", data, timeout_s=timeout_s)
        answer: dict[str, Any] = msgspec.json.decode(reply)
        if "error" not in answer:
            return answer
        error = answer["error"]
        if error.get("err_code") in ELECTING:
            raise UnavailableError(f"{verb}: {error.get('description')}")
        raise JetStreamError(f"{verb}: {error.get('description')}", error.get("err_code", 0))


def _nobody(_seconds: float) -> None:
    """Nobody counts."""


def _is_refusal(error: Exception) -> bool:
    """Whether a server has said no for good, and not just that it cannot now."""
    return isinstance(error, APIError) and error.code != SERVICE_UNAVAILABLE


async def connect(where: Server | str, *, name: str, replicas: int = 0) -> Bus:
    """A connection to a NATS server with JetStream, or to one of a cluster; if that goes away, to another.

    Parameters
    ----------
    where
        The server as the settings have it (`Server.of`), or its URL alone; those of a cluster with commas between.
    name
        Shown in the server's list of connections.
    replicas
        Copies of the streams that are made; 0 = as the server's settings say, or as there are of those that are there.

    Raises
    ------
    UnavailableError
        If there is no server, no JetStream, or the credentials are wrong.
    """
    server = Server(url=where) if isinstance(where, str) else where
    errors: list[str] = []
    denied: list[str] = []
    established = False

    async def on_error(error: Exception) -> None:  # nats-py wants coroutines
        said, errors[:] = errors[:], [str(error) or type(error).__name__]
        if "permissions violation" in errors[0].lower():
            denied[:] = errors
            if established:
                bus.denied = errors[0]
        if established and errors != said:  # while a server is away, the same four times a second
            log.warning("nats_error", connection=name, error=errors[0])

    async def on_disconnect() -> None:
        if not client.is_closed and not client.is_draining:
            log.warning("nats_disconnected", connection=name)

    async def on_reconnect() -> None:
        log.info("nats_reconnected", connection=name)
        errors.clear()
        for callback in tuple(bus.on_reconnect):
            callback()

    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            client = CancellableClient(nkey=server.nkey)
            await client.connect(
                **server.client_options(),
                name=name,
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # it goes to asyncio.sleep
                ping_interval=PING_INTERVAL_S,
                max_outstanding_pings=2,
                connect_timeout=2,
            )
        bus = Bus(client, Chunks(server, name=f"{name} bytes"), replicas=replicas or server.replicas)
        await bus.api("INFO")
        bus.denied = denied[0] if denied else None
        established = True
        bus.watch()
    except (NatsError, OSError, TimeoutError, RetoldError) as error:
        why = errors[0] if errors else str(error) or type(error).__name__
        raise UnavailableError(
            f"no NATS server with JetStream at {server.said} (RETOLD_NATS_URL): {why}. "
            "Start one, or let `retold up` run everything."
        ) from error
    return bus
