"""The real bot in calls of the loopback Discord: every frame that was sent to it is in the log, byte for byte, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

import capture.app
from capture.errors import LoginError
from contracts import commands, subjects
from contracts.directory import SessionEntry
from contracts.errors import UnavailableError
from contracts.events import (
    EpochChanged,
    NoteAdded,
    SessionEnded,
    SessionFact,
    SessionStarted,
    SpeakerIdentified,
    SpeakerJoined,
    SpeakerLeft,
    TakeOpened,
    decode_fact,
)
from contracts.ids import id_unix_ms
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import get_entry
from contracts.jetstream.replay import replay
from contracts.packets import Outcome, PacketBatch, decode_batch
from contracts.settings import load_settings
from ops.embedded import EmbeddedServer, free_port
from ops.loopback.network import NetworkConditions
from ops.loopback.plan import CallPlan, Person, Presence, Utterance
from ops.loopback.server import LoopbackDiscord

GUILD, CHANNEL = 111, 222
DEADLINE_S = 20.0
SECONDS = 4.6
STAMP_TOLERANCE_S = 0.25  # of an arrival after its sending: both share one busy event loop with everybody's voices
BAD_NETWORK = NetworkConditions(jitter_ms=40, loss=0.05, reorder=0.03, duplicate=0.02, padding=0.15, padding_only=0.02)

Key = tuple[int, int, int, bytes]


def a_call(speakers: int) -> CallPlan:
    """Everybody speaks, overlapping; of several the last joins, of three or more the first leaves, in mid-call."""
    people = tuple(Person(user_id=501 + number, name=f"Person {number}", voice=number) for number in range(speakers))
    late = people[-1].user_id if speakers > 1 else None
    early = people[0].user_id if speakers > 2 else None
    utterances = []
    for number, person in enumerate(people):
        user = person.user_id
        if user != late:
            utterances.append(Utterance(user_id=user, start_s=0.2 + 0.1 * number, stop_s=1.4 + 0.1 * number))
        if user != early:
            utterances.append(Utterance(user_id=user, start_s=3.2 + 0.05 * number, stop_s=4.2 + 0.05 * number))
    return CallPlan(
        people=people,
        utterances=tuple(utterances),
        joins=(Presence(user_id=late, at_s=1.9),) if late else (),
        leaves=(Presence(user_id=early, at_s=2.4),) if early else (),
        seconds=SECONDS,
    )


class Room:
    """A loopback Discord, a running capture, and a connection to the bus."""

    def __init__(self, discord: LoopbackDiscord, bus: Bus) -> None:
        self.discord = discord
        self.bus = bus

    async def ask(self, subject: str, request: msgspec.Struct) -> commands.Reply:
        """One request and its reply."""
        return commands.decode_reply(await self.bus.request(subject, msgspec.json.encode(request), timeout_s=30))

    async def start(self, guild_id: object = GUILD, channel_id: object = CHANNEL) -> commands.Reply:
        """Ask for a recording."""
        request = commands.StartRecording(guild_id=str(guild_id), channel_id=str(channel_id), name="Evening")
        return await self.ask(subjects.START_RECORDING, request)

    async def stop(self, guild_id: object = GUILD) -> commands.Reply:
        """Ask for its end."""
        return await self.ask(subjects.STOP_RECORDING, commands.StopRecording(guild_id=str(guild_id), requested_by="9"))

    async def status(self) -> commands.Status:
        """How it goes."""
        reply = await self.ask(subjects.STATUS, commands.AskStatus())
        assert isinstance(reply, commands.Status)
        return reply

    async def wait_until_ready(self, capturing: asyncio.Task[None]) -> None:
        """The bot is logged in and serves."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if capturing.done():
                    await capturing
                with contextlib.suppress(UnavailableError):
                    if (await self.status()).ready:
                        return
                await asyncio.sleep(0.02)

    async def record(self) -> commands.Stopped:
        """The whole call: start, everybody talks, stop."""
        reply = await self.start()
        assert isinstance(reply, commands.Started)
        await self.discord.wait_for_bot(timeout_s=DEADLINE_S)
        await self.discord.talk()
        reply = await self.stop()
        assert isinstance(reply, commands.Stopped)
        return reply


@contextlib.asynccontextmanager
async def a_room(
    folder: Path, plan: CallPlan, *, dave: bool = True, network: NetworkConditions | None = None
) -> AsyncIterator[Room]:
    """Everything runs; capture stops in order at the end."""
    discord = LoopbackDiscord(
        plan=plan, guild_id=GUILD, channel_id=CHANNEL, dave=dave, network=network, directory=folder
    )
    async with EmbeddedServer(folder / "nats") as server, discord:
        settings = load_settings({**discord.environ, "RETOLD_NATS_URL": server.url, "RETOLD_DATA": str(folder)})
        stop = asyncio.Event()
        capturing = asyncio.create_task(capture.app.run(settings, stop=stop))
        bus = await connect(server.url, name="test")
        room = Room(discord, bus)
        try:
            await room.wait_until_ready(capturing)
            yield room
        finally:
            stop.set()
            await capturing
            await bus.close()


