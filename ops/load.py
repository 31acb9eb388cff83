"""Load: many rooms talk at once, captures record them, and what that costs is measured.

    crowd (a process: loopback Discord, all its people)  ->  captures (processes)  ->  nats-servers (processes)

CPU is read from the kernel's account of each process, over the time of talking only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from contracts.commands import StartRecording
from contracts.errors import RetoldError, UnavailableError
from contracts.jetstream.asking import ask_status, start_recording
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.leases import renewals
from contracts.jetstream.streams import ensure_shared
from ops.cost import Cost, Processes
from ops.embedded import EmbeddedServer, addresses, embedded_cluster
from ops.loopback.crowd import CrowdSpec

READY_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 300.0
POLL_S: Final = 0.05
SAMPLE_S: Final = 1.0
AT_ONCE: Final = 16  # rooms that are joined at the same time
JOINS: Final = 100  # of a minute: discord.py sends 110 messages a minute to the gateway, which allows 120
JOINS_S: Final = 61.0
GIVE_UP_S: Final = 10.0  # without one more packet recorded
LINE_BYTES: Final = 1 << 20


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run showed.

    Attributes
    ----------
    sent, recorded, missing
        Packets that left, that are in the logs and acknowledged, and the difference.
    undecryptable, lost
        As the sessions counted them.
    crowd_late_ms
        By how much the slowest sender missed its time.
    most_unacked
        Batches that waited for the server at the worst moment seen.
    oldest_packet_s
        The longest time, in any room at any sample, since the newest packet that capture had read.
    join_s, drain_s
        How long it took to join all rooms, at the pace that Discord allows, and until everything sent was acknowledged.
    rss_bytes_per_room
        Growth of capture's memory since before the first room.
    """

    rooms: int
    speakers: float
    seconds: float
    sent: int
    packets_per_s: float
    recorded: int
    missing: int
    undecryptable: int
    lost: int
    capture: Cost
    nats_server: Cost
    crowd: Cost
    crowd_late_ms: float
    most_unacked: int
    oldest_packet_s: float
    join_s: float
    drain_s: float
    rss_bytes_per_room: int


class Load:
    """One run.

    Parameters
    ----------
    directory
        Where the server's store and the logs go.
    profile
        Where capture's profile goes, if it is to be made; it makes capture slower.
    captures
        How many share the rooms.
    copies
        Servers that keep every stream, 1 or 3.
    """

    def __init__(
        self,
        spec: CrowdSpec,
        *,
        seconds: float,
        directory: Path,
        profile: Path | None = None,
        captures: int = 1,
        copies: int = 1,
    ) -> None:
        self._captures = captures
        self._copies = copies
        self._spec = spec
        self._seconds = seconds
        self._directory = directory
        self._profile = profile

    async def run(self, *, progress: Callable[[str], None]) -> LoadResult:
        """Start everything, let everybody talk, and end it.

        Raises
        ------
        UnavailableError
            If something does not come up.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            servers = await stack.enter_async_context(self._servers())
            crowd = await stack.enter_async_context(_crowd(self._spec))
            bus = await connect(addresses(servers), name="load", replicas=self._copies)
            stack.push_async_callback(bus.close)
            await ensure_shared(bus)
            owners = await _hear_owners(bus)
            environ = {**os.environ, **crowd.environ, "RETOLD_NATS_URL": addresses(servers)}
            environ |= {"RETOLD_LOG_LEVEL": "warning", "RETOLD_SHARDS": str(self._captures)}
            starting = [self._capture(environ, number) for number in range(self._captures)]
            pids = [await stack.enter_async_context(each) for each in starting]
            await _until_ready(bus, owners, self._captures)
            processes = {
                "capture": Processes(pids),
                "nats_server": Processes(server.pid or 0 for server in servers),
                "crowd": Processes([crowd.pid]),
            }
            joins = JOINS * self._captures
            return await _Run(bus, crowd, processes, self._spec, seconds=self._seconds, joins=joins).run(progress)

    @contextlib.asynccontextmanager
    async def _servers(self) -> AsyncIterator[list[EmbeddedServer]]:
        if self._copies > 1:
            async with embedded_cluster(self._directory / "nats", size=self._copies) as servers:
                yield servers
        else:
            async with EmbeddedServer(self._directory / "nats") as server:
                yield [server]

    @contextlib.asynccontextmanager
    async def _capture(self, environ: dict[str, str], number: int) -> AsyncIterator[int]:
        profiler = ("-m", "cProfile", "-o", str(self._profile)) if self._profile and not number else ()
        environ = {**environ, "RETOLD_DATA": str(self._directory / f"capture-{number + 1}")}
        with (self._directory / "capture.log").open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *profiler, "-m", "ops.cli.main", "capture", "--supervised"),
                env=environ,
                stdout=output,
                stderr=output,
            )
        try:
            yield process.pid
        finally:
            await self._end(process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """End capture; everything is durable, so only a profile is worth the wait of leaving room after room."""
        if process.returncode is None:
            process.send_signal(signal.SIGTERM if self._profile else signal.SIGKILL)
        async with asyncio.timeout(END_TIMEOUT_S):
            await process.wait()


class _Run:
    """The measured part."""

    def __init__(
        self,
        bus: Bus,
        crowd: _Crowd,
        processes: dict[str, Processes],
        spec: CrowdSpec,
        *,
        seconds: float,
        joins: int,
    ) -> None:
        self._joins = joins
        self._bus = bus
        self._crowd = crowd
        self._processes = processes
        self._spec = spec
        self._seconds = seconds
        self._most_unacked = 0
        self._oldest_packet_s = 0.0

    async def run(self, progress: Callable[[str], None]) -> LoadResult:
        """Join, talk, and wait until everything is durable."""
        clock = asyncio.get_running_loop().time
        before_bytes = self._processes["capture"].rss_bytes
        begun = clock()
        progress(f"joining {self._spec.rooms} rooms")
        await self._join()
        await self._crowd.ask({"settle": True})
        joined = clock()
        progress(f"everybody talks for {self._seconds:g} s")
        answer, costs = await self._talk()
        talked = clock()
        sent = sum(answer["sent"].values())
        totals = await self._drain(sent)
        return LoadResult(
            rooms=self._spec.rooms,
            speakers=self._spec.speakers,
            seconds=self._seconds,
            sent=sent,
            packets_per_s=round(sent / (talked - joined), 1),
            recorded=totals["recorded"],
            missing=sent - totals["recorded"],
            undecryptable=totals["undecryptable"],
            lost=totals["lost"],
            crowd_late_ms=round(answer["late_s"] * 1e3, 1),
            most_unacked=self._most_unacked,
            oldest_packet_s=round(self._oldest_packet_s, 3),
            join_s=round(joined - begun, 2),
            drain_s=round(clock() - talked, 2),
            rss_bytes_per_room=(costs["capture"].rss_bytes - before_bytes) // self._spec.rooms,
            **costs,
        )

    async def _talk(self) -> tuple[dict[str, Any], dict[str, Cost]]:
        clock = asyncio.get_running_loop().time
        for process in self._processes.values():
            process.begin()
        begun = clock()
        watching = asyncio.create_task(self._watch())
        answer = await self._crowd.ask({"talk": self._seconds})
        elapsed_s, packets = clock() - begun, sum(answer["sent"].values())
        watching.cancel()
        costs = {name: each.cost(packets=packets, seconds=elapsed_s) for name, each in self._processes.items()}
        return answer, costs

    async def _watch(self) -> None:
        """Look at capture's own state while it works."""
        while True:
            await asyncio.sleep(SAMPLE_S)
            with contextlib.suppress(RetoldError):
                sessions = (await ask_status(self._bus)).sessions
                ages = [one.last_packet_age_s for one in sessions if one.last_packet_age_s is not None]
                self._most_unacked = max(self._most_unacked, sum(one.unacked_batches for one in sessions))
                self._oldest_packet_s = max(self._oldest_packet_s, *ages, 0.0)

    async def _join(self) -> None:
        """Join every room; a bot may not join more than two a second for long."""
        rooms = self._crowd.rooms
        for first in range(0, len(rooms), self._joins):
            if first:
                await asyncio.sleep(JOINS_S)
            await _each(rooms[first : first + self._joins], self._start)

    async def _start(self, room: tuple[str, str]) -> None:
        guild_id, channel_id = room
        await start_recording(self._bus, StartRecording(guild_id=guild_id, channel_id=channel_id, name="load"))

    async def _drain(self, sent: int) -> Counter[str]:
        """Wait until all that was sent is acknowledged, or nothing comes any more; the sessions' totals."""
        clock = asyncio.get_running_loop().time
        totals, grew_s = Counter[str](), clock()
        while clock() - grew_s < GIVE_UP_S:
            sessions = (await ask_status(self._bus)).sessions
            now = sum((Counter(one.packets) for one in sessions), Counter[str]())
            if now != totals:
                totals, grew_s = now, clock()
            waiting = sum(one.unacked_batches + one.held_packets for one in sessions)
            if totals["recorded"] >= sent and not waiting:
                break
            await asyncio.sleep(POLL_S)
        return totals


