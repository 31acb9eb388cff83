"""Failures of a call, on demand, and what the recorder made of each: plan and judge of `test_capture_never_deaf`.

Two people speak all the time. One second into the talk the failure happens; what was delivered must be in the log, and
audio must flow again. Several rooms fail at the same time, each in its own way, in one capture process.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from contracts.events import SessionEnded, SessionStarted, TakeOpened
from contracts.jetstream.connection import Bus
from contracts.packets import Outcome
from ops.embedded import EmbeddedServer
from ops.loopback.network import NetworkConditions
from ops.loopback.plan import CallPlan, Person, Presence, Utterance
from ops.loopback.room import Room, RoomSpec
from ops.loopback.server import LoopbackDiscord
from tests.recorder import Log, Recorder, owed, read_log, recorder

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
TALK_S, FAIL_S = 4.2, 1.0
ADA, BELA, CHIYO = (Person(user_id=501 + n, name=name, voice=n) for n, name in enumerate(("Ada", "Bela", "Chiyo")))
ENDED_S = 10.0
FRAME_S = 0.02


class Stage:
    """One room in which a failure is played."""

    def __init__(self, server: LoopbackDiscord, room: Room) -> None:
        self.server = server
        self.room = room
        self.guild_id = room.spec.guild_id
        self.main_session = server.main.session
        self.failed_ns = 0

    def fails(self) -> None:
        """The failure happens now."""
        self.failed_ns = time.time_ns()


Act = Callable[[Stage], Awaitable[None]]


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A failure and what must follow.

    Attributes
    ----------
    takes, gaps
        Causes of the takes' openings, and of the gaps.
    ends
        The cause of the session's end; empty if it goes on.
    recoveries
        (action, cause) of what the recorder did.
    keyless
        Whether what is delivered cannot be opened for a while.
    fail_s, talk_s
        When the failure happens, and how long people talk.
    """

    name: str
    act: Act
    takes: tuple[str, ...] = ("start", "reconnect")
    gaps: tuple[str, ...] = ()
    ends: str = ""
    recoveries: tuple[tuple[str, str], ...] = ()
    dave: bool = True
    joins: tuple[Presence, ...] = ()
    leaves: tuple[Presence, ...] = ()
    network: NetworkConditions = NetworkConditions(padding=0.15, padding_only=0.02)
    keyless: bool = False
    fail_s: float = FAIL_S
    talk_s: float = TALK_S


class Played(msgspec.Struct, kw_only=True):
    """What became of a scenario."""

    log: Log
    room: Room
    failed_ns: int
    error: BaseException | None = None

    def causes(self, kind: type) -> tuple[str, ...]:
        """The causes of all facts of a kind."""
        return tuple(fact.cause for fact in self.log.facts if isinstance(fact, kind))  # type: ignore[attr-defined]  # all have one

    @property
    def zero_ns(self) -> int:
        """Unix time of the session clock's zero."""
        (started,) = [fact for fact in self.log.facts if isinstance(fact, SessionStarted)]
        return started.unix_ns

    def voice_ns(self, *, take: int | None = None) -> list[int]:
        """Arrivals of Ada's voice after the failure, Unix nanoseconds; of one take or all."""
        ssrcs = {frame.ssrc for frame in self.room.journal.frames if frame.user_id == str(ADA.user_id)}
        arrivals = [
            self.zero_ns + batch.arrival_ns(packet)
            for batch, packet in self.log.packets()
            if batch.ssrc in ssrcs and packet.outcome is Outcome.VOICE and take in {None, batch.take}
        ]
        return sorted(arrival for arrival in arrivals if arrival >= self.failed_ns)

    @property
    def deaf_s(self) -> float:
        """From the failure to the first voice of the last take; within one take, the longest silence."""
        last = max(fact.take for fact in self.log.facts if isinstance(fact, TakeOpened))
        arrivals = self.voice_ns(take=last)
        if last > 1:
            return (arrivals[0] - self.failed_ns) / 1e9 if arrivals else float("inf")
        steps = zip([self.failed_ns, *arrivals], arrivals, strict=False)
        return max(((later - earlier) / 1e9 for earlier, later in steps), default=float("inf")) - FRAME_S

    def missing(self) -> tuple[int, int]:
        """Packets owed and not recorded; recorded as voice and not owed."""
        recorded = self.log.wire()
        must = owed(self.room.journal)
        extra = recorded - must
        return (must - recorded).total(), sum(n for key, n in extra.items() if key[4] == "VOICE")


