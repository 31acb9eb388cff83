"""How each running session goes, judged: the worst thing about it is its state, and the worst session comes first."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import msgspec

from contracts.commands import LiveSession
from contracts.directory import SessionEntry
from contracts.jetstream.lag import ConsumerLag
from ops.look import Look

UNHEARD_S: Final = 3.0  # capture itself notices a dead route within a second, and mends it
UNSAVED_S: Final = 10.0
SLOW_ACK_S: Final = 2.0
BEHIND_MESSAGES: Final = 10  # a follower that keeps up has none to five
TREND_S: Final = 10.0


class State(IntEnum):
    """What is to be said of a session, from the worst to the best."""

    ABANDONED = 0
    LOSING = 1
    UNHEARD = 2
    NO_KEYS = 3
    UNSAVED = 4
    DEAFENED = 5
    SPOOL_FAILING = 6
    SLOW = 7
    BEHIND = 8
    HEARD = 9
    QUIET = 10

    @property
    def is_alarm(self) -> bool:
        """Whether something is lost, or will be, unless somebody acts."""
        return self < State.DEAFENED

    @property
    def is_well(self) -> bool:
        """Whether nothing needs to be done."""
        return self >= State.HEARD


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """One running session.

    Attributes
    ----------
    state, said
        The worst about it, and the same in a few words.
    lag_messages
        Of the mixer that follows it, or did; None if none does.
    trend
        By how many messages a second that grows.
    ack_floor, redelivered
        Of the same consumer.
    unsaved_s
        How long ago the oldest thing was heard that is not in the log.
    unheard_s
        Seconds since anything came while somebody speaks; None while nobody does.
    quiet_s
        Seconds since the last packet of audio; None before the first.
    """

    session: str
    room: str
    guild: str
    state: State
    said: str
    elapsed_s: float = 0.0
    lag_messages: int | None = None
    trend: float = 0.0
    ack_floor: int = 0
    redelivered: int = 0
    unacked_messages: int = 0
    unsaved_s: float = 0.0
    spool_bytes: int = 0
    ack_p50_s: float = 0.0
    ack_p99_s: float = 0.0
    resent: int = 0
    unheard_s: float | None = None
    quiet_s: float | None = None
    people: int = 0
    heard: int = 0
    held_packets: int = 0
    packets: dict[str, int] = {}
    dave_version: int = 0
    dave_ready: bool = True
    dave_epoch: int = 0


class Trends:
    """How the lag of each session changes, over the last TREND_S seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, int]]] = {}

    def note(self, look: Look) -> dict[str, float]:
        """Messages a second, by session, with this look taken in; sessions that are gone are forgotten."""
        seen: dict[str, deque[tuple[float, int]]] = {}
        for session in look.recorded | {entry.session for entry in look.running}:
            consumer = look.follower_of(session)
            if consumer is None:
                continue
            points = seen[session] = self._seen.get(session) or deque()
            points.append((look.unix_s, consumer.lag_messages))
            while points[-1][0] - points[0][0] > TREND_S:
                points.popleft()
        self._seen = seen
        return {session: _slope(points) for session, points in seen.items()}


def rooms_of(look: Look, trends: dict[str, float]) -> list[Room]:
    """Every running session, the worst first, then by lag."""
    live = {one.session: one for one in look.status.sessions} if look.status else {}
    known = {entry.session: entry for entry in look.running}
    rooms = [
        _room(look, session, live.get(session), known.get(session), trends.get(session, 0.0))
        for session in sorted(live.keys() | known.keys())
    ]
    return sorted(rooms, key=lambda room: (room.state, -(room.lag_messages or 0), -room.unsaved_s, room.session))


def _room(look: Look, session: str, live: LiveSession | None, entry: SessionEntry | None, trend: float) -> Room:
    consumer = look.follower_of(session)
    lag = consumer.lag_messages if consumer else None
    if live is None:
        held = session in look.recorded
        state, said = (State.UNHEARD, "no answer") if held else (State.ABANDONED, "abandoned")
        name, guild = (entry.channel_name, entry.guild_name) if entry else ("", "")
        began_s = entry.started_unix_ns / 1e9 if entry else look.unix_s
        elapsed_s = max(0.0, look.unix_s - began_s)
        room = Room(session=session, room=name, guild=guild, state=state, said=said, elapsed_s=elapsed_s)
    else:
        state, said = judge(live, lag)
        room = _told(live, state, said)
    return msgspec.structs.replace(room, lag_messages=lag, trend=trend, **_marks(consumer))


def _marks(consumer: ConsumerLag | None) -> dict[str, int]:
    return {"ack_floor": consumer.ack_floor, "redelivered": consumer.redelivered} if consumer else {}


def _told(live: LiveSession, state: State, said: str) -> Room:
    return Room(
        session=live.session,
        room=live.room or live.name,
        guild=live.guild_name,
        state=state,
        said=said,
        elapsed_s=live.elapsed_s,
        unacked_messages=live.unacked_batches,
        unsaved_s=max(0.0, live.elapsed_s - live.saved_up_to_s),
        spool_bytes=live.spool_bytes,
        ack_p50_s=live.ack_p50_s,
        ack_p99_s=live.ack_p99_s,
        resent=live.resent,
        unheard_s=live.unheard_s,
        quiet_s=live.last_packet_age_s,
        people=len(live.speakers),
        heard=_states(live)["heard"],
        held_packets=live.held_packets,
        packets=live.packets,
        dave_version=live.dave_version,
        dave_ready=live.dave_ready,
        dave_epoch=live.dave_epoch,
    )


def judge(live: LiveSession, lag_messages: int | None) -> tuple[State, str]:
    """The worst about a session that capture records, and the same in a few words."""
    states = _states(live)
    unsaved_s = live.elapsed_s - live.saved_up_to_s
    for state, holds, said in (
        (State.LOSING, live.dropped_batches > 0, f"{live.dropped_batches} lost"),
        (State.UNHEARD, (live.unheard_s or 0.0) > UNHEARD_S, f"unheard {live.unheard_s or 0.0:.0f} s"),
        (State.NO_KEYS, not live.dave_ready and bool(live.speakers), "no keys"),
        (State.NO_KEYS, states["undecryptable"] > 0, f"{states['undecryptable']} sealed"),
        (State.UNSAVED, unsaved_s > UNSAVED_S, "not saved"),
        (State.DEAFENED, live.deafened, "deafened"),
        (State.SPOOL_FAILING, live.spool_failures > 0, "disk full"),
        (State.SLOW, live.ack_p99_s > SLOW_ACK_S and live.unacked_batches > 0, "slow acks"),
        (State.BEHIND, (lag_messages or 0) > BEHIND_MESSAGES, "behind"),
        (State.HEARD, states["heard"] > 0, f"{states['heard']} heard"),
    ):
        if holds:
            return state, said
    return State.QUIET, "quiet"


def _states(live: LiveSession) -> Counter[str]:
    return Counter(speaker.state for speaker in live.speakers)


def _slope(points: Sequence[tuple[float, int]]) -> float:
    """From the first to the last; 0 if there is only one."""
    (first_s, first), (last_s, last) = points[0], points[-1]
    return (last - first) / (last_s - first_s) if last_s > first_s else 0.0