class _Crowd:
    """The process of the loopback Discord and its people."""

    def __init__(self, process: asyncio.subprocess.Process, hello: dict[str, Any]) -> None:
        self._process = process
        self.pid = process.pid
        self.environ: dict[str, str] = hello["environ"]
        self.rooms: list[tuple[str, str]] = [(guild, channel) for guild, channel in hello["rooms"]]

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """One command and its answer."""
        if self._process.stdin is None:
            raise UnavailableError("the crowd has no stdin")
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return await _answer(self._process)


@contextlib.asynccontextmanager
async def _crowd(spec: CrowdSpec) -> AsyncIterator[_Crowd]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.loopback.crowd", msgspec.json.encode(spec).decode()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=LINE_BYTES,
    )
    try:
        yield _Crowd(process, await _answer(process))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answer(process: asyncio.subprocess.Process) -> dict[str, Any]:
    line = await process.stdout.readline() if process.stdout else b""
    if not line:
        raise UnavailableError("the crowd ended")
    answer: dict[str, Any] = json.loads(line)
    return answer


async def _hear_owners(bus: Bus) -> dict[str, str]:
    """Which capture has which shard, kept up to date."""
    owners: dict[str, str] = {}

    async def hear(key: str, owner: str) -> None:
        if key.startswith("shard."):
            owners[key] = owner

    await renewals(bus, hear)
    return owners


async def _until_ready(bus: Bus, owners: dict[str, str], captures: int) -> None:
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not await _ready(bus) or len({*owners.values()}) < captures:  # noqa: ASYNC110  # others' state
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise UnavailableError(f"capture did not come up in {READY_TIMEOUT_S:g} s; see capture.log") from error


async def _ready(bus: Bus) -> bool:
    try:
        return (await ask_status(bus)).ready
    except RetoldError:
        return False


async def _each(rooms: list[tuple[str, str]], act: Callable[[tuple[str, str]], Awaitable[Any]]) -> list[Any]:
    """Do it for every room, a few at a time."""
    room_for = asyncio.Semaphore(AT_ONCE)

    async def one(room: tuple[str, str]) -> Any:
        async with room_for:
            return await act(room)

    return await asyncio.gather(*(one(room) for room in rooms))
