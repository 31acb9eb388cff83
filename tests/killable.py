"""A call whose nats-server and capture process can be killed; the loopback Discord's journal says what it was owed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from contracts import subjects
from contracts.commands import (
    Reply,
    Started,
    StartRecording,
    Status,
    Stopped,
    StopRecording,
    decode_reply,
)
from contracts.errors import UnavailableError
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.replay import replay
from contracts.packets import Outcome, decode_batch
from ops.embedded import EmbeddedServer, free_port
from ops.loopback.journal import SentFrame
from ops.loopback.plan import make_plan
from ops.loopback.server import LoopbackDiscord

GUILD, CHANNEL = 4001, 4002
READY_S = 30.0


class Room:
    """A nats-server, a Discord and a capture process, each of which can be killed."""

    def __init__(self, directory: Path, server: EmbeddedServer, discord: LoopbackDiscord) -> None:
        self.directory = directory
        self.server = server
        self.discord = discord
        self.capture: asyncio.subprocess.Process | None = None
        self._spawned: list[asyncio.subprocess.Process] = []

    async def start_capture(self) -> None:
        """The capture process, again if one ran before."""
        self.capture = await self.spawn(self.discord, "data")

    async def spawn(self, discord: LoopbackDiscord, data: str, **settings: str) -> asyncio.subprocess.Process:
        """A capture process with a bot at `discord` and a folder of its own; its log is `<data>.log`."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
        environ |= {
            **discord.environ,
            **self.server.environ("capture"),
            "RETOLD_DATA": str(self.directory / data),
            **settings,
        }
        with self.log_of(data).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "capture", env=environ, stdout=log, stderr=log
            )
        self._spawned.append(process)
        return process

    async def end(self) -> None:
        """No capture process is left behind."""
        for process in self._spawned:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def log_of(self, data: str = "data") -> Path:
        """What the capture process with that folder said."""
        return self.directory / f"{data}.log"

    async def kill_capture(self) -> None:
        assert self.capture is not None
        self.capture.kill()
        await self.capture.wait()

    async def ask(self, subject: str, request: object, *, timeout_s: float = 40) -> Reply:
        bus = await connect(self.server.url, name="test")
        try:
            return decode_reply(await bus.request(subject, msgspec.json.encode(request), timeout_s=timeout_s))
        finally:
            await bus.close()

    async def ready(self) -> None:
        async with asyncio.timeout(READY_S):
            while not (isinstance(status := await self._status(), Status) and status.ready):
                await asyncio.sleep(0.1)

    async def recording(self) -> Status:
        """Capture's status as soon as it records again."""
        async with asyncio.timeout(READY_S):
            while not (isinstance(status := await self._status(), Status) and status.sessions):
                await asyncio.sleep(0.05)
        return status

    async def _status(self) -> Reply | None:
        with contextlib.suppress(UnavailableError):
            return await self.ask(subjects.STATUS, {}, timeout_s=1)
        return None

    async def begin(self) -> str:
        started = await self.ask(subjects.START_RECORDING, StartRecording(guild_id=str(GUILD), channel_id=str(CHANNEL)))
        assert isinstance(started, Started), started
        await self.discord.wait_for_bot()
        return started.session

    async def stop(self) -> Stopped:
        stopped = await self.ask(subjects.STOP_RECORDING, StopRecording(guild_id=str(GUILD)), timeout_s=60)
        assert isinstance(stopped, Stopped), stopped
        return stopped

    async def kill_server(self) -> None:
        assert self.server.pid is not None
        os.kill(self.server.pid, signal.SIGKILL)
        await self.server.wait()


@contextlib.asynccontextmanager
async def room(directory: Path, *, seconds: float, speakers: int = 3) -> AsyncIterator[Room]:
    plan = make_plan(seconds=seconds, speakers=speakers, seed=3, joins=False)
    server = EmbeddedServer(directory / "nats", port=free_port())
    await server.start()
    async with LoopbackDiscord(plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=directory) as discord:
        here = Room(directory, server, discord)
        try:
            await here.start_capture()
            await here.ready()
            yield here
        finally:
            if here.capture is not None and here.capture.returncode is None:
                here.capture.terminate()
                assert await asyncio.wait_for(here.capture.wait(), 60) == 0
            await here.end()
            await server.stop()


async def recorded(bus: Bus, session: str) -> Counter[tuple[int, int, int, bytes]]:
    """Every packet in the log that could be opened; the frames before a welcome never can."""
    found: Counter[tuple[int, int, int, bytes]] = Counter()
    seen: set[str] = set()
    async for message in replay(bus, session):
        if isinstance(subjects.parse(message.subject), subjects.PacketSubject):
            batch = decode_batch(message.data)
            assert batch.message_id not in seen, "a batch is in the log twice"
            seen.add(batch.message_id)
            for packet in batch.packets:
                if not Outcome(packet.outcome).undecryptable:
                    found[batch.ssrc, packet.sequence, packet.timestamp, packet.payload] += 1
    return found


def key(frame: SentFrame) -> tuple[int, int, int, bytes]:
    return frame.ssrc, frame.sequence, frame.timestamp, frame.opus


async def check_nothing_lost(here: Room, session: str) -> None:
    bus = await connect(here.server.url, name="check")
    found = await recorded(bus, session)
    await bus.close()
    owed = {key(frame) for frame in here.discord.journal.owed()}
    assert owed
    assert owed == set(found)
    assert max(found.values()) == 1