class Log:
    """A session's stream, read to its end."""

    def __init__(self) -> None:
        self.facts: list[SessionFact] = []
        self.batches: list[PacketBatch] = []

    @classmethod
    async def read(cls, bus: Bus, session: str) -> Log:
        """Every message; each must be one of ours."""
        log = cls()
        async for message in replay(bus, session):
            if isinstance(subjects.parse(message.subject), subjects.PacketSubject):
                log.batches.append(decode_batch(message.data))
            else:
                log.facts.append(decode_fact(message.data))
        return log

    def ended(self) -> SessionEnded:
        """The end of the recording, which a panel that was slow to be posted may follow."""
        (ended,) = [fact for fact in self.facts if isinstance(fact, SessionEnded)]
        return ended

    def packets(self) -> Counter[Key]:
        """How often each packet stands in it."""
        return Counter(
            (batch.ssrc, packet.sequence, packet.timestamp, packet.payload)
            for batch in self.batches
            for packet in batch.packets
        )

    def outcomes(self) -> Counter[Outcome]:
        """Packets by outcome."""
        return Counter(packet.outcome for batch in self.batches for packet in batch.packets)


def owed(discord: LoopbackDiscord) -> Counter[Key]:
    """What the journal says the bot must have, once each."""
    return Counter((frame.ssrc, frame.sequence, frame.timestamp, frame.opus) for frame in discord.journal.owed())


def check_log(log: Log, room: Room, stopped: commands.Stopped) -> None:
    """What is true of every recording: everything owed, nothing else, and counts that prove it."""
    expected, found = owed(room.discord), log.packets()
    assert expected
    assert found == expected
    assert not [outcome for outcome in log.outcomes() if outcome.undecryptable]
    ended = log.ended()
    for track in ended.tracks:
        mine = [batch for batch in log.batches if (batch.take, batch.ssrc) == (track.take, track.ssrc)]
        assert [batch.number for batch in mine] == list(range(track.batches))
        counted = Counter(packet.outcome.name for batch in mine for packet in batch.packets)
        assert counted == track.outcomes
    assert (stopped.recorded, stopped.undecryptable) == (expected.total(), 0)
    ssrcs = {frame.ssrc: frame.user_id for frame in room.discord.journal.owed()}
    assert {track.ssrc: track.user_id for track in ended.tracks} == ssrcs
    named = {fact.ssrc: fact.user_id for fact in log.facts if isinstance(fact, SpeakerIdentified)}
    assert named == ssrcs


