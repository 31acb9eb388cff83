r"""All that one session writes: under its lease, by way of its spool, into its log and its entry in the directory.

open -> write, publish ... -> retire     the session is over: send the rest, verify, remove the spool
\-> hand_over  all of it is in the log, and another capture may write on
\-> close      this process ends: the spool stays for the next start
\-> erase      somebody erased the session: the spool goes at once
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, TypedDict, TypeVar

import structlog

from capture.clock import SessionClock
from capture.recovery import retire_spool
from capture.spool import Spool
from contracts import subjects
from contracts.directory import SessionEntry, fold_entry
from contracts.errors import UnavailableError
from contracts.events import Fact, SessionFact, encode_fact
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import put_entry
from contracts.jetstream.leases import Lease, LeaseHeldError, take_lease
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.streams import create_session
from contracts.packets import PacketBatch, encode_batch
from contracts.tasks import end_tasks

log = structlog.get_logger()

RENEW_S: Final = 2.0  # of a lease of LEASE_S
RENEW_LOST_S: Final = 0.25  # after an outage: nothing is sent before

F = TypeVar("F", bound=Fact)


class WritingState(TypedDict):
    """How the writing goes: fields of `contracts.commands.LiveSession`."""

    unacked_batches: int
    spool_bytes: int
    spool_failures: int
    dropped_batches: int
    ack_latency_s: float
    ack_p50_s: float
    ack_p99_s: float
    resent: int


class About(TypedDict):
    """What a session is: fields of `contracts.commands.LiveSession`."""

    name: str
    started_by: str | None
    started_unix_ns: int
    notes: int
    people: dict[str, str]
    panel_channel_id: str | None
    panel_message_id: str | None


class SessionWriter:
    """The only writer of a session, as long as it holds the session's lease.

    Parameters
    ----------
    spool
        Where its messages are written down before they are sent.
    owner
        This capture, as its lease names it.
    entry
        As the directory has it; None if the session is new.
    on_fenced
        Called when another capture has taken the lease: this one must not write any more.

    Attributes
    ----------
    ended
        Set when the session is over and durable.
    clock
        The session's.
    """

    def __init__(
        self,
        bus: Bus,
        session: str,
        *,
        spool: Spool,
        owner: str,
        clock: SessionClock,
        entry: SessionEntry | None,
        on_fenced: Callable[[], None],
    ) -> None:
        self.session = session
        self.ended = asyncio.Event()
        self._bus = bus
        self._spool = spool
        self._owner = owner
        self.clock = clock
        self._entry = entry
        self._on_fenced = on_fenced
        self._lease: Lease | None = None
        self._publisher = Publisher(bus, journal=spool, may_send=self._may_write)
        self._keeping: list[asyncio.Task[None]] = []
        self._retiring: asyncio.Task[None] | None = None
        self._handed_over = False

    async def open(self) -> None:
        """Take the lease, and make the stream if there is none.

        Raises
        ------
        LeaseHeldError
            If another capture has this session; nothing was written.
        UnavailableError
            If the server did not answer.
        """
        self._lease = await take_lease(self._bus, self.session, self._owner)
        await create_session(self._bus, self.session)
        await self._publisher.start()
        self._keeping = [
            asyncio.create_task(self._spool.keep_synced()),
            asyncio.create_task(self._keep_lease(self._lease)),
        ]

    def write(self, kind: type[F], *, at_ns: int | None = None, **fields: Any) -> F:
        """Write a fact of a kind that happened now, or at `at_ns` on the session clock; it is durable when acked."""
        moment = self.clock.now_ns() if at_ns is None else at_ns
        unix_ns = self.clock.zero_unix_ns + moment
        fact = kind(id=new_id(), session=self.session, at_ns=moment, unix_ns=unix_ns, **fields)
        self._store(fact)  # type: ignore[arg-type]  # every Fact that is instantiated is one of the union
        return fact

    def publish(self, batch: PacketBatch) -> None:
        """Write a batch of packets."""
        subject = subjects.packets(self.session, batch.take, batch.ssrc)
        self._publisher.publish(subject, batch.message_id, encode_batch(batch), mark_ns=batch.base_ns)

    async def save_entry(self) -> None:
        """Put the session's entry, as the facts so far make it, into the directory."""
        if self._entry is not None:
            await put_entry(self._bus, self._entry)

    def retire(self) -> None:
        """Nothing more will be written: send the rest, and set `ended` when it is durable."""
        self._retiring = asyncio.create_task(self._retire())

    async def hand_over(self, *, timeout_s: float) -> None:
        """Put everything so far into the log, and let another capture write on at once.

        Raises
        ------
        UnavailableError
            If the server did not take it in time; the spool has it.
        """
        await self._publisher.drain(timeout_s=timeout_s)
        await self.save_entry()
        self._handed_over = True

    async def close(self) -> None:
        """Leave the spool as it is, for the next start to look through: this process ends."""
        await self._end_tasks()
        self._spool.close()

    async def erase(self) -> None:
        """Somebody erased the session: the spool's copy goes at once, and nothing is sent any more."""
        await self._end_tasks()
        self._spool.remove()

    @property
    def retired(self) -> bool:
        """Whether everything is in the log, and nothing of it here."""
        return self._retiring is not None and self._retiring.done()

    @property
    def oldest_mark_ns(self) -> int | None:
        """Session clock of the oldest thing that is not stored yet; None if everything is."""
        return self._publisher.oldest_mark_ns

    def state(self) -> WritingState:
        """How it goes."""
        latencies_s = sorted(self._publisher.ack_latencies_s)
        return {
            "unacked_batches": self._publisher.unacked,
            "spool_bytes": self._spool.bytes,
            "spool_failures": self._spool.failures,
            "dropped_batches": self._publisher.dropped,
            "ack_latency_s": self._publisher.ack_latency_s,
            "ack_p50_s": latencies_s[len(latencies_s) // 2] if latencies_s else 0.0,
            "ack_p99_s": latencies_s[len(latencies_s) * 99 // 100] if latencies_s else 0.0,
            "resent": self._publisher.retried,
        }

    @property
    def people(self) -> frozenset[str]:
        """Ids of who was there so far."""
        return frozenset(self._entry.people if self._entry else ())

    def about(self, *, panel_channel_id: str | None) -> About:
        """What the session's entry says of it; the panel's channel is the one that is wanted until it is posted."""
        entry = self._entry
        return {
            "name": entry.name if entry else "",
            "started_by": entry.started_by if entry else None,
            "started_unix_ns": entry.started_unix_ns if entry else 0,
            "notes": len(entry.notes) if entry else 0,
            "people": dict(entry.people) if entry else {},
            "panel_channel_id": (entry.panel_channel_id if entry else None) or panel_channel_id,
            "panel_message_id": entry.panel_message_id if entry else None,
        }

    @property
    def unacked(self) -> int:
        """Messages that are not known to be stored."""
        return self._publisher.unacked

    def _store(self, fact: SessionFact) -> None:
        self._publisher.publish(subjects.facts(self.session), fact.id, encode_fact(fact), mark_ns=fact.at_ns)
        self._entry = fold_entry(self._entry, fact)

    def _may_write(self) -> bool:
        return self._lease is not None and self._lease.held

    async def _keep_lease(self, lease: Lease) -> None:
        """Renew until cancelled; stop writing as soon as another capture has it."""
        try:
            while True:
                await asyncio.sleep(RENEW_S if lease.held else RENEW_LOST_S)
                try:
                    await lease.renew()
                except LeaseHeldError:
                    log.error("recording_fenced", session=self.session)  # noqa: TRY400  # an alarm, no bug
                    self._on_fenced()
                    return
                except UnavailableError as error:
                    log.warning("lease_not_renewed", session=self.session, reason=str(error))
        finally:
            if (self.ended.is_set() or self._handed_over) and self._bus.connected:
                with contextlib.suppress(LeaseHeldError, UnavailableError):  # another's, or it expires by itself
                    await asyncio.shield(lease.release())

    async def _retire(self) -> None:
        """When the server can have synced it all, and has it all by name, the spool's copy may go."""
        await self._publisher.drain(timeout_s=None)
        await self.save_entry()
        self.ended.set()
        await self._publisher.settle()
        await self._publisher.close()
        await end_tasks(*self._keeping)
        await retire_spool(self._bus, self.session, self._spool)

    async def _end_tasks(self) -> None:
        await end_tasks(self._retiring, *self._keeping)
        await self._publisher.close()
