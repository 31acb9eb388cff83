"""What `retold lag` makes of a look: the worst first, named, on 80 columns and as many lines as there are."""

from __future__ import annotations

import io
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from contracts.commands import LiveSession, LiveSpeaker, Status
from contracts.directory import SessionEntry
from contracts.ids import new_id
from contracts.jetstream.advisories import Advisory
from contracts.jetstream.lag import ConsumerLag, StreamLag
from contracts.streams import FOLLOW_CONSUMER, JOBS, RENDER_CONSUMER, session_stream_name
from ops.cli.lag_view import draw_once, draw_watch
from ops.look import Look
from ops.monitor import ServerState
from ops.rooms import Room, State, Trends, rooms_of
from ops.storage import DAY_S, Storage, storage_of

NOW_S = 1_800_000_000.0
HEARD = LiveSpeaker(state="heard", user_id="1")
WELL = LiveSession(
    session="",
    guild_id="1",
    channel_id="2",
    elapsed_s=60.0,
    saved_up_to_s=59.9,
    take=1,
    packets={"recorded": 3000, "undecryptable": 0, "lost": 0, "duplicates": 0},
    unacked_batches=0,
    held_packets=0,
    dave_version=1,
    dave_epoch=2,
    speakers=(HEARD,),
    unheard_s=0.02,
    last_packet_age_s=0.02,
    room="The taproom",
    guild_name="Guild",
)
ILL: dict[State, dict[str, Any]] = {
    State.LOSING: {"dropped_batches": 3},
    State.UNHEARD: {"unheard_s": 4.2},
    State.NO_KEYS: {"dave_ready": False},
    State.UNSAVED: {"saved_up_to_s": 48.0},
    State.DEAFENED: {"deafened": True},
    State.SPOOL_FAILING: {"spool_failures": 1},
    State.SLOW: {"ack_p99_s": 3.0, "unacked_batches": 2},
    State.HEARD: {},
    State.QUIET: {"speakers": (), "unheard_s": None},
}


def live(**changes: Any) -> LiveSession:
    return msgspec.structs.replace(WELL, session=new_id(), **changes)


def consumer(name: str, *, pending: int = 0, waiting: int = 1) -> ConsumerLag:
    return ConsumerLag(
        name=name, lag_messages=pending, pending=pending, ack_pending=0, redelivered=0, waiting=waiting, ack_floor=5
    )


def stream(name: str, *consumers: ConsumerLag, size: int = 1000) -> StreamLag:
    return StreamLag(
        stream=name,
        messages=10,
        bytes=size,
        first_sequence=1,
        last_sequence=10,
        subjects=2,
        consumers=consumers,
    )


def look(*sessions: LiveSession, pending: dict[str, int] | None = None, at_s: float = NOW_S, **changes: Any) -> Look:
    """A look at an installation that records these; `pending` of those that are followed."""
    followers = [
        stream(session_stream_name(session), consumer(FOLLOW_CONSUMER, pending=count))
        for session, count in (pending or {}).items()
    ]
    streams = (stream(JOBS.name, consumer(RENDER_CONSUMER)), *followers)
    seen = Look(
        unix_s=at_s,
        streams=streams,
        running=tuple(entry(one.session) for one in sessions),
        recorded=frozenset(one.session for one in sessions),
        failed=(),
        advisories=(),
        storage=storage_of(streams, None, unix_s=at_s),
        status=Status(ready=True, sessions=sessions),
    )
    return msgspec.structs.replace(seen, **changes)


def entry(session: str) -> SessionEntry:
    return SessionEntry(
        session=session,
        guild_id="1",
        guild_name="Guild",
        channel_id="2",
        channel_name="The cellar",
        started_unix_ns=int((NOW_S - 90) * 1e9),
    )


def drawn(seen: Look, rooms: list[Room], *, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(draw_watch(seen, rooms, height=height))
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]  # the StringIO above


@pytest.mark.parametrize(("state", "changes"), ILL.items())
def test_each_trouble_has_its_state(state: State, changes: dict[str, Any]):
    """And a room that is well is heard, or quiet."""
    (room,) = rooms_of(look(live(**changes)), {})
    assert room.state is state
    assert room.state.is_well == (state in {State.HEARD, State.QUIET})


def test_streams_that_are_written_no_more_are_told():
    """In the first line below the head, with what mends it."""
    server = ServerState("2.15.1", {}, "/data", frozen=("REC_a", "KV_leases"))
    told = drawn(look(server=server), [])
    assert "nats-server's disk was full: 2 streams frozen until it is restarted" in told[3]


