"""Leases: who may write to a session. KV bucket `leases`, one key per session; an entry that is not renewed goes away.

A capture has such leases on its shards, too (`shard.<number>`), and one that says that it lives (`capture.<name>`).
Taking and renewing are compare-and-set on the key's sequence, and a holder trusts its lease for less than LEASE_S since
it last asked to renew it (CLOCK_BOOTTIME, so also after its process or machine was suspended): two processes never both
believe that they hold it. The same owner (a capture that was killed and started again) takes its lease back at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from contracts.errors import RetoldError
from contracts.jetstream.cas import put_if
from contracts.jetstream.connection import Bus
from contracts.jetstream.pull import read_newest, read_stream
from contracts.streams import LEASE_S, LEASES_BUCKET
from contracts.tasks import end_tasks

RELEASED: Final = {"KV-Operation": "PURGE"}
RENEW_S: Final = 2.0
MARGIN_S: Final = 1.0  # for what was sent just before
_STREAM: Final = f"KV_{LEASES_BUCKET}"


class LeaseHeldError(RetoldError):
    """Another process has this lease: it records the session, or works on it."""


class _Holder(msgspec.Struct, frozen=True):
    owner: str


class Lease:
    """A held lease. Made by `take_lease`."""

    def __init__(self, bus: Bus, session: str, owner: str, sequence: int, asked_s: float) -> None:
        self._bus = bus
        self._session = session
        self._owner = owner
        self._sequence = sequence
        self._asked_s = asked_s
        self._released = False

    @property
    def held(self) -> bool:
        """Whether it is certain that nobody else has it at this moment."""
        return _now_s() - self._asked_s < LEASE_S - MARGIN_S

    async def renew(self) -> None:
        """Hold it for another LEASE_S seconds; nothing, once it is being released.

        Raises
        ------
        LeaseHeldError
            If somebody else has it now: stop writing.
        UnavailableError
            If the server did not answer: try again.
        """
        if self._released:
            return
        asked_s = _now_s()
        try:
            self._sequence = await _put(self._bus, self._session, _held_by(self._owner), self._sequence)
        except LeaseHeldError:
            if self._released:
                return
            lease = await _take(self._bus, self._session, self._owner)  # expired, or our own answer was lost
            self._sequence = lease._sequence  # noqa: SLF001  # of our own class
        self._asked_s = asked_s

    async def release(self) -> None:
        """Let others have it at once; raises as `renew` does, and leaves another's lease alone."""
        self._released = True
        try:
            await _put(self._bus, self._session, b"", self._sequence, **RELEASED)
        except LeaseHeldError:
            owner, sequence = await _standing(self._bus, self._session)
            if owner != self._owner:
                raise
            await _put(self._bus, self._session, b"", sequence, **RELEASED)  # a renewal of ours came in between


async def take_lease(bus: Bus, session: str, owner: str) -> Lease:
    """The lease of a session, free or our own.

    Raises
    ------
    LeaseHeldError
        If another owner has it.
    UnavailableError
        If the server did not answer.
    """
    return await bus.insist(lambda: _take(bus, session, owner))  # an answer that was lost: it is ours the next time


async def _take(bus: Bus, session: str, owner: str) -> Lease:
    asked_s = _now_s()
    holder, standing = await _standing(bus, session)
    if holder not in {"", owner}:
        raise LeaseHeldError(f"the lease of {session} is held by another process ({holder})")
    sequence = await _put(bus, session, _held_by(owner), standing)
    return Lease(bus, session, owner, sequence, asked_s)


async def _standing(bus: Bus, session: str) -> tuple[str, int]:
    """Who has a lease, empty if nobody, and the sequence of the key; 0 if it has none."""
    newest = await read_newest(bus, _STREAM, _key(session))
    if newest is None:
        return "", 0
    return msgspec.json.decode(newest.data, type=_Holder).owner if newest.data else "", newest.sequence


async def renewals(bus: Bus, hear: Callable[[str, str], Awaitable[None]]) -> None:
    """Hand key and owner of every lease of shards and captures to `hear`: those there are, and each that is renewed.

    Of one that is released, the owner is empty.
    """

    async def receive(subject: str, data: bytes) -> None:
        await hear(subject.split(".", 2)[2], msgspec.json.decode(data, type=_Holder).owner if data else "")

    for kind in ("shard", "capture"):
        subject = f"$KV.{LEASES_BUCKET}.{kind}.*"
        await bus.subscribe(subject, receive)
        async for message in read_stream(bus, _STREAM, filter_subject=subject, last_per_subject=True):
            await receive(message.subject, message.data)


async def is_leased(bus: Bus, session: str) -> bool:
    """Whether anybody has this lease."""
    newest = await read_newest(bus, _STREAM, _key(session))
    return newest is not None and bool(newest.data)


async def held_leases(bus: Bus) -> list[str]:
    """Every lease that is held, or was released or lost less than LEASE_S ago."""
    told = await bus.api(f"STREAM.INFO.{_STREAM}", {"subjects_filter": f"$KV.{LEASES_BUCKET}.*"})
    return [subject.rpartition(".")[2] for subject in told["state"].get("subjects") or ()]


def following(session: str) -> str:
    """The lease of whoever follows a session; the session's own is its recorder's."""
    return f"follow.{session}"


@contextlib.asynccontextmanager
async def holding(bus: Bus, session: str, owner: str) -> AsyncIterator[Lease]:
    """Hold the lease of a session, renewed all the time; raises as `take_lease`."""
    lease = await take_lease(bus, session, owner)

    async def keep() -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(RetoldError):
                await lease.renew()

    keeping = asyncio.create_task(keep())
    try:
        yield lease
    finally:
        await end_tasks(keeping)
        with contextlib.suppress(RetoldError):
            await lease.release()


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _held_by(owner: str) -> bytes:
    return msgspec.json.encode(_Holder(owner))


async def _put(bus: Bus, session: str, data: bytes, expected: int, **headers: str) -> int:
    """Write to the key, if the key is still as we saw it."""
    sequence = await put_if(bus, _key(session), data, expected, **headers)
    if sequence is None:
        raise LeaseHeldError(f"the lease of {session} changed hands")
    return sequence


def _key(session: str) -> str:
    return f"$KV.{LEASES_BUCKET}.{session}"
