"""Following a running session: a durable consumer on its stream, whose lag is the follower's distance from the head.

A message is acknowledged when it was taken in, and with it all before it. What the follower must see again after it was
killed it knows itself: it opens the consumer anew, at the message behind its saved state. While nothing comes it asks
again and again; an outage is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from contracts.errors import UnavailableError
from contracts.jetstream.connection import (
    MESSAGE_ID_HEADER,
    NS,
    RECONNECT_WAIT_S,
    STREAM_NOT_FOUND,
    Bus,
    JetStreamError,
    SessionNotFoundError,
)
from contracts.jetstream.pull import LogMessage
from contracts.streams import FOLLOW_CONSUMER, session_stream_name

log = structlog.get_logger()

REQUEST_MESSAGES: Final = 128
REQUEST_BYTES: Final = 2 * 1024 * 1024
EXPIRES_S: Final = 5.0
SILENCE_S: Final = 8.0  # a request without any answer for so long: the consumer is gone
ACK_WAIT_S: Final = 600  # whoever catches up is slow; what is given again is known by its sequence
MAX_UNACKED: Final = 1024


class FollowConsumer:
    """The consumer; an async context. Use `messages`, and `ack` them."""

    def __init__(self, bus: Bus, session: str, *, first: int) -> None:
        self._bus = bus
        self._session = session
        self._stream = session_stream_name(session)
        self._seen = first - 1
        self._inbox = bus.client.new_inbox()
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._unacked: deque[tuple[int, str]] = deque()

    async def __aenter__(self) -> Self:
        """Open the consumer at `first`; SessionNotFoundError if there is no such session."""
        self._subscription = await self._bus.client.subscribe(self._inbox, cb=self._queue.put)
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave; the consumer stays, and shows how far its follower came."""
        with contextlib.suppress(NatsError):
            await self._subscription.unsubscribe()

    async def delete(self) -> None:
        """Nobody follows any more."""
        with contextlib.suppress(JetStreamError, UnavailableError):
            await self._bus.api(f"CONSUMER.DELETE.{self._stream}.{FOLLOW_CONSUMER}")

    async def messages(self) -> AsyncGenerator[LogMessage, None]:
        """Every message from `first` on, those that are to come, too; `pending` tells how many are behind each.

        Raises
        ------
        SessionNotFoundError
            If the session was deleted.
        """
        while True:
            try:
                async for message in self._given():
                    if message.sequence > self._seen:
                        self._seen = message.sequence
                        yield message
            except (TimeoutError, NatsError) as error:
                log.info("follow_interrupted", session=self._session, why=str(error) or type(error).__name__)
            await self._reopen()

    async def ack(self, sequence: int) -> None:
        """All messages up to this one are taken in."""
        reply = ""
        while self._unacked and self._unacked[0][0] <= sequence:
            reply = self._unacked.popleft()[1]
        if reply:
            with contextlib.suppress(NatsError):  # only the lag is wrong then, until the next
                await self._bus.client.publish(reply, b"+ACK")

    async def _given(self) -> AsyncGenerator[LogMessage, None]:
        outstanding = 0
        while True:
            if outstanding <= REQUEST_MESSAGES // 2:
                await self._request()
                outstanding += REQUEST_MESSAGES
            async with asyncio.timeout(SILENCE_S):
                raw = await self._queue.get()
            if raw.reply:
                outstanding -= 1
                yield self._parse(raw)
            elif (left := _unanswered(raw)) is not None:
                outstanding -= left
            else:
                return

    async def _request(self) -> None:
        body = {"batch": REQUEST_MESSAGES, "max_bytes": REQUEST_BYTES, "expires": int(EXPIRES_S * NS)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{FOLLOW_CONSUMER}"
        await self._bus.client.publish(subject, msgspec.json.encode(body), reply=self._inbox)

    async def _reopen(self) -> None:
        while True:
            try:
                return await self._open()
            except UnavailableError:
                await asyncio.sleep(RECONNECT_WAIT_S)

    async def _open(self) -> None:
        """Make the consumer anew behind what was seen: the start of one that exists cannot be moved."""
        self._unacked.clear()
        while not self._queue.empty():
            self._queue.get_nowait()
        config = {
            "durable_name": FOLLOW_CONSUMER,
            "ack_policy": "all",
            "ack_wait": ACK_WAIT_S * NS,
            "max_ack_pending": MAX_UNACKED,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._seen + 1,
            "replay_policy": "instant",
            "num_replicas": 1,  # its follower knows where it was, and makes it anew if its server is gone
        }
        await self.delete()
        try:
            await self._bus.api(
                f"CONSUMER.CREATE.{self._stream}.{FOLLOW_CONSUMER}", {"stream_name": self._stream, "config": config}
            )
        except JetStreamError as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise SessionNotFoundError(f"session {self._session} is not there any more") from error
            raise

    def _parse(self, raw: Msg) -> LogMessage:
        """`$JS.ACK.<stream>.<consumer>.<delivered>.<sseq>.<cseq>.<time>.<pending>`."""
        tokens = raw.reply.split(".")
        sequence = int(tokens[5])
        self._unacked.append((sequence, raw.reply))
        return LogMessage(
            sequence=sequence,
            subject=raw.subject,
            message_id=(raw.headers or {}).get(MESSAGE_ID_HEADER, ""),
            data=raw.data,
            pending=int(tokens[8]),
        )


def _unanswered(raw: Msg) -> int | None:
    """How many messages of a request will not come any more; None if the consumer is gone."""
    headers = raw.headers or {}
    status = headers.get("Status", "")
    if status == "100":  # idle heartbeat
        return 0
    if status in {"408", "404"} or "Nats-Pending-Messages" in headers:  # nothing came; or REQUEST_BYTES are full
        return int(headers.get("Nats-Pending-Messages", REQUEST_MESSAGES))
    return None