def check_arrivals(log: Log, discord: LoopbackDiscord) -> None:
    """Every packet arrived after it was sent, and soon; on the session clock, whose zero has a wall-clock time."""
    started = log.facts[0]
    assert isinstance(started, SessionStarted)
    sent = {(f.ssrc, f.sequence): (f.sent_unix_ns + f.delay_ns - started.unix_ns) / 1e9 for f in discord.journal.owed()}
    late = [
        batch.arrival_ns(packet) / 1e9 - sent[batch.ssrc, packet.sequence]
        for batch in log.batches
        for packet in batch.packets
    ]
    assert min(late) > -0.01
    assert sorted(late)[len(late) * 9 // 10] < STAMP_TOLERANCE_S


@pytest.mark.parametrize(
    ("speakers", "dave"), [(1, True), (3, True), (6, True), (3, False)], ids=["1", "3", "6", "3 without DAVE"]
)
async def test_every_frame_is_in_the_log_once(tmp_path: Path, speakers: int, dave: bool):  # noqa: FBT001
    """With people who join and leave in mid-call, and nothing else in it."""
    async with a_room(tmp_path, a_call(speakers), dave=dave) as room:
        stopped = await room.record()
        log = await Log.read(room.bus, stopped.session)
        check_log(log, room, stopped)
        check_arrivals(log, room.discord)
        assert stopped.lost == 0
        entry = await get_entry(room.bus, stopped.session)
    check_facts(log, room.discord, entry, dave=dave)


def check_facts(log: Log, discord: LoopbackDiscord, entry: SessionEntry | None, *, dave: bool) -> None:
    """Who was there, when they came and went, and how the keys changed."""
    plan = discord.room.spec.plan
    people = {str(person.user_id): person.name for person in plan.people}
    started, ended = log.facts[0], log.ended()
    assert isinstance(started, SessionStarted)
    (opened,) = [fact for fact in log.facts if isinstance(fact, TakeOpened)]
    assert (started.name, started.at_ns, opened.dave_version > 0) == ("Evening", 0, dave)
    assert (ended.cause, ended.ended_by) == ("stopped", "9")
    joined = [fact for fact in log.facts if isinstance(fact, SpeakerJoined)]
    assert {fact.user_id: fact.name for fact in joined} == people
    assert len(joined) == len(people)
    left = [fact.user_id for fact in log.facts if isinstance(fact, SpeakerLeft)]
    assert left == [str(leave.user_id) for leave in plan.leaves]
    epochs = [fact for fact in log.facts if isinstance(fact, EpochChanged)]
    assert bool(epochs) == dave
    if dave:
        assert set(epochs[-1].members) - set(people) == {str(discord_bot_id(epochs))}
        assert [fact.epoch for fact in epochs] == sorted({fact.epoch for fact in epochs})
    assert entry is not None
    assert (entry.people, entry.cause, entry.duration_ns) == (people, "stopped", ended.at_ns)
    assert abs(id_unix_ms(entry.session) * 10**6 - started.unix_ns) < 5 * 10**9


def discord_bot_id(epochs: list[EpochChanged]) -> str:
    """The one member of every epoch who is nobody of the plan."""
    return next(iter(set.intersection(*(set(fact.members) for fact in epochs)) - {f"{501 + n}" for n in range(50)}))


async def test_a_bad_network_costs_only_what_it_dropped(tmp_path: Path):
    """Padding, reordering, duplicates, jitter and loss: what was not dropped is there exactly once."""
    async with a_room(tmp_path, a_call(3), network=BAD_NETWORK) as room:
        stopped = await room.record()
        log = await Log.read(room.bus, stopped.session)
        check_log(log, room, stopped)
    frames = room.discord.journal.frames
    fates, doubled = Counter(frame.fate for frame in frames), sum(frame.copies == 2 for frame in frames)
    assert fates["dropped"] > 0
    assert doubled > 0
    ended = log.ended()
    assert sum(track.duplicates for track in ended.tracks) == doubled
    assert stopped.lost <= fates["dropped"]  # those before the first and behind the last of an SSRC are not known


async def test_requests_are_answered_for_what_they_are(tmp_path: Path):
    """Refusals name the reason and what helps; notes and status are true; stopping capture ends the recording."""
    async with a_room(tmp_path, a_call(1)) as room:
        refusals = {
            "not_recording": await room.stop(),
            "unknown_guild": await room.start(guild_id=999),
            "unknown_channel": await room.start(channel_id=999),
            "malformed": await room.start(guild_id="a guild"),
        }
        for code, reply in refusals.items():
            assert isinstance(reply, commands.Refused)
            assert reply.code == code
            assert reply.message
        assert "999" in refusals["unknown_guild"].message  # type: ignore[union-attr]
        assert str(CHANNEL) in refusals["unknown_channel"].message  # type: ignore[union-attr]
        assert not (await room.status()).sessions
        noise = commands.decode_reply(await room.bus.request(subjects.STATUS, b"\xff{", timeout_s=5))
        assert isinstance(noise, commands.Refused)
        assert noise.code == "malformed"
        started = await room.start()
        assert isinstance(started, commands.Started)
        again = await room.start()
        assert isinstance(again, commands.Refused)
        assert again.code == "already_recording"
        note = await room.ask(subjects.ADD_NOTE, commands.AddNote(guild_id=str(GUILD), text="here", ago_s=0.001))
        assert isinstance(note, commands.Noted)
        for wrong in ("", "x" * 1001):
            reply = await room.ask(subjects.ADD_NOTE, commands.AddNote(guild_id=str(GUILD), text=wrong))
            assert isinstance(reply, commands.Refused)
        (live,) = (await room.status()).sessions
        assert (live.session, live.guild_id, live.take, live.dave_version) == (started.session, str(GUILD), 1, 1)
    log = await read_again(tmp_path, started.session)
    assert [fact.text for fact in log.facts if isinstance(fact, NoteAdded)] == ["here"]
    ended = log.ended()
    assert ended.cause == "shutdown"


async def read_again(folder: Path, session: str) -> Log:
    """The log, from a server that was started anew on the same store."""
    async with EmbeddedServer(folder / "nats") as server:
        bus = await connect(server.url, name="test")
        log = await Log.read(bus, session)
        await bus.close()
    return log


async def test_a_wrong_token_is_a_login_error(tmp_path: Path):
    """Which says what to do; not an error group, not a hang."""
    async with EmbeddedServer(tmp_path / "nats") as server:
        discord = LoopbackDiscord(plan=a_call(1), guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path)
        async with discord:
            environ = {**discord.environ, "RETOLD_DISCORD_TOKEN": "wrong", "RETOLD_NATS_URL": server.url}
            with pytest.raises(LoginError, match="RETOLD_DISCORD_TOKEN"):
                async with asyncio.timeout(DEADLINE_S):
                    await capture.app.run(load_settings(environ), stop=asyncio.Event())


async def test_a_discord_that_is_away_is_unavailable(tmp_path: Path):
    """Exit code 69 of the command line; not an error group of aiohttp's."""
    away = f"http://127.0.0.1:{free_port()}/api"
    settings = {"RETOLD_DISCORD_TOKEN": "x", "RETOLD_DISCORD_API_URL": away}
    async with EmbeddedServer(tmp_path / "nats") as server:
        with pytest.raises(UnavailableError, match="Discord cannot be reached"):
            await capture.app.run(load_settings({**settings, "RETOLD_NATS_URL": server.url}), stop=asyncio.Event())
