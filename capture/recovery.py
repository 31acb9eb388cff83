"""After a capture that died: put what only its spool holds into the log, and read from the log where it stood."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from typing import TypeAlias

import msgspec
import structlog

from capture.clock import SessionClock
from capture.spool import Spool
from capture.voice.reorder import Sequencer
from contracts.directory import SessionEntry, fold_entry
from contracts.errors import MalformedError, RetoldError
from contracts.events import (
    ConsentRuled,
    SessionEnded,
    SessionFact,
    SessionStarted,
    SpeakerAdmitted,
    SpeakerIdentified,
    SpeakerWithheld,
    TakeClosed,
    TakeOpened,
    TrackCount,
    decode_fact,
    encode_fact,
)
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import put_entry, was_erased
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.pull import read_stream
from contracts.jetstream.replay import replay
from contracts.jetstream.streams import create_session
from contracts.packets import Outcome, PacketBatch, decode_batch
from contracts.streams import session_stream_name
from contracts.subjects import FactSubject, facts, parse

log = structlog.get_logger()

STORE_TIMEOUT_S = 60.0

_Counted: TypeAlias = "tuple[array[int], bytes]"  # sequence numbers and outcomes of a batch: three bytes a packet


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session stood when its capture died.

    Attributes
    ----------
    open_take
        A take that has no end in the log; None if there is none.
    tracks
        What earlier takes recorded, counted from the log.
    consent
        The rule about being recorded.
    withheld
        Whose speech was not being written, and why, by user id.
    last_ns
        Session clock of the newest thing in the log.
    """

    started: SessionStarted
    entry: SessionEntry
    last_take: int
    open_take: int | None
    tracks: tuple[TrackCount, ...]
    consent: str
    withheld: dict[str, str]
    last_ns: int
    ended: bool

    def clock(self) -> SessionClock:
        """The session's clock, going on in this process."""
        started = self.started
        return SessionClock.resume(
            boot=started.boot_id, zero_boottime_ns=started.boottime_ns, zero_unix_ns=started.unix_ns
        )


async def store_missing(bus: Bus, session: str, spool: Spool) -> int:
    """Publish every message of the spool that the log does not have, however old; how many those were.

    Raises
    ------
    UnavailableError
        If the server did not take them in time.
    """
    await create_session(bus, session)
    if next(spool.messages(), None) is None:
        return 0
    stream = session_stream_name(session)
    stored = {message.message_id async for message in read_stream(bus, stream, headers_only=True)}
    publisher = Publisher(bus)
    await publisher.start()
    missing = 0
    try:
        for message in spool.messages():
            if message.message_id not in stored:
                publisher.publish(message.subject, message.message_id, message.data)
                missing += 1
        await publisher.drain(timeout_s=STORE_TIMEOUT_S)
    finally:
        await publisher.close()
    if missing:
        log.info("spool_drained", session=session, messages=missing)
    return missing


async def end_interrupted(bus: Bus, standing: Standing, spool: Spool) -> None:
    """Write the end of a session that cannot go on: it ended when its capture died.

    Raises
    ------
    UnavailableError
        If the server did not take it in time.
    """
    session, at_ns = standing.started.session, standing.last_ns
    unix_ns = standing.started.unix_ns + at_ns
    ended = SessionEnded(
        id=new_id(), session=session, at_ns=at_ns, unix_ns=unix_ns, cause="interrupted", tracks=standing.tracks
    )
    await bus.publish(facts(session), encode_fact(ended), message_id=ended.id)
    entry = fold_entry(standing.entry, ended)
    if entry is not None:
        await put_entry(bus, entry)
    log.info("session_interrupted", session=session, duration_s=at_ns / 1e9)
    await retire_spool(bus, session, spool)


async def retire_spool(bus: Bus, session: str, spool: Spool) -> None:
    """Remove the spool of a session that is over, once the log has every message of it, or that was erased."""
    try:
        if not await was_erased(bus, session):
            await store_missing(bus, session, spool)
    except RetoldError as error:
        log.warning("spool_kept", session=session, reason=str(error))
        spool.close()
    else:
        spool.remove()


async def read_standing(bus: Bus, session: str) -> Standing | None:
    """Where a session stands by its log; None if the log has no start.

    Raises
    ------
    SessionNotFoundError
        If there is no such session.
    """
    fold = _Fold()
    async for message in replay(bus, session):
        try:
            if isinstance(parse(message.subject), FactSubject):
                fold.fact(decode_fact(message.data))
            else:
                fold.batch(decode_batch(message.data))
        except MalformedError as error:
            log.warning("log_unreadable", session=session, sequence=message.sequence, error=str(error))
    return await asyncio.to_thread(fold.standing)  # seconds, of a long evening: others are being recorded here


class _Fold:
    def __init__(self) -> None:
        self._started: SessionStarted | None = None
        self._entry: SessionEntry | None = None
        self._opened: set[int] = set()
        self._closed: set[int] = set()
        self._users: dict[tuple[int, int], str] = {}
        self._consent = "notice"
        self._withheld: dict[str, str] = {}
        self._batches: dict[tuple[int, int], dict[int, _Counted]] = {}
        self._last_ns = 0
        self._ended = False

    def fact(self, fact: SessionFact) -> None:
        self._last_ns = max(self._last_ns, fact.at_ns)
        self._entry = fold_entry(self._entry, fact)
        match fact:
            case SessionStarted():
                self._started = self._started or fact
            case TakeOpened():
                self._opened.add(fact.take)
            case TakeClosed():
                self._closed.add(fact.take)
            case SpeakerIdentified():
                self._users[fact.take, fact.ssrc] = fact.user_id
            case ConsentRuled():
                self._consent = fact.mode
            case SpeakerWithheld():
                self._withheld[fact.user_id] = fact.why
            case SpeakerAdmitted():
                self._withheld.pop(fact.user_id, None)
            case SessionEnded():
                self._ended = True
            case _:
                pass

    def batch(self, batch: PacketBatch) -> None:
        packets = batch.packets
        self._batches.setdefault((batch.take, batch.ssrc), {})[batch.number] = (
            array("H", [packet.sequence for packet in packets]),
            bytes([packet.outcome for packet in packets]),
        )
        if packets:
            self._last_ns = max(self._last_ns, *map(batch.arrival_ns, packets))

    def standing(self) -> Standing | None:
        if self._started is None or self._entry is None:
            return None
        open_takes = self._opened - self._closed
        return Standing(
            started=self._started,
            entry=self._entry,
            last_take=max(self._opened, default=0),
            open_take=max(open_takes, default=None),
            tracks=tuple(self._count(*key, batches) for key, batches in sorted(self._batches.items())),
            consent=self._consent,
            withheld=self._withheld,
            last_ns=self._last_ns,
            ended=self._ended,
        )

    def _count(self, take: int, ssrc: int, batches: dict[int, _Counted]) -> TrackCount:
        order: Sequencer[None] = Sequencer()
        outcomes: Counter[int] = Counter()
        for _, (sequences, kinds) in sorted(batches.items()):
            outcomes.update(kinds)
            for sequence in sequences:
                if not order.is_duplicate(sequence):
                    order.push(sequence, 0, None)
        return TrackCount(
            take=take,
            ssrc=ssrc,
            batches=max(batches) + 1,
            outcomes=dict(sorted((Outcome(each).name, count) for each, count in outcomes.items())),
            user_id=self._users.get((take, ssrc)),
            lost=order.lost,
        )
