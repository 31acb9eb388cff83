"""A recorder in the test's own process: capture as its service runs it, between a loopback Discord and nats-server."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from capture.app import run
from contracts.commands import AskStatus, Reply, Started, StartRecording, Status, Stopped, StopRecording, decode_reply
from contracts.errors import UnavailableError
from contracts.events import SessionEnded, SessionFact, decode_fact
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.replay import replay
from contracts.packets import Packet, PacketBatch, decode_batch
from contracts.settings import load_settings
from contracts.subjects import START_RECORDING, STATUS, STOP_RECORDING, PacketSubject, parse
from ops.loopback.journal import Journal
from ops.loopback.room import Room
from ops.loopback.server import LoopbackDiscord

DEADLINE_S = 30.0
ANSWER_S = 60.0


class Recorder:
    """A running capture, asked over the bus as the command line asks it."""

    def __init__(self, bus: Bus, server: LoopbackDiscord) -> None:
        self.bus = bus
        self._server = server

    async def ready(self, running: asyncio.Task[None] | None = None) -> None:
        """Wait until the bot is logged in; `running` must not end before."""
        async with asyncio.timeout(DEADLINE_S):
            while not await self._ready():
                assert running is None or not running.done(), running.exception()
                await asyncio.sleep(0.02)

    async def _ready(self) -> bool:
        try:
            return (await self.status()).ready
        except UnavailableError:
            return False

    async def start(self, room: Room | None = None) -> str:
        """Record a room; the session, once everybody is in one group."""
        spec = (room or self._server.room).spec
        request = StartRecording(guild_id=str(spec.guild_id), channel_id=str(spec.channel_id))
        started = await self._ask(START_RECORDING, request)
        assert isinstance(started, Started), started
        await self._server.wait_for_bot(timeout_s=DEADLINE_S, guild_id=spec.guild_id)
        return started.session

    async def stop(self, room: Room | None = None) -> Stopped:
        """End a room's recording; everything is in the log."""
        spec = (room or self._server.room).spec
        stopped = await self._ask(STOP_RECORDING, StopRecording(guild_id=str(spec.guild_id)))
        assert isinstance(stopped, Stopped), stopped
        return stopped

    async def status(self) -> Status:
        """How it goes."""
        status = await self._ask(STATUS, AskStatus())
        assert isinstance(status, Status), status
        return status

    async def _ask(self, subject: str, request: msgspec.Struct) -> Reply:
        return decode_reply(await self.bus.request(subject, msgspec.json.encode(request), timeout_s=ANSWER_S))


@contextlib.asynccontextmanager
async def recorder(server: LoopbackDiscord, *, nats_url: str, data: Path, **more: str) -> AsyncIterator[Recorder]:
    """Capture, logged in at `server`, with `more` in its environment; a failure of it is the test's."""
    settings = load_settings({**server.environ, "RETOLD_NATS_URL": nats_url, "RETOLD_DATA": str(data), **more})
    stop = asyncio.Event()
    bus = await connect(nats_url, name="test")
    capture = asyncio.create_task(run(settings, stop=stop))
    try:
        each = Recorder(bus, server)
        await each.ready(capture)
        yield each
    finally:
        stop.set()
        await capture
        await bus.close()


class Log:
    """What a session's log holds."""

    def __init__(self, facts: list[SessionFact], batches: list[PacketBatch]) -> None:
        self.facts = facts
        self.batches = batches

    def packets(self) -> list[tuple[PacketBatch, Packet]]:
        """Every packet with its batch."""
        return [(batch, packet) for batch in self.batches for packet in batch.packets]

    def wire(self) -> Counter[tuple[int, int, int, bytes, str]]:
        """Every packet as sent: SSRC, sequence, timestamp, payload, outcome; duplicates count."""
        return Counter(
            (batch.ssrc, packet.sequence, packet.timestamp, packet.payload, packet.outcome.name)
            for batch, packet in self.packets()
        )

    def ended(self) -> SessionEnded:
        """Its end."""
        (ended,) = [fact for fact in self.facts if isinstance(fact, SessionEnded)]
        return ended


async def read_log(bus: Bus, session: str) -> Log:
    """The whole log of a session."""
    facts: list[SessionFact] = []
    batches: list[PacketBatch] = []
    async for message in replay(bus, session):
        if isinstance(parse(message.subject), PacketSubject):
            batches.append(decode_batch(message.data))
        else:
            facts.append(decode_fact(message.data))
    return Log(facts, batches)


def owed(journal: Journal) -> Counter[tuple[int, int, int, bytes, str]]:
    """What must be in the log: every packet that the simulated network delivered and the recorder had the key for."""
    return Counter((each.ssrc, each.sequence, each.timestamp, each.opus, each.kind.upper()) for each in journal.owed())
