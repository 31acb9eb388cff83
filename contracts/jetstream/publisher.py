"""Publishing that loses nothing: pipelined acks, a deadline for each, and a retry with the same id until it is acked.

`publish_async` of nats-py hangs for ever on a server error and `await publish` costs 15 times more, so acks are ours:
one inbox, a counter as its last token, one callback. A timeout says nothing about what was stored; the id makes the
retry harmless. Messages go out in the order they were given, except for retries, and readers do not rely on it.

With a journal, every message is written down before it is sent. Then memory is bounded (what waits beyond it is read
back), and what was acked is sent again if the server restarts before it can have synced it to its disk: an ack means
"in the server's hands", `sync_interval` later it means "on its disk".
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import structlog
from nats.aio.msg import Msg
from nats.errors import BadSubscriptionError
from nats.errors import Error as NatsError

from contracts.errors import UnavailableError
from contracts.jetstream.connection import MESSAGE_ID_HEADER, Bus
from contracts.tasks import end_tasks

log = structlog.get_logger()

WINDOW: Final = 256  # messages under way; 25 packets each, so several thousand packets
ACK_DEADLINE_S: Final = 2.0
STALLED_TRIES: Final = 3
SWEEP_S: Final = 0.25
UNSYNCED_S: Final = 5.0  # the server's sync_interval is 1 s; the rest is for a disk that is slow
MEMORY_BYTES: Final = 8 * 1024 * 1024  # of messages that the journal holds as well
LAST_RESORT_BYTES: Final = 128 * 1024 * 1024  # of messages that nothing else holds: then the newest are dropped
RECENT_ACKS: Final = 256


class PubAck(msgspec.Struct, frozen=True):
    """JetStream's answer to a publication."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: dict[str, str | int] | None = None


class Journal(Protocol):
    """Where messages are written down before they are sent."""

    def append(self, subject: str, message_id: str, data: bytes) -> int | None:
        """Write a message down; where it stands, or None if it could not be."""

    def read(self, position: int) -> bytes:
        """The data of the message that stands there."""


class _Outgoing(msgspec.Struct, eq=False):
    """A message; `data` is None while only the journal holds it."""

    subject: str
    message_id: str
    data: bytes | None
    position: int | None
    mark_ns: int
    first_sent_s: float = 0.0
    sent_s: float = 0.0
    acked_s: float = 0.0
    tries: int = 0


_acks: msgspec.json.Decoder[PubAck] = msgspec.json.Decoder(PubAck)


