"""One look at a whole installation: streams and consumers, running sessions, the queue, the disk, what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

import msgspec

from contracts.artifacts import RenderFailed
from contracts.commands import Status
from contracts.directory import SessionEntry
from contracts.errors import RetoldError
from contracts.ids import is_id
from contracts.jetstream.advisories import Advisory, alarming_advisories
from contracts.jetstream.asking import ask_status
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import list_entries
from contracts.jetstream.jobs import failed_renders
from contracts.jetstream.lag import ConsumerLag, StreamLag, stream_lags
from contracts.jetstream.leases import held_leases
from contracts.keeping import ARCHIVE_AWAY, KEEPER
from contracts.streams import FOLLOW_CONSUMER, JOBS, RENDER_CONSUMER, session_stream_name
from ops.monitor import Monitor, ServerState
from ops.storage import Storage, storage_of

SLOW_S: Final = 15.0  # how old the directory, dead letters and advisories may be: they are whole streams to read
UNSURE_S: Final = 2.0  # the same, while the directory and the leases do not agree


class Slow(msgspec.Struct, frozen=True, kw_only=True):
    """What is read now and then."""

    running: tuple[SessionEntry, ...] = ()
    failed: tuple[RenderFailed, ...] = ()
    advisories: tuple[Advisory, ...] = ()


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How everything is at one moment.

    Attributes
    ----------
    running
        Sessions that have not ended, by the directory.
    recorded
        Ids of sessions that a capture holds the lease of.
    kept
        Whether a keeper works.
    archive_away
        Whether it cannot reach the archive.
    status
        What capture says; None if it does not answer, or was not asked.
    server
        What the server says of itself; None without its monitoring address.
    """

    unix_s: float
    streams: tuple[StreamLag, ...]
    running: tuple[SessionEntry, ...]
    recorded: frozenset[str]
    failed: tuple[RenderFailed, ...]
    advisories: tuple[Advisory, ...]
    storage: Storage
    kept: bool = True
    archive_away: bool = False
    status: Status | None = None
    server: ServerState | None = None

    @property
    def abandoned(self) -> tuple[SessionEntry, ...]:
        """Sessions that have not ended, and that nobody records."""
        return tuple(entry for entry in self.running if entry.session not in self.recorded)

    @property
    def jobs(self) -> StreamLag | None:
        """The queue of renders."""
        return next((stream for stream in self.streams if stream.stream == JOBS.name), None)

    @property
    def mixers_waiting(self) -> int:
        """Workers that ask for a job just now."""
        consumers = self.jobs.consumers if self.jobs else ()
        return sum(consumer.waiting for consumer in consumers if consumer.name == RENDER_CONSUMER)

    @property
    def oldest_job_s(self) -> float:
        """Age of the oldest job; 0 if there is none."""
        first = self.jobs.first_unix_s if self.jobs else None
        return 0.0 if first is None else max(0.0, self.unix_s - first)

    def follower_of(self, session: str) -> ConsumerLag | None:
        """The consumer of the mixer that follows a session, or did."""
        name = session_stream_name(session)
        stream = next((stream for stream in self.streams if stream.stream == name), None)
        consumers = stream.consumers if stream else ()
        return next((consumer for consumer in consumers if consumer.name == FOLLOW_CONSUMER), None)


class Lookout:
    """Looks again and again, at no more than has changed.

    Parameters
    ----------
    monitor
        The server's monitoring address; None = JetStream's API is asked.
    """

    def __init__(self, bus: Bus, monitor: Monitor | None) -> None:
        self._bus = bus
        self._monitor = monitor
        self._slow = Slow()
        self._slow_s = float("-inf")

    async def look(self, *, ask_capture: bool = True) -> Look:
        """How everything is now; UnavailableError if NATS does not answer."""
        streams, server = await self._read_server()
        leases = await held_leases(self._bus)
        recorded = frozenset(filter(is_id, leases))
        agree = recorded == {entry.session for entry in self._slow.running}
        if time.monotonic() - self._slow_s > (SLOW_S if agree else UNSURE_S):
            self._slow = await self._read_slow()
            self._slow_s = time.monotonic()
        status = None
        if ask_capture:
            with contextlib.suppress(RetoldError):
                status = await ask_status(self._bus)
        return Look(
            unix_s=time.time(),
            streams=tuple(streams),
            running=self._slow.running,
            recorded=recorded,
            kept=KEEPER in leases,
            archive_away=ARCHIVE_AWAY in leases,
            failed=self._slow.failed,
            advisories=self._slow.advisories,
            storage=storage_of(streams, server),
            status=status,
            server=server,
        )

    async def _read_server(self) -> tuple[list[StreamLag], ServerState | None]:
        """Streams, and the server's own figures; of a cluster's streams one server's monitoring tells a part only."""
        if self._monitor is None:
            return await stream_lags(self._bus), None
        streams = stream_lags(self._bus) if self._bus.clustered else self._monitor.stream_lags()
        return await asyncio.gather(streams, self._monitor.state())

    async def _read_slow(self) -> Slow:
        entries, failed, advisories = await asyncio.gather(
            list_entries(self._bus), failed_renders(self._bus), alarming_advisories(self._bus)
        )
        return Slow(
            running=tuple(entry for entry in entries if entry.ended_unix_ns is None),
            failed=tuple(failed),
            advisories=tuple(advisories),
        )
