"""The work queue of renders, and the facts that tell how a render goes.

A job is acknowledged only after its result is durable; until then beats keep it from being given to another mixer, and
a mixer that dies loses nothing but time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec
import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from contracts.artifacts import (
    AnyRenderFact,
    RenderCancelled,
    RenderFailed,
    RenderJob,
    RenderStored,
    decode_job,
    decode_render_fact,
    encode_job,
    encode_render_fact,
)
from contracts.errors import MalformedError, RetoldError, UnavailableError
from contracts.jetstream.connection import NS, RECONNECT_WAIT_S, Bus
from contracts.jetstream.pull import read_newest, read_stream
from contracts.streams import ACK_WAIT_S, JOBS, MAX_DELIVER, RENDER_CONSUMER, RENDERS
from contracts.subjects import JOBS_RENDER, render

log = structlog.get_logger()

T = TypeVar("T")

TAKE_EXPIRES_S: Final = 5.0
DONE_S: Final = 2.0
DONE_TRIES: Final = 6  # as long as an election lasts
MAX_RENDERS_WAITING: Final = 1000  # consumer limit max_ack_pending: jobs under way over all mixers


async def submit_job(bus: Bus, job: RenderJob) -> None:
    """Queue a job; the same id again within a minute is dropped."""
    await bus.publish(JOBS_RENDER, encode_job(job), message_id=job.id)


async def mixers_are_at_it(bus: Bus) -> bool:
    """Whether one asks for jobs, or has some."""
    try:
        consumer = await bus.api(f"CONSUMER.INFO.{JOBS.name}.{RENDER_CONSUMER}")
    except RetoldError:  # no mixer was ever here, or whoever asks may not know
        return False
    return bool(consumer["num_waiting"] or consumer["num_ack_pending"])


class Delivery:
    """A job that this mixer was given.

    Attributes
    ----------
    attempt
        Counts from 1.
    """

    def __init__(self, message: Msg, job: RenderJob) -> None:
        self._message = message
        self.job = job
        self.attempt: int = message.metadata.num_delivered

    @property
    def last_attempt(self) -> bool:
        """Whether the queue will not give it out again."""
        return self.attempt >= MAX_DELIVER

    async def beat(self) -> None:
        """Still at it: wait for another ACK_WAIT_S seconds."""
        with contextlib.suppress(NatsError):  # the next beat may come through
            await self._message.in_progress()

    async def done(self) -> None:
        """The result is durable; if nobody hears that, it is given out once more, and found done."""
        for _ in range(DONE_TRIES):
            try:
                await self._message.ack_sync(timeout=DONE_S)
            except (NatsError, TimeoutError) as error:
                log.info("job_not_acknowledged", job=self.job.id, why=str(error) or type(error).__name__)
                await asyncio.sleep(RECONNECT_WAIT_S)
            else:
                return

    async def retry(self, delay_s: float) -> None:
        """Give it out again after `delay_s` seconds."""
        await self._message.nak(delay=delay_s)

    async def give_up(self) -> None:
        """Never give it out again."""
        await self._message.term()


class JobQueue:
    """A place at the work queue for this process; use as an async context."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._inbox = bus.client.new_inbox()
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self.malformed = 0

    async def __aenter__(self) -> Self:
        """Join the consumer that all mixers share, made if it is not there."""
        await self._join()
        self._subscription = await self._bus.client.subscribe(self._inbox, cb=self._queue.put)
        return self

    async def _join(self) -> None:
        config = {
            "durable_name": RENDER_CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_S * NS,
            "max_deliver": MAX_DELIVER,
            "max_ack_pending": MAX_RENDERS_WAITING,
            "filter_subject": JOBS_RENDER,
        }
        await self._bus.api(
            f"CONSUMER.CREATE.{JOBS.name}.{RENDER_CONSUMER}.{JOBS_RENDER}",
            {"stream_name": JOBS.name, "config": config},
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave: what came but was not taken goes back; jobs taken but not done go out again after ACK_WAIT_S."""
        if self._bus.client.is_connected:
            await self._subscription.drain()  # type: ignore[no-untyped-call]  # nats-py does not annotate it
        while not self._queue.empty():
            if (message := self._queue.get_nowait()).reply:
                await message.nak()

    async def take(self, *, timeout_s: float = TAKE_EXPIRES_S) -> Delivery | None:
        """The next job, or None if none came within `timeout_s` seconds. Malformed jobs are terminated and counted.

        Raises
        ------
        JetStreamError
            If the queue itself is gone.
        """
        body = {"batch": 1, "expires": int(timeout_s * NS)}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{JOBS.name}.{RENDER_CONSUMER}"
        await self._bus.client.publish(subject, msgspec.json.encode(body), reply=self._inbox)
        try:
            async with asyncio.timeout(timeout_s + 1):
                message = await self._queue.get()
        except TimeoutError:
            return None
        if not message.reply:
            await self._closed(message)
            return None
        try:
            return Delivery(message, decode_job(message.data))
        except MalformedError as error:
            self.malformed += 1
            log.exception("job_malformed", reason=str(error))
            await message.term()
            return None

    async def _closed(self, message: Msg) -> None:
        """The request ended without a job. Mostly none came; but the consumer may be gone, and is made anew."""
        headers = message.headers or {}
        if headers.get("Status") not in {"404", "408"}:
            log.warning("job_queue_rejoined", status=headers.get("Status"), why=headers.get("Description"))
            await asyncio.sleep(RECONNECT_WAIT_S)
            with contextlib.suppress(UnavailableError):  # the next request tells again
                await self._join()


async def publish_render_fact(bus: Bus, fact: AnyRenderFact) -> None:
    """Tell how a render goes; durable when it returns."""
    await bus.publish(render(fact.session, fact.job), encode_render_fact(fact))


async def watch_render(bus: Bus, session: str, job: str) -> AsyncGenerator[AnyRenderFact, None]:
    """What a job tells, from the oldest fact that is kept; ends with the one after which nothing follows."""
    subscription = await bus.js.subscribe(
        render(session, job), ordered_consumer=True, idle_heartbeat=1, inactive_threshold=10
    )
    try:
        async for message in subscription.messages:
            fact = decode_render_fact(message.data)
            yield fact
            if is_final(fact):
                return
    finally:
        await subscription.unsubscribe()


async def watch_renders(bus: Bus, handler: Callable[[RenderStored | RenderFailed], Awaitable[None]]) -> None:
    """Hand every result of a render, as it passes from now on, to `handler`."""

    async def receive(_subject: str, data: bytes) -> None:
        fact = decode_render_fact(data)
        if isinstance(fact, RenderStored | RenderFailed):
            await handler(fact)

    await bus.subscribe("renders.*.*", receive)


async def failed_renders(bus: Bus) -> list[RenderFailed]:
    """Dead letters: renders of the last day that were given up, each with its reason, by when they were."""
    found: list[RenderFailed] = []
    async for message in read_stream(bus, RENDERS.name, filter_subject=RENDERS.subjects[0], last_per_subject=True):
        try:
            fact = decode_render_fact(message.data)
        except MalformedError:
            continue
        if isinstance(fact, RenderFailed) and not fact.retrying:
            found.append(fact)
    return sorted(found, key=lambda fact: fact.unix_ns)


def is_final(fact: AnyRenderFact) -> bool:
    """Whether nothing follows."""
    return isinstance(fact, RenderStored | RenderCancelled) or (isinstance(fact, RenderFailed) and not fact.retrying)


class CancelledJobError(RetoldError):
    """The job was cancelled."""


async def unless_cancelled(bus: Bus, job: RenderJob, making: Coroutine[Any, Any, T]) -> T:
    """What `making` returns, unless somebody cancels the job before or meanwhile: then it is ended.

    Raises
    ------
    CancelledJobError
        If it was cancelled.
    """
    watching = asyncio.create_task(_until_cancelled(bus, job))
    working = asyncio.create_task(making)
    try:
        await asyncio.wait({watching, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() or watching.exception() is not None:  # without a watch the job is made nevertheless
            return await working
        raise CancelledJobError
    finally:
        for task in (watching, working):
            task.cancel()
        await asyncio.gather(watching, working, return_exceptions=True)


async def _until_cancelled(bus: Bus, job: RenderJob) -> None:
    cancelled = asyncio.Event()

    async def receive(_subject: str, data: bytes) -> None:
        if isinstance(decode_render_fact(data), RenderCancelled):
            cancelled.set()

    subject = render(job.session, job.id)
    unsubscribe = await bus.subscribe(subject, receive)
    try:
        newest = await read_newest(bus, RENDERS.name, subject)
        if newest is None or not isinstance(decode_render_fact(newest.data), RenderCancelled):
            await cancelled.wait()
    finally:
        await unsubscribe()