def plan_of(scenario: Scenario) -> CallPlan:
    """Ada and Bela speak from beginning to end; Chiyo is there if the scenario has her come."""
    coming = {presence.user_id for presence in scenario.joins}
    people = (ADA, BELA, *((CHIYO,) if CHIYO.user_id in coming else ()))
    utterances = [
        Utterance(user_id=person.user_id, start_s=0.1 + 0.1 * n, stop_s=scenario.talk_s - 0.2)
        for n, person in enumerate((ADA, BELA))
    ]
    return CallPlan(
        people=people,
        utterances=tuple(utterances),
        joins=scenario.joins,
        leaves=scenario.leaves,
        seconds=scenario.talk_s,
    )


async def play(scenarios: list[Scenario], folder: Path) -> dict[str, Played]:
    """All these failures at once, each in its room."""
    specs = [
        RoomSpec(
            plan=plan_of(scenario),
            guild_id=GUILD + 10_000 * n,
            channel_id=CHANNEL + 10_000 * n,
            dave=scenario.dave,
            network=scenario.network,
        )
        for n, scenario in enumerate(scenarios)
    ]
    first = specs[0]
    server = LoopbackDiscord(
        plan=first.plan,
        guild_id=first.guild_id,
        channel_id=first.channel_id,
        dave=first.dave,
        network=first.network,
        directory=folder,
        more_rooms=specs[1:],
    )
    async with (
        EmbeddedServer(folder / "nats") as nats,
        server,
        recorder(server, nats_url=nats.url, data=folder / "data") as capture,
    ):
        before = _resources(server)
        rooms = [server.rooms[spec.guild_id] for spec in specs]
        pairs = list(zip(scenarios, rooms, strict=True))
        outcomes = await asyncio.gather(*(_play(scenario, Stage(server, room), capture) for scenario, room in pairs))
        await _until(lambda: _resources(server) <= before, lambda: f"left behind: {before}, {_resources(server)}")
        return dict(zip((scenario.name for scenario in scenarios), outcomes, strict=True))


async def _play(scenario: Scenario, stage: Stage, capture: Recorder) -> Played:
    session = await capture.start(stage.room)
    failure = asyncio.create_task(_fail(scenario, stage))
    await stage.server.talk(guild_id=stage.guild_id)
    await failure
    if not scenario.ends:
        await capture.stop(stage.room)
    await _until_ended(capture.bus, session)
    return Played(log=await read_log(capture.bus, session), room=stage.room, failed_ns=stage.failed_ns)


async def _fail(scenario: Scenario, stage: Stage) -> None:
    begun = stage.room.journal
    while (
        begun.started_monotonic_ns is None or time.monotonic_ns() - begun.started_monotonic_ns < scenario.fail_s * 1e9
    ):
        await asyncio.sleep(0.005)
    stage.fails()
    await scenario.act(stage)


async def _until_ended(bus: Bus, session: str) -> None:
    async with asyncio.timeout(ENDED_S):
        while not any(isinstance(fact, SessionEnded) for fact in (await read_log(bus, session)).facts):
            await asyncio.sleep(0.1)


async def _until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + ENDED_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what()}, {_voice_tasks()}, {_threads()}")
        await asyncio.sleep(0.05)


def _voice_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("voice")]


def _threads() -> list[str]:
    """Those that are not the event loop's own."""
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if not name.startswith(("asyncio_", "uvloop_"))]


def _resources(server: LoopbackDiscord) -> tuple[int, int, int]:
    """Tasks of voice connections, threads, and open files but for connections to REST: none may be left behind."""
    rest = f":{urlsplit(server.environ['RETOLD_DISCORD_API_URL']).port:04X}"
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    kept_alive = {f"socket:[{line[9]}]" for line in lines if line[1].endswith(rest) or line[2].endswith(rest)}
    files = [_target(path) for path in Path("/proc/self/fd").iterdir()]
    return len(_voice_tasks()), len(_threads()), len([each for each in files if each not in kept_alive])


def _target(path: Path) -> str:
    """What a file descriptor is; empty if it was closed meanwhile."""
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""
