"""Twenty minutes of bad network, failing calls and a dying server: nothing is lost, nothing leaks.

Three rooms of six people; one room's op 5 never comes. Every few seconds something else goes wrong in each room, and
now and then with the main gateway or nats-server. Capture is a process of its own that says what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from contracts.events import GapRecorded, SessionEnded, SessionStarted
from contracts.jetstream.connection import connect
from ops.embedded import EmbeddedServer, free_port
from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.journal import SentFrame
from ops.loopback.network import NetworkConditions
from ops.loopback.plan import make_plan
from ops.loopback.room import Room, RoomSpec
from ops.loopback.server import LoopbackDiscord
from tests.recorder import Log, Recorder, read_log
from tests.watched_capture import Vitals

pytestmark = pytest.mark.soak

GUILD: Final = 100_000_000_000_000_001
CHANNEL: Final = 110_000_000_000_000_001
MINUTES: Final = float(os.environ.get("RETOLD_SOAK_MINUTES", "20"))
ROOMS: Final = 3
SPEAKERS: Final = 6
SEED: Final = int(os.environ.get("RETOLD_SOAK_SEED", "20"))
NETWORK: Final = NetworkConditions(
    jitter_ms=60, loss=0.05, reorder=0.03, duplicate=0.02, padding=0.15, padding_only=0.02
)
PAUSE_S: Final = (3.0, 9.0)  # between two failures of a room
SERVER_PAUSE_S: Final = (15.0, 40.0)
MAIN_PAUSE_S: Final = (20.0, 60.0)
SETTLED_S: Final = 30.0
EDGE_NS: Final = 50_000_000  # a datagram in the kernel's hands when its socket closes
GROWTH_KB: Final = 24 * 1024  # from a quarter of the run to its end
RESTED_S: Final = 30.0
ABOUT_NS: Final = 3_000_000_000  # what is this near to a lost frame or a long gap is shown
LONG_NS: Final = 2_000_000_000
NEAR: Final = 4  # sequence numbers

Act = Callable[[LoopbackDiscord, Room], Awaitable[None]]


def closes(code: int) -> Act:
    async def act(server: LoopbackDiscord, room: Room) -> None:
        server.close_voice(code, guild_id=room.spec.guild_id)

    return act


def says(opcode: int, data: object) -> Act:
    async def act(server: LoopbackDiscord, room: Room) -> None:
        server.say(opcode, data, guild_id=room.spec.guild_id)

    return act


async def dropped(server: LoopbackDiscord, room: Room) -> None:
    server.drop_voice(guild_id=room.spec.guild_id)


async def moved(server: LoopbackDiscord, room: Room) -> None:
    home = room.spec.channel_id
    server.move_bot(home if room.channel_id != home else home + CHANNEL_OFFSET, guild_id=room.spec.guild_id)


async def server_moved(server: LoopbackDiscord, room: Room) -> None:
    server.allocate_voice_server(guild_id=room.spec.guild_id)


async def server_lost(server: LoopbackDiscord, room: Room) -> None:
    server.lose_voice_server(guild_id=room.spec.guild_id)
    await asyncio.sleep(0.7)
    server.allocate_voice_server(guild_id=room.spec.guild_id)


async def black_hole(server: LoopbackDiscord, room: Room) -> None:
    server.black_hole(guild_id=room.spec.guild_id)
    await asyncio.sleep(2.0)


async def deafened(server: LoopbackDiscord, room: Room) -> None:
    server.deafen_bot(True, guild_id=room.spec.guild_id)
    await asyncio.sleep(0.7)
    server.deafen_bot(False, guild_id=room.spec.guild_id)


async def down_and_up(_server: LoopbackDiscord, room: Room) -> None:
    room.downgrade()
    await asyncio.sleep(1.0)
    room.upgrade()


async def rejoined(_server: LoopbackDiscord, room: Room) -> None:
    person = room.spec.plan.people[0]
    if person.user_id in room.speakers:
        room.leave(person.user_id)
        room.join(person)


async def cameras(server: LoopbackDiscord, room: Room) -> None:
    for user_id in list(room.speakers):
        server.send_video(user_id, guild_id=room.spec.guild_id)
        for _ in range(20):
            room.send_video_packet(user_id, bytes(1000))


async def reported(server: LoopbackDiscord, room: Room) -> None:
    server.send_sender_reports(guild_id=room.spec.guild_id)


ACTS: Final[dict[str, Act]] = {
    **{f"close {code}": closes(code) for code in (1000, 1001, 4004, 4006, 4009, 4014, 4015, 4099)},
    "a strange proposal": says(27, b"\0\5\1\2\3\4\5"),
    "op 12 without streams": says(12, {"user_id": "5", "audio_ssrc": 0, "video_ssrc": 0}),
    **{act.__name__: act for act in (dropped, moved, server_moved, server_lost, black_hole, deafened)},
    **{act.__name__: act for act in (down_and_up, rejoined, cameras, reported)},
}


class Evening:
    """Everything that runs, and what was done to it."""

    def __init__(self, server: LoopbackDiscord, nats: EmbeddedServer, seconds: float) -> None:
        self.server = server
        self.nats = nats
        self.until = time.monotonic() + seconds
        self.done: list[tuple[int, int | None, str]] = []  # Unix nanoseconds, guild, what

    def note(self, name: str, room: Room | None = None) -> None:
        """Remember what goes wrong now."""
        self.done.append((time.time_ns(), room.spec.guild_id if room else None, name))

    def about(self, room: Room, begin_ns: int, end_ns: int) -> list[tuple[float, str]]:
        """What went wrong for a room in a span of Unix nanoseconds; seconds from the span's beginning."""
        own = {None, room.spec.guild_id}
        return [
            (round((at_ns - begin_ns) / 1e9, 2), name)
            for at_ns, guild, name in self.done
            if guild in own and begin_ns <= at_ns <= end_ns
        ]

    async def fail(self, room: Room, chance: random.Random) -> None:
        """Something else every few seconds, each time when the room is whole again."""
        while await self._rest(chance, PAUSE_S):
            await self.server.wait_for_bot(timeout_s=SETTLED_S, guild_id=room.spec.guild_id)
            name = chance.choice(list(ACTS))
            self.note(name, room)
            with contextlib.suppress(LookupError):  # the other trouble has just taken the call away
                await ACTS[name](self.server, room)

    async def fail_main_gateway(self, chance: random.Random) -> None:
        """Reconnects of the main gateway, most with a resume."""
        while await self._rest(chance, MAIN_PAUSE_S):
            name = chance.choice(["main op 7", "main closed", "main op 9"])
            self.note(name)
            match name:
                case "main op 7":
                    await self.server.main.ask_to_reconnect()
                case "main closed":
                    await self.server.close_main_gateway(1000)
                case _:
                    await self.server.main.invalidate()

    async def fail_nats(self, chance: random.Random) -> None:
        """nats-server dies, is stopped for seconds, or freezes."""
        while await self._rest(chance, SERVER_PAUSE_S):
            name = chance.choice(["nats killed", "nats stopped", "nats frozen"])
            self.note(name)
            match name:
                case "nats killed":
                    await self.nats.kill()
                    await self.nats.start()
                case "nats stopped":
                    await self.nats.stop()
                    await asyncio.sleep(chance.uniform(1, 8))
                    await self.nats.start()
                case _:
                    assert self.nats.pid is not None
                    os.kill(self.nats.pid, signal.SIGSTOP)
                    await asyncio.sleep(chance.uniform(1, 6))
                    os.kill(self.nats.pid, signal.SIGCONT)

    async def _rest(self, chance: random.Random, pause_s: tuple[float, float]) -> bool:
        await asyncio.sleep(chance.uniform(*pause_s))
        return time.monotonic() < self.until - 2 * PAUSE_S[1]


