"""The log heard as it comes: messages in, the voices of each second out. A fold with bounded foresight.

    message -> facts, batches -> FollowingPlacer -> settled packets -> a decoder for each lane -> Block(voices)

The same code follows a running session and replays an old one. What comes out is a function of the log's messages in
their order, and of nothing else: a second is decoded as soon as all that can be in it has its place for good, whose
voice it is follows from what the log has said by then, and the state can be saved after any message and restored in
another process. Memory holds some fifteen seconds of packets, however long the session is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import msgspec
import numpy as np

from contracts.clock import NS_PER_SECOND, TICKS_PER_SECOND
from contracts.events import SessionEnded, SessionFact, SpeakerIdentified, TakeOpened, decode_fact, encode_fact
from contracts.packets import Outcome, PacketBatch
from mixer.columns import RollCall, SourceKey, batch_rows
from mixer.feed import Row, RowQueue, rows_of
from mixer.following import FollowingPlacer
from mixer.mix import mix_blocks
from mixer.opus import Samples
from mixer.records import Records
from mixer.replay import UNKNOWN_PREFIX, Session, SessionFold
from mixer.settling import Notes, Settled
from mixer.voice import LOOKAHEAD_TICKS, SourceDecoder, SourceState

LaneKey: TypeAlias = tuple[str, int, int, int]  # whose voice, take, SSRC, lane
LifeKey: TypeAlias = tuple[LaneKey, int]  # and which decoder of it

BLOCK_TICKS: Final = TICKS_PER_SECOND
PENDING_PACKETS: Final = 512  # batches wait for each other, to be taken apart together
PENDING_NS: Final = NS_PER_SECOND  # but no longer than this, by the session clock
IDLE_TICKS: Final = 300 * TICKS_PER_SECOND  # a lane that was silent for so long gets another decoder
KEPT_RECORDS: Final = 4096  # packets before the newest settled one that may still be settled: a minute and more


class Block(msgspec.Struct, frozen=True):
    """What sounds in [start, stop), ticks of the session clock: float32 (samples, 1) by whose voice it is."""

    start: int
    stop: int
    voices: dict[str, Samples]


class _SourceState(msgspec.Struct, array_like=True):
    """What is known of a source: batches that came, packets counted, and payloads that have no place yet."""

    take: int
    ssrc: int
    batches: int = 0  # all below came
    stray: set[int] = set()  # and these
    records: int = 0
    payloads: dict[int, bytes] = {}


class _LaneState(msgspec.Struct, frozen=True, array_like=True):
    key: LifeKey
    queued: list[tuple[int, bytes, bool, int, bytes, bytes]]  # the fields of rows
    decoder: SourceState


class HearingState(msgspec.Struct, frozen=True, array_like=True):
    """The fold between two messages."""

    placer: bytes
    facts: list[bytes]
    roll: tuple[list[tuple[int, int, bool]], int | None]
    own: list[SourceKey]
    owners: list[tuple[int, int, str, bool]]
    sources: list[_SourceState]
    lanes: list[_LaneState]
    ends: list[tuple[LaneKey, int, int]]
    next_tick: int


class _Lane:
    """A decoder and the packets that wait for it."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.queue = RowQueue(rows)
        self.decoder = SourceDecoder(self.queue)


