"""Several captures share the servers; when one dies, another goes on with its recordings, and commands go on, too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.commands import ChooseConsent, LiveSession, RefusedError, StartRecording, StopRecording
from contracts.errors import UnavailableError
from contracts.events import GapRecorded, SessionEnded, SessionFact, TakeClosed, TakeOpened, count_outcomes, decode_fact
from contracts.jetstream.asking import ask_status, choose_consent, start_recording, stop_recording
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.replay import replay
from contracts.jetstream.streams import ensure_shared
from contracts.shards import SNOWFLAKE_TIME_BITS, shard_of
from contracts.subjects import facts
from ops.embedded import EmbeddedServer
from ops.loopback.plan import make_plan
from ops.loopback.room import RoomSpec
from ops.loopback.server import LoopbackDiscord
from tests.killable import key, recorded

pytestmark = pytest.mark.long

SHARDS = 3
GUILDS = [(7_000_000 + number) << SNOWFLAKE_TIME_BITS for number in range(SHARDS)]
CHANNELS = [guild + 1 for guild in GUILDS]
READY_S = 40.0
TAKEN_OVER_S = 10.0
LOST_S = 1.0  # what a killed capture had not written down yet
FRAME_S = 0.02


class Captures:
    """Several capture processes, each with a folder of its own, between one server and one Discord."""

    def __init__(self, directory: Path, server: EmbeddedServer, discord: LoopbackDiscord, bus: Bus) -> None:
        self.directory, self.server, self.discord, self.bus = directory, server, discord, bus
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> None:
        """A process, again if it ran before."""
        environ = {each: value for each, value in os.environ.items() if not each.startswith("RETOLD_")}
        environ |= self.discord.environ | {"RETOLD_NATS_URL": self.server.url, "RETOLD_SHARDS": str(SHARDS)}
        environ["RETOLD_DATA"] = str(self.directory / name)
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "capture", env=environ, stdout=log, stderr=log
            )

    async def kill(self, name: str) -> None:
        self.processes[name].kill()
        await self.processes[name].wait()

    async def end(self) -> None:
        """Each ends in order, or at all."""
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READY_S):
                        await process.wait()
                if process.returncode is None:
                    process.kill()

    def log_of(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def owner_of(self, session: str) -> str:
        """Whose log says last that it records a session."""
        names = [name for name in self.processes if f'"session": "{session}", "guild"' in self.log_of(name)]
        assert names, "nobody records it"
        return names[-1]

    async def spread(self) -> None:
        """Wait until each has one shard, and every shard is served."""
        async with asyncio.timeout(READY_S):
            while not (await self.ready() and all(self.shards_of(name) == 1 for name in self.processes)):
                await asyncio.sleep(0.1)

    def shards_of(self, name: str) -> int:
        log = self.log_of(name)
        return log.count('"shard_taken"') - log.count('"shard_given_up"')

    async def ready(self) -> bool:
        try:
            return (await ask_status(self.bus)).ready
        except (UnavailableError, RefusedError):
            return False

    async def live(self, session: str, *, take: int) -> LiveSession:
        """The session, as soon as it records in this take."""
        async with asyncio.timeout(READY_S):
            while True:
                for each in await self.sessions():
                    if each.session == session and each.take == take:
                        await self.discord.wait_for_bot(guild_id=int(each.guild_id))
                        return each
                await asyncio.sleep(0.1)

    async def sessions(self) -> tuple[LiveSession, ...]:
        """What is recorded; a question that a dying capture was given is never answered, and asked again."""
        try:
            async with asyncio.timeout(LOST_S):
                return (await ask_status(self.bus)).sessions
        except (UnavailableError, TimeoutError):
            return ()

    async def facts_of(self, session: str) -> list[SessionFact]:
        return [decode_fact(message.data) async for message in replay(self.bus, session, filter_subject=facts(session))]


@contextlib.asynccontextmanager
async def captures(directory: Path, *names: str, seconds: float) -> AsyncIterator[Captures]:
    plans = [make_plan(seconds=seconds, speakers=2, seed=number, joins=False) for number in range(SHARDS)]
    first, *more = [
        RoomSpec(plan=plan, guild_id=guild, channel_id=channel)
        for plan, guild, channel in zip(plans, GUILDS, CHANNELS, strict=True)
    ]
    discord = LoopbackDiscord(
        plan=first.plan, guild_id=first.guild_id, channel_id=first.channel_id, directory=directory, more_rooms=more
    )
    async with EmbeddedServer(directory / "nats") as server, discord:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        here = Captures(directory, server, discord, bus)
        try:
            for name in names:
                await here.start(name)
            await here.spread()
            yield here
        finally:
            await here.end()
            await bus.close()


async def begin(here: Captures, number: int) -> str:
    request = StartRecording(guild_id=str(GUILDS[number]), channel_id=str(CHANNELS[number]))
    session = (await start_recording(here.bus, request)).session
    await here.discord.wait_for_bot(guild_id=GUILDS[number])
    return session


async def lost(here: Captures, number: int, session: str) -> list[int]:
    """When each frame left that is owed but not in the log, Unix nanoseconds; nothing is in it twice."""
    found = await recorded(here.bus, session)
    assert max(found.values()) == 1
    return [
        frame.sent_unix_ns for frame in here.discord.rooms[GUILDS[number]].journal.owed() if key(frame) not in found
    ]


@pytest.mark.alone
async def test_a_dead_capture_is_taken_over(tmp_path: Path) -> None:
    """Of three, one is killed while all record: another goes on with its session within ten seconds, and obeys."""
    assert {shard_of(guild, SHARDS) for guild in GUILDS} == set(range(SHARDS))
    async with captures(tmp_path, "a", "b", "c", seconds=16) as here:
        sessions = [await begin(here, number) for number in range(SHARDS)]
        assert len({here.owner_of(session) for session in sessions}) == SHARDS
        talks = [asyncio.create_task(here.discord.talk(guild_id=guild)) for guild in GUILDS]
        await asyncio.sleep(3.0)
        dead = here.owner_of(sessions[0])
        killed_ns = time.time_ns()
        await here.kill(dead)
        person = here.discord.rooms[GUILDS[0]].spec.plan.people[0].user_id
        live = await here.live(sessions[0], take=2)
        taken_over_s = (time.time_ns() - killed_ns) / 1e9
        await (await here.discord.person(person, guild_id=GUILDS[0]).types("/record note", text="still here")).reads(
            "Noted"
        )
        back_ns = time.time_ns()
        assert live.session == sessions[0]
        assert taken_over_s < TAKEN_OVER_S
        await asyncio.gather(*talks)
        for guild in GUILDS:
            await stop_recording(here.bus, StopRecording(guild_id=str(guild)))
        await here.start(dead)
        await settled(here, dead)
        told = await here.facts_of(sessions[0])
        assert [(fact.take, fact.cause) for fact in told if isinstance(fact, TakeOpened)] == [
            (1, "start"),
            (2, "restart"),
        ]
        assert [fact.cause for fact in told if isinstance(fact, TakeClosed)] == ["capture_died", "stopped"]
        (gap,) = [fact for fact in told if isinstance(fact, GapRecorded)]
        assert (gap.to_ns - gap.from_ns) / 1e9 < TAKEN_OVER_S + LOST_S
        assert any(frame.sent_unix_ns > back_ns for frame in here.discord.rooms[GUILDS[0]].journal.owed())
        missing = await lost(here, 0, sessions[0])
        assert not [at_ns for at_ns in missing if at_ns > back_ns]
        assert len([at_ns for at_ns in missing if at_ns < killed_ns]) * FRAME_S <= 2 * LOST_S
        for number in (1, 2):
            assert await lost(here, number, sessions[number]) == []
            (ended,) = [fact for fact in await here.facts_of(sessions[number]) if isinstance(fact, SessionEnded)]
            counted: Counter[str] = Counter(count_outcomes(ended.tracks))
            assert counted["recorded"] == sum((await recorded(here.bus, sessions[number])).values())


@pytest.mark.alone
async def test_who_refused_stays_refused_when_another_capture_goes_on(tmp_path: Path) -> None:
    """One says no in mid-spurt, one while nobody records: from the answer on, not one packet of theirs is written."""
    async with captures(tmp_path, "a", "b", "c", seconds=18) as here:
        session = await begin(here, 0)
        talk = asyncio.create_task(here.discord.talk(guild_id=GUILDS[0]))
        first, second = (person.user_id for person in here.discord.rooms[GUILDS[0]].spec.plan.people)
        await asyncio.sleep(3.0)
        refused_ns = {await refuse(here, first): str(first)}
        await asyncio.sleep(1.0)
        killed_ns = time.time_ns()
        await here.kill(here.owner_of(session))
        refused_ns[await refuse(here, second)] = str(second)
        await here.live(session, take=2)
        await talk
        await stop_recording(here.bus, StopRecording(guild_id=str(GUILDS[0])))
        found = await recorded(here.bus, session)
        assert found
        for since_ns, user_id in refused_ns.items():
            frames = [frame for frame in here.discord.rooms[GUILDS[0]].journal.frames if frame.user_id == user_id]
            after = [frame for frame in frames if frame.kind == "voice" and frame.sent_unix_ns > since_ns]
            assert after, "nothing was said after it"
            assert not [frame for frame in after if key(frame) in found]
            heard_ns = min(since_ns, killed_ns) - 2 * LOST_S * 1e9
            before = [frame for frame in frames if frame.owed and frame.sent_unix_ns < heard_ns]
            assert not [frame for frame in before if key(frame) not in found]


async def refuse(here: Captures, user_id: int) -> int:
    """Somebody does not want to be recorded any more: when they had the answer, Unix nanoseconds."""
    request = ChooseConsent(guild_id=str(GUILDS[0]), user_id=str(user_id), choice="out")
    async with asyncio.timeout(READY_S):
        while True:
            try:
                await choose_consent(here.bus, request)
            except (UnavailableError, RefusedError):
                await asyncio.sleep(0.05)
            else:
                return time.time_ns()


async def settled(here: Captures, name: str) -> None:
    """Wait until no spool is left behind."""
    async with asyncio.timeout(READY_S):
        while list((here.directory / name / "spool").glob("*.spool")):
            await asyncio.sleep(0.1)


@pytest.mark.soak
async def test_a_capture_that_was_frozen_leaves_its_rooms_to_the_next(tmp_path: Path) -> None:
    """Its lease ran out while it was suspended: awake again it says no word, to the log as to Discord."""
    async with captures(tmp_path, "a", "b", "c", seconds=22) as here:
        session = await begin(here, 0)
        talk = asyncio.create_task(here.discord.talk(guild_id=GUILDS[0]))
        await asyncio.sleep(2.0)
        first = here.owner_of(session)
        os.kill(here.processes[first].pid, signal.SIGSTOP)
        await here.live(session, take=2)
        os.kill(here.processes[first].pid, signal.SIGCONT)
        back_ns = time.time_ns()
        async with asyncio.timeout(READY_S):
            while "shard_lost" not in here.log_of(first):
                await asyncio.sleep(0.1)
        await talk
        await stop_recording(here.bus, StopRecording(guild_id=str(GUILDS[0])))
        told = await here.facts_of(session)
        assert [fact.take for fact in told if isinstance(fact, TakeOpened)] == [1, 2]
        assert [fact.cause for fact in told if isinstance(fact, SessionEnded)] == ["stopped"]
        assert not [at_ns for at_ns in await lost(here, 0, session) if at_ns > back_ns]