@given(st.sets(st.sampled_from([state for state in ILL if state < State.HEARD]), min_size=1))
def test_of_several_troubles_the_worst_is_told(troubles: set[State]):
    """Losing what is heard outweighs all else."""
    changes = {name: value for trouble in sorted(troubles, reverse=True) for name, value in ILL[trouble].items()}
    if {State.SLOW, State.LOSING} <= troubles:
        changes["unacked_batches"] = 2
    (room,) = rooms_of(look(live(**changes)), {})
    assert room.state is min(troubles)


def test_a_session_that_nobody_records_is_abandoned_and_first():
    """The directory knows its name; capture does not answer for it."""
    left, well = new_id(), live()
    seen = look(well, running=(entry(left), entry(well.session)), recorded=frozenset({well.session}))
    first, second = rooms_of(seen, {})
    assert (first.session, first.state, first.room) == (left, State.ABANDONED, "The cellar")
    assert round(first.elapsed_s) == 90
    assert second.state is State.HEARD


def test_a_capture_that_does_not_answer_is_an_alarm_for_its_rooms():
    """It holds their leases still."""
    one = live()
    (room,) = rooms_of(look(one, status=None), {})
    assert room.state is State.UNHEARD
    assert "does not answer" in drawn(look(one, status=None), [room])[0]


def test_a_follower_that_falls_behind_is_told_with_its_trend():
    """By the lag's change over the last looks; a session that is gone is forgotten."""
    one, trends = live(), Trends()
    trends.note(look(one, pending={one.session: 0}))
    seen = look(one, pending={one.session: 22}, at_s=NOW_S + 4)
    (room,) = rooms_of(seen, trends.note(seen))
    assert (room.state, room.lag_messages, room.trend) == (State.BEHIND, 22, 5.5)
    lines = drawn(seen, [room])
    assert any("behind" in line and "22" in line and "+5.5/s" in line for line in lines)
    trends.note(look())
    assert trends.note(look(one, pending={one.session: 3}, at_s=NOW_S + 8)) == {one.session: 0.0}


@pytest.mark.parametrize("height", [10, 24, 50, 200])
def test_a_hundred_rooms_fit_any_terminal(height: int):
    """80 columns, no line more than there are; what is not well is above, and the rest is counted."""
    troubles = itertools.cycle(ILL.values())
    rooms = [live(room=f"Room {number} \N{SNOWMAN} with a long name", **next(troubles)) for number in range(100)]
    advisories = tuple(Advisory(kind="SERVER.OUT_OF_STORAGE", about="x" * 99, unix_s=NOW_S) for _ in range(30))
    seen = look(*rooms, pending={one.session: 5 for one in rooms}, advisories=advisories)
    judged = rooms_of(seen, {})
    assert [room.state for room in judged] == sorted(room.state for room in judged)
    lines = drawn(seen, judged, height=height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= 80
    assert "3 lost" in next(line for line in lines if line.startswith("\N{BLACK CIRCLE}"))
    shown = sum(line.startswith("\N{BLACK CIRCLE}") for line in lines)
    assert shown == 100 or f"and {100 - shown} more" in lines[-1]


def test_everything_is_told_once_on_a_wide_page():
    """Streams and consumers with lag, ack floor and redeliveries."""
    one = live()
    console = Console(file=io.StringIO(), width=160)
    console.print(draw_once(seen := look(one, pending={one.session: 7}), rooms_of(seen, {})))
    told = str(console.file.getvalue())  # type: ignore[attr-defined]  # the StringIO above
    assert f"REC_{one.session}" in told
    assert "ACK FLOOR" in told
    assert "The taproom" in told


class TestStorage:
    """How long the disk lasts."""

    def test_the_pace_is_that_of_the_last_week(self):
        """Sessions that are older count as stored, not as pace."""
        young, old = new_id(round((NOW_S - 2 * DAY_S) * 1e3)), new_id(round((NOW_S - 30 * DAY_S) * 1e3))
        streams = [stream(f"REC_{young}", size=600), stream(f"OBJ_{young}", size=200), stream(f"REC_{old}", size=5000)]
        storage = storage_of(streams, None, unix_s=NOW_S)
        assert storage.per_day_bytes == pytest.approx(400, rel=1e-6)
        assert (storage.log_bytes, storage.file_bytes, storage.sessions) == (5600, 200, 2)
        assert storage.days_left is None

    def test_the_first_hours_are_no_pace(self):
        """A session of an hour ago is a day's worth at the most."""
        streams = [stream(f"REC_{new_id(round((NOW_S - 3600) * 1e3))}", size=2400)]
        assert storage_of(streams, None, unix_s=NOW_S).per_day_bytes == pytest.approx(2400)

    def test_nothing_recorded_lasts_for_ever(self):
        """No pace, no date."""
        assert storage_of([], None, unix_s=NOW_S) == Storage(
            log_bytes=0, file_bytes=0, other_bytes=0, sessions=0, per_day_bytes=0.0
        )