class Hearing:
    """The fold. `apply` messages in the log's order and take `blocks`; `finish` once, and take them again.

    Parameters
    ----------
    records
        Where to keep what the report needs.
    """

    def __init__(self, records: Records | None = None) -> None:
        self._records = records
        self._roll = RollCall()
        self._log = SessionFold(self._roll)
        self._placer = FollowingPlacer()
        self._own: set[SourceKey] = set()
        self._owners: dict[SourceKey, tuple[str, bool]] = {}  # user, and whether a key told it
        self._sources: dict[SourceKey, _SourceState] = {}
        self._lanes: dict[LifeKey, _Lane] = {}
        self._ends: dict[LaneKey, tuple[int, int]] = {}  # end of the last packet, ticks; which decoder has it
        self._pending: list[PacketBatch] = []
        self._pending_packets = 0
        self._next_tick = 0  # of the next block
        self._known_tick = 0  # everything before it is known for good
        self.ended = False

    def session(self) -> Session:
        """What the log told so far; its sources hold no packets."""
        return self._log.session()

    def apply(self, subject: str, data: bytes) -> None:
        """The next message of the log."""
        match self._log.apply(subject, data):
            case PacketBatch() as batch:
                self._take_batch(batch)
            case None:
                pass
            case fact:
                self._take_apart()
                self._take_fact(fact)

    def blocks(self) -> Iterator[Block]:
        """Every block that is known for good and was not given yet."""
        while self._next_tick + BLOCK_TICKS <= self._known_tick:
            yield self._block(self._next_tick + BLOCK_TICKS)

    def finish(self, stop_tick: int) -> Iterator[Block]:
        """The log is at its end: the rest, up to `stop_tick`."""
        self.settle()
        while self._next_tick < stop_tick:
            yield self._block(min(self._next_tick + BLOCK_TICKS, stop_tick))

    def settle(self) -> None:
        """The log is at its end: every packet has its place."""
        self._take_apart()
        self._placer.finish()
        self._route(self._placer.settled())

    def pass_over(self) -> None:
        """In place of `blocks`, for whoever needs no sound."""
        self._lanes.clear()

    def notes(self) -> dict[SourceKey, Notes]:
        """What was judged so far, by source."""
        return self._placer.notes()

    def save(self) -> bytes:
        """The state after the last message and all blocks so far."""
        self._take_apart()
        return msgspec.msgpack.encode(
            HearingState(
                placer=self._placer.save(),
                facts=[encode_fact(fact) for fact in self._log.facts],
                roll=self._roll.save(),
                own=sorted(self._own),
                owners=[(*key, *owner) for key, owner in self._owners.items()],
                sources=list(self._sources.values()),
                lanes=[_lane_state(key, lane) for key, lane in self._lanes.items()],
                ends=[(key, *end) for key, end in self._ends.items()],
                next_tick=self._next_tick,
            )
        )

    def load(self, saved: bytes, log_subject: str) -> None:
        """Go on from there; `log_subject` is that of the session's facts."""
        state = msgspec.msgpack.decode(saved, type=HearingState)
        self._placer = FollowingPlacer.restore(state.placer)
        for data in state.facts:
            self._log.apply(log_subject, data)
            self.ended = self.ended or isinstance(decode_fact(data), SessionEnded)
        self._roll.load(state.roll)
        self._own = set(state.own)
        self._owners = {(take, ssrc): (user, by_key) for take, ssrc, user, by_key in state.owners}
        self._sources = {(source.take, source.ssrc): source for source in state.sources}
        for saved_lane in state.lanes:
            lane = self._lanes[saved_lane.key] = _Lane(_row(*fields) for fields in saved_lane.queued)
            lane.decoder.load(saved_lane.decoder)
        self._ends = {key: (end, number) for key, end, number in state.ends}
        self._next_tick = state.next_tick
        self._known_tick = self._placer.horizon_tick - LOOKAHEAD_TICKS

    def _take_fact(self, fact: SessionFact) -> None:
        if isinstance(fact, TakeOpened):
            self._own.add((fact.take, fact.ssrc))
        elif isinstance(fact, SpeakerIdentified):
            key, by_key = (fact.take, fact.ssrc), fact.by == "key"
            if by_key or not self._owners.get(key, ("", False))[1]:
                self._owners[key] = fact.user_id, by_key
                self._placer.own(*key, fact.user_id)
        self.ended = self.ended or isinstance(fact, SessionEnded)
        self._placer.pass_time(fact.at_ns)
        self._settle()

    def _take_batch(self, batch: PacketBatch) -> None:
        key = batch.take, batch.ssrc
        if key in self._own or not batch.packets:
            return
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = _SourceState(*key)
        if batch.number < source.batches or batch.number in source.stray:
            return
        source.stray.add(batch.number)
        while source.batches in source.stray:
            source.stray.remove(source.batches)
            source.batches += 1
        self._pending.append(batch)
        self._pending_packets += len(batch.packets)
        waited_ns = batch.base_ns - self._pending[0].base_ns
        if self._pending_packets >= PENDING_PACKETS or waited_ns >= PENDING_NS:
            self._take_apart()

    def _take_apart(self) -> None:
        """Give the batches that wait to the placer, in the log's order."""
        if not self._pending:
            return
        stamps = batch_rows(self._pending)[0]["stamp"].copy()
        first = 0
        for batch in self._pending:
            source = self._sources[batch.take, batch.ssrc]
            part = stamps[first : first + len(batch.packets)]
            self._placer.add(batch.take, batch.ssrc, source.records, part)
            if self._records is not None:
                self._records.hear(batch.take, batch.ssrc, part)
            for packet, ticks in zip(batch.packets, part["ticks"].tolist(), strict=True):
                if ticks and packet.outcome in (Outcome.VOICE, Outcome.SILENCE):
                    source.payloads[source.records] = packet.payload
                source.records += 1
            first += len(batch.packets)
        self._pending.clear()
        self._pending_packets = 0
        self._settle()

    def _settle(self) -> None:
        self._route(self._placer.settled())
        self._known_tick = self._placer.horizon_tick - LOOKAHEAD_TICKS

    def _route(self, settled: list[Settled]) -> None:
        for part in settled:
            if not len(part.record):
                continue
            source = self._sources[part.take, part.ssrc]
            if self._records is not None:
                self._records.settle(part)
            lane = self._lane_of(part)
            payloads = [source.payloads.pop(record, b"") for record in part.record.tolist()]
            sizes = np.fromiter(map(len, payloads), dtype=np.int32, count=len(payloads))
            packets = b"".join(payloads)
            lane.queue.put(rows_of(part.tick, part.ticks, part.silent, part.lost, sizes, packets))
            if len(source.payloads) > KEPT_RECORDS:
                oldest = int(part.record[-1]) - KEPT_RECORDS
                source.payloads = {record: data for record, data in source.payloads.items() if record > oldest}

    def _lane_of(self, part: Settled) -> _Lane:
        """The lane of settled packets; after a long silence a new one, as the old may be forgotten, or not yet."""
        key = (self._voice_of(part.take, part.ssrc), part.take, part.ssrc, part.lane)
        end, number = self._ends.get(key, (0, 0))
        if part.tick[0] > end + IDLE_TICKS:
            number += 1
        self._ends[key] = max(end, int(part.tick[-1] + part.ticks[-1])), number
        lane = self._lanes.get((key, number))
        if lane is None:
            lane = self._lanes[key, number] = _Lane()
        return lane

    def _is_over(self, key: LaneKey, number: int, tick: int) -> bool:
        end, newest = self._ends[key]
        return number < newest or end + IDLE_TICKS < tick

    def _voice_of(self, take: int, ssrc: int) -> str:
        return self._owners.get((take, ssrc), (f"{UNKNOWN_PREFIX}{ssrc}", False))[0]

    def _block(self, stop: int) -> Block:
        start, self._next_tick = self._next_tick, stop
        heard: dict[str, list[Samples]] = {}
        for key, lane in sorted(self._lanes.items()):
            if (block := lane.decoder.block(start, stop)) is not None:
                heard.setdefault(key[0][0], []).append(block)
            elif not lane.queue.rows and self._is_over(*key, start):
                del self._lanes[key]
        voices = {user: sum_ for user, blocks in heard.items() if (sum_ := mix_blocks(blocks)) is not None}
        return Block(start, stop, voices)


def _lane_state(key: LifeKey, lane: _Lane) -> _LaneState:
    rows = lane.queue.rows
    queued = [(row.tick, row.ticks.tobytes(), row.silent, row.lost, row.sizes.tobytes(), row.packets) for row in rows]
    return _LaneState(key, queued, lane.decoder.save())


def _row(tick: int, ticks: bytes, silent: bool, lost: int, sizes: bytes, packets: bytes) -> Row:  # noqa: FBT001  # as saved
    return Row(tick, np.frombuffer(ticks, np.int32), silent, lost, np.frombuffer(sizes, np.int32), packets)