@contextlib.asynccontextmanager
async def capturing(discord: LoopbackDiscord, nats_url: str, folder: Path) -> AsyncIterator[Path]:
    """A capture process; gives the file of its vitals."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
    environ |= {**discord.environ, "RETOLD_NATS_URL": nats_url, "RETOLD_DATA": str(folder / "data")}
    path = folder / "vitals"
    with (folder / "capture.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.watched_capture", str(path)), env=environ, stdout=log, stderr=log
        )
    try:
        yield path
        assert process.returncode is None, "capture ended"
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0


def read_vitals(path: Path) -> list[Vitals]:
    return [msgspec.json.decode(line, type=Vitals) for line in path.read_bytes().splitlines()]


def unheard(evening: Evening, room: Room, log: Log) -> tuple[list[SentFrame], int]:
    """Owed frames that are not in the log; and how many more were on their way in a gap, or when something happened."""
    (started,) = [fact for fact in log.facts if isinstance(fact, SessionStarted)]
    spans = [
        (started.unix_ns + fact.from_ns, started.unix_ns + fact.to_ns)
        for fact in log.facts
        if isinstance(fact, GapRecorded)
    ]
    spans += [(at_ns, at_ns) for at_ns, guild, _ in evening.done if guild in {None, room.spec.guild_id}]
    recorded = log.wire()
    missing = [
        frame
        for frame in room.journal.owed()
        if not recorded[frame.ssrc, frame.sequence, frame.timestamp, frame.opus, frame.kind.upper()]
    ]
    lost = [
        frame
        for frame in missing
        if not any(
            frame.sent_unix_ns <= end + EDGE_NS and room.journal.left_unix_ns(frame) >= begin - EDGE_NS
            for begin, end in spans
        )
    ]
    return lost, len(missing) - len(lost)


@pytest.mark.timeout(0)
async def test_twenty_minutes_of_trouble_cost_nothing(tmp_path: Path) -> None:
    """Every packet that the network delivered is in the log once; tasks, threads, sockets and memory stay flat."""
    seconds = MINUTES * 60
    specs = [
        RoomSpec(
            plan=make_plan(seconds=seconds, speakers=SPEAKERS, seed=SEED + n),
            guild_id=GUILD + 10_000 * n,
            channel_id=CHANNEL + 10_000 * n,
            network=msgspec.structs.replace(NETWORK, seed=SEED + n),
        )
        for n in range(ROOMS)
    ]
    first = specs[0]
    nats = EmbeddedServer(tmp_path / "nats", port=free_port())
    discord = LoopbackDiscord(
        plan=first.plan,
        guild_id=first.guild_id,
        channel_id=first.channel_id,
        network=first.network,
        directory=tmp_path,
        more_rooms=specs[1:],
    )
    async with nats, discord, capturing(discord, nats.url, tmp_path) as path:
        bus = await connect(nats.url, name="test")
        capture = Recorder(bus, discord)
        await capture.ready()
        rested = await _next_sample(path)
        rooms = [discord.rooms[spec.guild_id] for spec in specs]
        discord.suppress_op5(True, guild_id=specs[-1].guild_id)
        sessions = [await capture.start(room) for room in rooms]
        evening = Evening(discord, nats, seconds)
        await asyncio.gather(
            *(discord.talk(guild_id=spec.guild_id) for spec in specs),
            *(evening.fail(room, random.Random(f"{SEED}/{n}")) for n, room in enumerate(rooms)),
            evening.fail_main_gateway(random.Random(f"{SEED}/main")),
            evening.fail_nats(random.Random(f"{SEED}/nats")),
        )
        talked = await _next_sample(path)
        for room in rooms:
            await capture.stop(room)
        await asyncio.sleep(RESTED_S)  # spools are kept until everything can have been synced
        logs = [await read_log(bus, session) for session in sessions]
        await bus.close()
        seen = read_vitals(path)
    _tell(evening, seen, rested, talked)
    for room, log in zip(rooms, logs, strict=True):
        _tell_room(evening, room, log)
    for room, log in zip(rooms, logs, strict=True):
        assert [fact.cause for fact in log.facts if isinstance(fact, SessionEnded)] == ["stopped"]
        assert max(log.wire().values()) == 1
        assert unheard(evening, room, log)[0] == []
    assert not list((tmp_path / "data" / "spool").glob("*.spool"))
    before, after = seen[rested], seen[-1]
    assert after.threads <= before.threads
    assert after.tasks <= before.tasks
    assert after.sockets <= before.sockets
    assert after.files <= before.files
    quarter = seen[rested + (talked - rested) // 4]
    assert seen[talked].rss_kb - quarter.rss_kb < GROWTH_KB


async def _next_sample(path: Path) -> int:
    """Index of a sample taken after now."""
    known = len(read_vitals(path)) if path.exists() else 0
    async with asyncio.timeout(SETTLED_S):
        while not path.exists() or len(read_vitals(path)) <= known + 1:
            await asyncio.sleep(0.1)
    return known + 1


def _tell_room(evening: Evening, room: Room, log: Log) -> None:
    lost, in_gaps = unheard(evening, room, log)
    (started,) = [fact for fact in log.facts if isinstance(fact, SessionStarted)]
    gaps = [fact for fact in log.facts if isinstance(fact, GapRecorded)]
    print(f"\nSOAK room: {log.wire().total()} recorded, {len(lost)} lost; {in_gaps} came in {len(gaps)} gaps,")
    print(f"  {dict(Counter(fact.cause for fact in gaps))}")
    for gap in gaps:
        if gap.to_ns - gap.from_ns > LONG_NS:
            begin_ns = gap.unix_ns - (gap.to_ns - gap.from_ns)
            done = evening.about(room, begin_ns - ABOUT_NS, gap.unix_ns)
            print(f"  GAP {(gap.to_ns - gap.from_ns) / 1e9:.2f} s, {gap.cause}; done from 3 s before: {done}")
    for frame in lost:
        came_ns = room.journal.left_unix_ns(frame)
        facts = [
            (round((fact.unix_ns - came_ns) / 1e9, 3), type(fact).__name__, getattr(fact, "cause", ""))
            for fact in log.facts
            if abs(fact.unix_ns - came_ns) < ABOUT_NS
        ]
        near = [
            (
                packet.sequence - frame.sequence,
                packet.outcome.name,
                round((started.unix_ns + batch.arrival_ns(packet) - came_ns) / 1e6),
            )
            for batch, packet in log.packets()
            if batch.ssrc == frame.ssrc and abs(packet.sequence - frame.sequence) < NEAR
        ]
        print(f"  LOST {frame.ssrc} {frame.sequence} {frame.kind}, delay {frame.delay_ns / 1e6:.1f} ms")
        print(f"    in the log (number, outcome, ms after it set out): {near}; facts: {facts}")
        print(f"    done from 3 s before: {evening.about(room, came_ns - ABOUT_NS, came_ns + ABOUT_NS)}")


def _tell(evening: Evening, seen: list[Vitals], rested: int, talked: int) -> None:
    print(f"\nSOAK failures: {len(evening.done)} {dict(Counter(name for *_, name in evening.done))}")
    for name, index in {"rested": rested, "quarter": rested + (talked - rested) // 4, "end": talked}.items():
        print(f"SOAK {name}: {seen[index]}")
    print(f"SOAK after: {seen[-1]}")
