"""JetStream, the directory, the queue and the disk, for Prometheus: what no single service knows.

JetStream's figures have prometheus-nats-exporter's names. Streams and consumers of sessions are there while the session
runs; the rest is sums, so that a thousand old sessions are no thousand series.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

import structlog

from contracts.errors import RetoldError
from contracts.jetstream.advisories import ALARMING, Advisory, watch_advisories
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.lag import ConsumerLag, StreamLag
from contracts.jetstream.server import Server
from contracts.metrics import declared
from contracts.metrics.endpoint import serve_metrics
from contracts.metrics.figures import Figures, Reading, connection_readings
from contracts.settings import Settings
from contracts.streams import OBJECT_PREFIX, SESSION_PREFIX, session_stream_name
from ops.look import Look, Lookout
from ops.monitor import Monitor
from ops.race import beside
from ops.storage import DAY_S

log = structlog.get_logger()

LOOK_EVERY_S: Final = 2.0  # Prometheus asks every three
LOOK_SHARE: Final = 20.0  # of the time that a look took: with thousands of sessions it is one in twenty, not more
MOST_S: Final = 10.0
STALE_S: Final = 20.0  # a look that is older is not told: nothing is better than what was true once


class Exporter:
    """Looks every few seconds, and has what it saw ready.

    Parameters
    ----------
    figures
        Where it is exported.
    """

    def __init__(self, bus: Bus, lookout: Lookout, figures: Figures) -> None:
        self._bus = bus
        self._lookout = lookout
        self._seen: Look | None = None
        self._seen_s = 0.0
        self._advisories = figures.counter(declared.ADVISORIES)
        for kind in ALARMING:
            self._advisories.labels(kind)  # from 0 on: a rate needs a beginning
        figures.read(self._read)

    async def run(self) -> None:
        """Look until cancelled."""
        await watch_advisories(self._bus, self._count)
        clock = asyncio.get_running_loop().time
        while True:
            begun_s = clock()
            try:
                self._seen = await self._lookout.look(ask_capture=False)
                self._seen_s = clock()
            except RetoldError as error:
                log.warning("look_failed", reason=str(error))
            await asyncio.sleep(min(MOST_S, max(LOOK_EVERY_S, LOOK_SHARE * (clock() - begun_s))))

    def _count(self, advisory: Advisory) -> None:
        self._advisories.labels(advisory.kind).inc()

    def _read(self) -> Iterable[Reading]:
        if self._seen is None or asyncio.get_running_loop().time() - self._seen_s > STALE_S:
            return ()
        return look_readings(self._seen)


async def run(settings: Settings, *, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Raises
    ------
    UnavailableError
        If there is no NATS.
    """
    async with contextlib.AsyncExitStack() as stack:
        bus = await connect(Server.of(settings, "monitor"), name="metrics")
        stack.push_async_callback(bus.close)
        monitor = None
        if settings.nats_monitor_url:
            monitor = await stack.enter_async_context(Monitor(settings.nats_monitor_url))
        figures = Figures()
        figures.read(connection_readings(bus, {}))
        exporter = Exporter(bus, Lookout(bus, monitor), figures)
        await stack.enter_async_context(serve_metrics(figures, settings))
        await beside(stop.wait(), exporter.run())


def look_readings(look: Look) -> Iterator[Reading]:
    """A look as readings."""
    yield from _server_readings(look)
    live = {session_stream_name(session) for session in look.recorded | {entry.session for entry in look.running}}
    for stream in look.streams:
        if stream.stream in live or not stream.stream.startswith((SESSION_PREFIX, OBJECT_PREFIX)):
            yield from _stream_readings(stream)
    for entry in look.running:
        yield Reading(declared.SESSION_INFO, 1, (entry.session, entry.channel_name, entry.guild_name))
    yield Reading(declared.SESSIONS_STORED, look.storage.sessions)
    yield Reading(declared.SESSIONS_ABANDONED, len(look.abandoned))
    yield Reading(declared.KEPT, look.kept)
    yield Reading(declared.ARCHIVE_AWAY, look.archive_away)
    yield Reading(declared.STORED_BYTES, look.storage.log_bytes, ("log",))
    yield Reading(declared.STORED_BYTES, look.storage.file_bytes, ("files",))
    yield Reading(declared.STORED_BYTES, look.storage.other_bytes, ("other",))
    if look.storage.room_bytes is not None:
        yield Reading(declared.ROOM_BYTES, look.storage.room_bytes)
    if look.storage.days_left is not None:
        yield Reading(declared.STORAGE_LEFT, look.storage.days_left * DAY_S)
    yield Reading(declared.JOBS_QUEUED, look.jobs.messages if look.jobs else 0)
    yield Reading(declared.JOB_OLDEST, look.oldest_job_s)
    yield Reading(declared.GIVEN_UP, len(look.failed))


def _stream_readings(stream: StreamLag) -> Iterator[Reading]:
    labels = (stream.account, stream.stream)
    for metric, value in (
        (declared.STREAM_MESSAGES, stream.messages),
        (declared.STREAM_BYTES, stream.bytes),
        (declared.STREAM_FIRST, stream.first_sequence),
        (declared.STREAM_LAST, stream.last_sequence),
        (declared.STREAM_CONSUMERS, len(stream.consumers)),
        (declared.STREAM_SUBJECTS, stream.subjects),
    ):
        yield Reading(metric, value, labels)
    for consumer in stream.consumers:
        if consumer.durable:  # the others have names that are used once
            yield from _consumer_readings(consumer, (*labels, consumer.name))


def _consumer_readings(consumer: ConsumerLag, labels: tuple[str, ...]) -> Iterator[Reading]:
    for metric, value in (
        (declared.CONSUMER_PENDING, consumer.pending),
        (declared.CONSUMER_ACK_PENDING, consumer.ack_pending),
        (declared.CONSUMER_REDELIVERED, consumer.redelivered),
        (declared.CONSUMER_WAITING, consumer.waiting),
        (declared.CONSUMER_DELIVERED, consumer.delivered),
        (declared.CONSUMER_ACK_FLOOR, consumer.ack_floor),
    ):
        yield Reading(metric, value, labels)


def _server_readings(look: Look) -> Iterator[Reading]:
    for metric, value in (
        (declared.SERVER_STREAMS, len(look.streams)),
        (declared.SERVER_CONSUMERS, sum(len(stream.consumers) for stream in look.streams)),
        (declared.SERVER_MESSAGES, sum(stream.messages for stream in look.streams)),
        (declared.SERVER_BYTES, sum(stream.bytes for stream in look.streams)),
    ):
        yield Reading(metric, value)
    accounts: dict[str, int] = {}
    for stream in look.streams:
        accounts[stream.account] = accounts.get(stream.account, 0) + stream.bytes
    for account, used in accounts.items():
        yield Reading(declared.ACCOUNT_STORAGE, used, (account,))
    if look.server is not None:
        yield Reading(declared.FROZEN, len(look.server.frozen))
        numbers = look.server.numbers
        for metric, name in (
            (declared.SERVER_MAX_STORAGE, "config_max_storage"),
            (declared.SERVER_MAX_MEMORY, "config_max_memory"),
            *((metric, name) for name, metric in declared.VARZ.items()),
        ):
            if name in numbers:
                yield Reading(metric, numbers[name])