class Publisher:
    """Takes messages without waiting, and keeps each until the server has it.

    Parameters
    ----------
    journal
        None = only memory holds what is not acked.
    may_send
        Asked before every send; while it says no, messages wait. A writer whose lease is in doubt is silent.
    keep_acked
        Whether what was acked is kept until the server can have synced it. Not for whoever compares at the end: what
        is published faster than it is synced would fill the memory.

    Attributes
    ----------
    acked, retried, duplicates, refused, dropped
        Counters: stored messages, sends beyond the first, acks that said `duplicate`, error answers, and messages that
        neither the server nor the disk would take until memory was full.
    ack_latency_s
        Age of the newest ack, from its last send.
    ack_latencies_s
        From first send to ack, of the last RECENT_ACKS messages.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        journal: Journal | None = None,
        may_send: Callable[[], bool] = lambda: True,
        keep_acked: bool = True,
    ) -> None:
        self._bus = bus
        self._journal = journal
        self._may_send = may_send
        self._keep_acked = keep_acked
        self._inbox = bus.client.new_inbox()
        self._waiting: deque[_Outgoing] = deque()
        self._under_way: dict[int, _Outgoing] = {}
        self._unsynced: deque[_Outgoing] = deque()
        self._memory_bytes = 0
        self._token = 0
        self._work = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._refused_said = self._stalled = False
        self.acked = self.retried = self.duplicates = self.refused = self.dropped = 0
        self.ack_latency_s = 0.0
        self.ack_latencies_s: deque[float] = deque(maxlen=RECENT_ACKS)

    async def start(self) -> None:
        """Listen for acks and begin to send."""
        self._subscription = await self._bus.client.subscribe(f"{self._inbox}.*", cb=self._on_ack)
        self._bus.on_reconnect.add(self._on_reconnect)
        self._tasks = [asyncio.create_task(self._send_all()), asyncio.create_task(self._sweep())]

    async def close(self) -> None:
        """Stop; what is not acked yet is not waited for (`drain` does). Harmless if done before or never started."""
        self._bus.on_reconnect.discard(self._on_reconnect)
        await end_tasks(*self._tasks)
        if self._tasks and not self._bus.client.is_closed:
            with contextlib.suppress(BadSubscriptionError):  # ended before
                await self._subscription.unsubscribe()

    @property
    def unacked(self) -> int:
        """Messages given but not known to be stored."""
        return len(self._waiting) + len(self._under_way)

    @property
    def oldest_mark_ns(self) -> int | None:
        """The least mark of what is not stored yet; None if everything is."""
        marks = [outgoing.mark_ns for outgoing in self._under_way.values()]
        if self._waiting:
            marks.append(self._waiting[0].mark_ns)
        return min(marks, default=None)

    def publish(self, subject: str, message_id: str, data: bytes, *, mark_ns: int = 0) -> None:
        """Take a message; it is sent soon, and again until it is acked.

        Parameters
        ----------
        mark_ns
            When what it holds began, on whatever clock the caller keeps: see `oldest_mark_ns`.
        """
        position = self._journal.append(subject, message_id, data) if self._journal is not None else None
        limit = LAST_RESORT_BYTES if position is None else MEMORY_BYTES
        fits = self._memory_bytes + len(data) <= limit
        if position is None and not fits:
            self.dropped += 1
            log.error("message_dropped", subject=subject, dropped=self.dropped)
            return
        self._memory_bytes += len(data) if fits else 0
        self._waiting.append(_Outgoing(subject, message_id, data if fits else None, position, mark_ns))
        self._empty.clear()
        self._work.set()

    async def drain(self, *, timeout_s: float | None) -> None:
        """Wait until everything given so far is stored; for ever if `timeout_s` is None.

        Raises
        ------
        UnavailableError
            If the server did not take it in time; the messages are kept, and sending goes on.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError as error:
            raise UnavailableError(f"{self.unacked} messages are not stored yet after {timeout_s:g} s") from error

    async def settle(self) -> None:
        """Wait until the server can have synced everything that it acked: only then may the journal go."""
        while self._unsynced or self.unacked:  # noqa: ASYNC110  # the sweep is a clock, not an event
            await asyncio.sleep(SWEEP_S)

    async def _send_all(self) -> None:
        while True:
            await self._work.wait()
            while self._waiting and len(self._under_way) < WINDOW and self._may_send():
                outgoing = self._waiting.popleft()
                self._token += 1
                self._under_way[self._token] = outgoing
                await self._send(self._token, outgoing)
            self._work.clear()

    async def _send(self, token: int, outgoing: _Outgoing) -> None:
        outgoing.sent_s = time.monotonic()
        outgoing.first_sent_s = outgoing.first_sent_s or outgoing.sent_s
        outgoing.tries += 1
        self.retried += outgoing.tries > 1
        try:
            await self._bus.client.publish(
                outgoing.subject,
                self._data_of(outgoing),
                reply=f"{self._inbox}.{token}",
                headers={MESSAGE_ID_HEADER: outgoing.message_id},
            )
        except (NatsError, OSError) as error:  # the sweep tries again
            log.warning("publish_delayed", subject=outgoing.subject, error=str(error) or type(error).__name__)

    def _data_of(self, outgoing: _Outgoing) -> bytes:
        if outgoing.data is not None:
            return outgoing.data
        if self._journal is None or outgoing.position is None:
            raise AssertionError("a message without data and without a place in the journal")  # ours
        return self._journal.read(outgoing.position)

    async def _on_ack(self, message: Msg) -> None:
        token = int(message.subject.rpartition(".")[2])
        outgoing = self._under_way.get(token)
        if outgoing is None:
            return  # acked before: this answers a retry
        ack = _decode_ack(message.data)
        if ack is None or ack.error:
            self.refused += 1
            if not self._refused_said:  # in an election, everything under way is refused
                self._refused_said = True
                log.warning("publish_refused", subject=outgoing.subject, tries=outgoing.tries, error=ack and ack.error)
            return  # the sweep tries again
        self._refused_said = False
        del self._under_way[token]
        self.acked += 1
        self.duplicates += ack.duplicate
        outgoing.acked_s = time.monotonic()
        self.ack_latency_s = outgoing.acked_s - outgoing.sent_s
        self.ack_latencies_s.append(outgoing.acked_s - outgoing.first_sent_s)
        self._bus.on_ack(self.ack_latencies_s[-1])
        self._keep_until_synced(outgoing)
        if self._waiting:
            self._work.set()
        elif not self._under_way:
            self._empty.set()

    def _keep_until_synced(self, outgoing: _Outgoing) -> None:
        if outgoing.position is not None or not self._keep_acked:
            self._forget_data(outgoing)  # the journal has it
        if self._keep_acked:
            self._unsynced.append(outgoing)

    def _forget_data(self, outgoing: _Outgoing) -> None:
        if outgoing.data is not None:
            self._memory_bytes -= len(outgoing.data)
            outgoing.data = None

    def _on_reconnect(self) -> None:
        """Send again what was under way, and what a server that restarted may have lost of what it acked.

        `_unsynced` is swept only while connected, so it holds what was acked shortly before the server went away.
        """
        again = [*self._unsynced, *self._under_way.values()]
        for outgoing in self._unsynced:
            outgoing.first_sent_s = 0.0  # that was acked once, and counted
        self._unsynced.clear()
        self._under_way.clear()
        self._waiting.extendleft(reversed(again))
        if self._waiting:
            self._empty.clear()
            self._work.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            if not self._bus.connected or not self._may_send():
                continue
            if self._waiting:
                self._work.set()
            now = time.monotonic()
            while self._unsynced and now - self._unsynced[0].acked_s > UNSYNCED_S:
                self._forget_data(self._unsynced.popleft())
            for token, outgoing in list(self._under_way.items()):
                if now - outgoing.sent_s > ACK_DEADLINE_S:
                    await self._send(token, outgoing)
            self._tell_stall()

    def _tell_stall(self) -> None:
        """Say when the server takes nothing for a while, though it is there, and when it does again."""
        stalled = any(outgoing.tries >= STALLED_TRIES for outgoing in self._under_way.values())
        if stalled and not self._stalled:
            log.error("publish_stalled", unacked=self.unacked)
        elif self._stalled and not stalled:
            log.info("publish_goes_on", unacked=self.unacked)
        self._stalled = stalled


def _decode_ack(data: bytes) -> PubAck | None:
    try:
        return _acks.decode(data)
    except msgspec.MsgspecError:
        return None  # "no responders": no stream takes the subject at this moment
