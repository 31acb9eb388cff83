"""Placement with bounded foresight: a fold over the log that says, second by second, where packets belong, for good.

Decisions are made on a grid of session time: what belongs before a grid point is settled by the packets that came up to
SIGHT_NS after it, as soon as the log has passed that by PATIENCE_NS. So neither how the log was fed, nor pauses, nor a
state that was saved and restored changes anything, nor in which order the log has what came within PATIENCE_NS.

    add, own, pass_time (in the log's order) -> settled(): everything before horizon_tick, in its final place
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np

from contracts.clock import NS_PER_SECOND, ns_to_ticks
from mixer.pursuit import Pursuit
from mixer.replay import STAMP, SourceKey, Stamps
from mixer.room import Leap, Leg, common, is_steady
from mixer.settling import LifeInProgress, Notes, Settled, SourceInProgress, View
from mixer.skew import BORROW_SPAN_S, BORROWED_SKEW_SD, Belief

GRID_NS: Final = 4 * NS_PER_SECOND
SIGHT_NS: Final = 9 * NS_PER_SECOND
PATIENCE_NS: Final = 2 * NS_PER_SECOND  # what capture holds back for a key, or until a batch is full
LOOKAHEAD_NS: Final = GRID_NS + SIGHT_NS + PATIENCE_NS  # all in all
MARGIN_NS: Final = NS_PER_SECOND  # a packet may belong so much before the grid point at which it is settled
_NEVER: Final = 1 << 62


class _State(msgspec.Struct):
    clock_ns: int = -_NEVER
    grid_ns: int = GRID_NS
    sources: dict[str, SourceInProgress] = {}
    owners: dict[str, str] = {}
    skews: dict[str, Belief] = {}
    legs: list[Leg] = []


class _Talk:
    """One life in one decision."""

    def __init__(self, key: str, source: SourceInProgress, life: LifeInProgress) -> None:
        self.key, self.source, self.life = key, source, life
        self.view: View | None = None
        self.leaps: tuple[float, float, float] | None = None

    def look(self, sight_ns: int, legs: list[Leg]) -> None:
        """See what it shows."""
        self.view = self.source.look(self.life, sight_ns, legs)
        self.leaps = None if self.view.cells is None else self.life.pursuit.leap(self.view.cells)

    def leap_of(self, owner: str) -> Leap:
        """Its leap."""
        return Leap(self.source.take, owner, *(self.leaps or (0.0, 0.0, 0.0)))

    def is_steady(self, leg: Leg) -> bool:
        """Whether it went on as if nothing had been."""
        pursuit, found = self.life.pursuit, self.view and self.view.cells
        if not found or pursuit.offset_s is None or pursuit.stopping or self.source.take != leg.take:
            return False
        return is_steady(found, pursuit.over_s(found), pursuit.last_s, leg)


class FollowingPlacer:
    """The fold over one session. A batch that the log has twice must be added once."""

    def __init__(self) -> None:
        self._state = _State()
        self._settled: list[Settled] = []

    def add(self, take: int, ssrc: int, first_record: int, stamps: Stamps) -> None:
        """A batch as it stands in the log.

        Parameters
        ----------
        first_record
            Any number: `Settled.record` counts on from it, packet by packet.
        stamps
            Of its packets, dtype STAMP.
        """
        if not len(stamps):
            return
        key = _key(take, ssrc)
        source = self._state.sources.get(key)
        if source is None:
            first_s = int(stamps["arrival_ns"][0]) / NS_PER_SECOND
            source = self._state.sources[key] = SourceInProgress(take, ssrc, first_s)
        arrival_ns = stamps["arrival_ns"]
        if int(arrival_ns[0]) - self._state.grid_ns > LOOKAHEAD_NS:
            self._skip(int(arrival_ns.min()))
        source.queue.append((first_record, stamps))
        self.pass_time(int(arrival_ns[-1]))

    def own(self, take: int, ssrc: int, user_id: str) -> None:
        """Whose an SSRC is: people keep their clock when they come back."""
        self._state.owners[_key(take, ssrc)] = user_id

    def pass_time(self, at_ns: int) -> None:
        """The log has come to this time of the session clock."""
        state = self._state
        state.clock_ns = max(state.clock_ns, at_ns)
        self._skip(state.clock_ns)
        while state.grid_ns + SIGHT_NS + PATIENCE_NS <= state.clock_ns:
            self._decide(state.grid_ns, state.grid_ns + SIGHT_NS)
            state.grid_ns += GRID_NS

    def finish(self) -> None:
        """The log has ended: settle the rest."""
        self._decide(_NEVER, _NEVER)

    def settled(self) -> list[Settled]:
        """What was settled since the last call."""
        done, self._settled = self._settled, []
        return done

    @property
    def horizon_tick(self) -> int:
        """Everything that belongs before this session tick is settled."""
        return ns_to_ticks(self._state.grid_ns - GRID_NS - MARGIN_NS)

    def notes(self) -> dict[SourceKey, Notes]:
        """What was judged so far, by source."""
        return {
            (source.take, source.ssrc): source.notes.with_legs(source.take, source.first_s, self._state.legs)
            for source in self._state.sources.values()
        }

    def save(self) -> bytes:
        """The state; take out what was settled first, it is not in it."""
        return msgspec.msgpack.encode(self._state, enc_hook=_plain)

    @classmethod
    def restore(cls, saved: bytes) -> FollowingPlacer:
        """The fold that was saved."""
        placer = cls()
        placer._state = msgspec.msgpack.decode(saved, type=_State, dec_hook=_array)
        return placer

    def _decide(self, grid_ns: int, sight_ns: int) -> None:
        state = self._state
        waiting = [(key, source) for key, source in state.sources.items() if source.waits]
        for key, source in waiting:
            source.unpack(state.skews.get(self._owner(key), Belief()), state.grid_ns - GRID_NS)
        talks = [_Talk(key, source, life) for key, source in waiting for life in source.lives if len(life.waiting)]
        for talk in talks:
            if talk.life.may_be_due(grid_ns):
                talk.look(sight_ns, state.legs)
        if any(talk.leaps for talk in talks):
            self._watch_the_room(talks, sight_ns)
        for talk in talks:
            if talk.view is not None and talk.life.may_be_due(grid_ns):
                self._settled += talk.source.settle(talk.life, talk.view, grid_ns)
                self._remember(self._owner(talk.key), talk.life.pursuit)
        for _, source in waiting:
            source.forget_ended_lives()

    def _skip(self, at_ns: int) -> None:
        """Where nothing waits there is nothing to decide: a range of a log may begin hours after the session did."""
        state = self._state
        points = (at_ns - state.grid_ns - SIGHT_NS - PATIENCE_NS) // GRID_NS + 1
        if points > 1 and not any(source.waits for source in state.sources.values()):
            state.grid_ns += points * GRID_NS

    def _watch_the_room(self, talks: list[_Talk], sight_ns: int) -> None:
        """Somebody's delay leaps: find whether it was everybody's."""
        state = self._state
        for _ in talks:
            for talk in talks:
                talk.look(sight_ns, state.legs)
            shared = common(talk.leap_of(self._owner(talk.key)) for talk in talks if talk.leaps)
            leg = next((leg for leg in shared if not any(talk.is_steady(leg) for talk in talks)), None)
            if leg is None:
                return
            state.legs.append(leg)

    def _owner(self, key: str) -> str:
        return self._state.owners.get(key, key)

    def _remember(self, owner: str, pursuit: Pursuit) -> None:
        """What this life tells of its owner's clock, for their next."""
        if pursuit.span_s >= BORROW_SPAN_S:
            belief = pursuit.belief
            self._state.skews[owner] = Belief(belief.skew, max(belief.sd, BORROWED_SKEW_SD))


def _key(take: int, ssrc: int) -> str:
    return f"{take}.{ssrc}"


def _plain(value: Any) -> tuple[str, int, bytes]:
    """An array as its type (empty for stamps), its number of rows, and its bytes."""
    if not isinstance(value, np.ndarray):
        raise NotImplementedError(type(value))
    return "" if value.dtype == STAMP else value.dtype.str, len(value), value.tobytes()


def _array(_kind: type, value: Any) -> Any:
    dtype, rows, data = value
    return np.frombuffer(data, np.dtype(dtype)).reshape(rows, -1).copy() if dtype else np.frombuffer(data, STAMP)
