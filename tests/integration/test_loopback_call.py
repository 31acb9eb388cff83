"""The unmodified discord.py and voice_recv in calls of the loopback Discord: every frame owed arrives byte for byte."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ops.loopback.journal import SentFrame
from ops.loopback.network import NetworkConditions
from ops.loopback.plan import CallPlan, Person, Presence, Utterance, make_plan
from ops.loopback.room import RoomSpec
from ops.loopback.server import LoopbackDiscord
from tests.listener import Tap, in_call, logged_in, until

TOKEN = "loopback-test"  # noqa: S105 - opens nothing but the loopback Discord
TOLERANCE_S = 0.08  # a person's phase within a frame, and a machine that is busy with other tests
GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001


def a_call(speakers: int, *, seconds: float = 4.0) -> CallPlan:
    """Everybody speaks, overlapping; of two or more the last joins, of three or more the first leaves in mid-call."""
    people = tuple(Person(user_id=501 + number, name=f"Person {number}", voice=number) for number in range(speakers))
    late, early = (people[-1].user_id if speakers > 1 else None), (people[0].user_id if speakers > 2 else None)
    start = {person.user_id: 0.2 + 0.15 * number for number, person in enumerate(people)}
    return CallPlan(
        people=people,
        utterances=tuple(
            Utterance(user_id=user, start_s=2.4 if user == late else at, stop_s=3.4 if user == late else at + 0.8)
            for user, at in start.items()
        )
        + tuple(Utterance(user_id=user, start_s=2.8, stop_s=3.3) for user in start if user not in {late, early}),
        joins=(Presence(user_id=late, at_s=1.5),) if late else (),
        leaves=(Presence(user_id=early, at_s=2.0),) if early else (),
        seconds=seconds,
    )


def discord_for(
    plan: CallPlan, tmp_path: Path, *, dave: bool, network: NetworkConditions | None = None
) -> LoopbackDiscord:
    return LoopbackDiscord(
        plan=plan, guild_id=GUILD, channel_id=CHANNEL, dave=dave, network=network, directory=tmp_path, token=TOKEN
    )


async def listen(server: LoopbackDiscord) -> Tap:
    """A whole call, heard by the real client."""
    async with logged_in(server.environ) as client, in_call(client, CHANNEL) as tap:
        await server.wait_for_bot(timeout_s=10)
        await server.talk()
        await until(lambda: len(tap.seen) >= sum(frame.fate == "sent" for frame in server.journal.frames))
        tap.drain_all()
    return tap


def as_wire(frames: Sequence[SentFrame]) -> list[tuple[int, int, int, bytes]]:
    return [(frame.ssrc, frame.sequence, frame.timestamp, frame.opus) for frame in frames]


def heard(tap: Tap) -> dict[str, list[tuple[int, int, int, bytes]]]:
    return {
        str(user): [(header.ssrc, header.sequence, header.timestamp, opus) for header, opus in frames]
        for user, frames in tap.opened.items()
    }


@pytest.mark.parametrize(("speakers", "dave"), [(1, True), (3, True), (6, True), (1, False), (3, False), (6, False)])
async def test_every_frame_owed_to_the_bot_arrives_byte_for_byte(speakers: int, *, dave: bool, tmp_path: Path):
    """With DAVE and without, one or several people, joins and leaves: what the journal owes is what is heard."""
    plan = a_call(speakers)
    async with discord_for(plan, tmp_path, dave=dave) as server:
        tap = await listen(server)
        owed = {str(person.user_id): as_wire(list(server.journal.owed(str(person.user_id)))) for person in plan.people}
        assert tap.problems == []
        assert heard(tap) == owed
        assert all(owed.values())
        assert {frame.fate for frame in server.journal.frames} == {"sent"}
        assert all(frame.in_group for frame in server.journal.frames)


async def test_a_made_plan_is_performed_on_time(tmp_path: Path):
    """Each person is measured to have spoken when the plan says, within two frames and the machine's delay."""
    plan = make_plan(seconds=5, speakers=2, seed=4)
    ticks: list[float] = []
    async with (
        discord_for(plan, tmp_path, dave=True) as server,
        logged_in(server.environ) as client,
        in_call(client, CHANNEL),
    ):
        await server.wait_for_bot(timeout_s=10)
        await server.talk(progress=lambda at_s, total_s: ticks.append(at_s / total_s))
        zero = (server.journal.started_unix_ns or 0) / 1e9
    assert (ticks[0], ticks[-1]) == (0.0, 1.0)
    for person in plan.people:
        planned = [(said.start_s, said.stop_s) for said in plan.utterances if said.user_id == person.user_id]
        spoke = server.journal.spoke_unix_s[str(person.user_id)]
        assert len(spoke) == len(planned)
        for (start, stop), (begun, ended) in zip(planned, spoke, strict=True):
            assert abs(begun - zero - start) < TOLERANCE_S
            assert abs(ended - zero - stop) < TOLERANCE_S


async def test_rooms_talk_at_the_same_time(tmp_path: Path):
    """One bot in two guilds hears each room's people only in that room, one with DAVE and one without."""
    plans = [a_call(2), make_plan(seconds=5, speakers=1, seed=1)]
    second = RoomSpec(plan=plans[1], guild_id=GUILD + 1, channel_id=CHANNEL + 1, dave=False)
    server = LoopbackDiscord(
        plan=plans[0], guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path, token=TOKEN, more_rooms=[second]
    )
    async with (
        server,
        logged_in(server.environ) as client,
        in_call(client, CHANNEL) as tap,
        in_call(client, CHANNEL + 1) as other,
    ):
        for guild_id in server.rooms:
            await server.wait_for_bot(timeout_s=10, guild_id=guild_id)
        await asyncio.gather(*(server.talk(guild_id=guild_id) for guild_id in server.rooms))
        for room, ear in zip(server.rooms.values(), (tap, other), strict=True):
            await until(lambda room=room, ear=ear: len(ear.seen) >= len(room.journal.frames))
            assert heard(ear) == {user: as_wire(list(room.journal.owed(user))) for user in room.journal.owed_opus()}


async def test_before_the_bot_comes_nothing_is_owed(tmp_path: Path):
    """A talk without a listener is in the journal as such."""
    plan = make_plan(seconds=5, speakers=1, seed=2)
    async with discord_for(plan, tmp_path, dave=True) as server:
        await server.talk()
    assert {frame.fate for frame in server.journal.frames} == {"no_listener"}
    assert not any(frame.in_group for frame in server.journal.frames)
    assert server.journal.spoke_unix_s == {}
