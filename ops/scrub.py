"""Reads logs again and again, one at a time: what rots on a disk is told while backups still have it.

nats-server finds a damaged block when it reads it, and leaves out what stood there. SessionEnded says how many batches
each source has; who counts them, knows.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from contracts.directory import SessionEntry
from contracts.errors import MalformedError, RetoldError
from contracts.events import SessionEnded, TrackCount, decode_fact
from contracts.jetstream.connection import Bus
from contracts.jetstream.replay import replay
from contracts.packets import decode_batch
from contracts.subjects import FactSubject, PacketSubject, parse

log = structlog.get_logger()

EVERY_S: Final = 7 * 86_400.0  # each log; a backup is kept longer
PAUSE_S: Final = 30.0  # between two logs: half a day for a thousand of them, of some ten megabytes each
RIPE_S: Final = 3600.0  # what capture has on its disk is in the log by then
NS: Final = 1_000_000_000


async def read_through(bus: Bus, session: str) -> tuple[bool, tuple[str, ...]]:
    """Whether the session has ended, and what of its packets is not in its log, in words.

    Raises
    ------
    SessionNotFoundError, UnavailableError
        If it cannot be read.
    """
    count = Count()
    async for message in replay(bus, session):
        count.add(message.subject, message.data)
    return count.ended, count.missing


class Count:
    """What a log has of what its end promised, message by message."""

    def __init__(self) -> None:
        self._batches: dict[tuple[int, int], set[int]] = {}
        self._promised: tuple[TrackCount, ...] | None = None
        self._unreadable = 0

    def add(self, subject: str, data: bytes) -> None:
        """One more."""
        try:
            match parse(subject):
                case PacketSubject(take=take, ssrc=ssrc):
                    self._batches.setdefault((take, ssrc), set()).add(decode_batch(data).number)
                case FactSubject():
                    fact = decode_fact(data)
                    self._promised = fact.tracks if isinstance(fact, SessionEnded) else self._promised
                case _:
                    pass
        except MalformedError:
            self._unreadable += 1

    @property
    def ended(self) -> bool:
        """Whether the session's end was there."""
        return self._promised is not None

    @property
    def missing(self) -> tuple[str, ...]:
        """What was not, in words."""
        missing = [f"{self._unreadable} messages cannot be read"] if self._unreadable else []
        for track in self._promised or ():
            gone = set(range(track.batches)) - self._batches.get((track.take, track.ssrc), set())
            if gone:
                missing.append(f"take {track.take}, SSRC {track.ssrc}: {len(gone)} of {track.batches} batches")
        return tuple(missing)


class Scrub:
    """Which logs are damaged, as far as they were read.

    Parameters
    ----------
    clock_s
        Seconds that only grow.
    """

    def __init__(self, bus: Bus, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._clock_s = clock_s
        self._read_s: dict[str, float] = {}
        self._damaged: set[str] = set()
        self._next_s = 0.0

    @property
    def damaged(self) -> int:
        """Sessions whose log lacks something."""
        return len(self._damaged)

    async def step(self, entries: Iterable[SessionEntry], *, now_ns: int) -> None:
        """Read one more log, if one is due; those that are not here any more are forgotten."""
        here = {
            entry.session
            for entry in entries
            if entry.ended_unix_ns is not None
            and now_ns - entry.ended_unix_ns >= RIPE_S * NS
            and entry.keeping.archived is None  # bundles have checksums, and are compared when they come back
        }
        self._read_s = {session: read_s for session, read_s in self._read_s.items() if session in here}
        self._damaged &= here
        now_s = self._clock_s()
        due = [session for session in here if now_s - self._read_s.get(session, -EVERY_S) >= EVERY_S]
        if not due or now_s < self._next_s:
            return
        session = random.choice(due)  # noqa: S311  # whoever is started often gets to all of them
        self._read_s[session], self._next_s = now_s, now_s + PAUSE_S
        try:
            ended, missing = await read_through(self._bus, session)
        except RetoldError as error:
            del self._read_s[session]
            log.warning("log_unread", session=session, reason=str(error))
            return
        if missing or not ended:
            self._damaged.add(session)
            mend = f"retold restore WHERE --replace {session}"
            log.error("session_damaged", session=session, missing=missing or "its end", mend=mend)
        else:
            self._damaged.discard(session)
