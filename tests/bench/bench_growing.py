"""What growing costs: a thousand sessions at a restart, an hour of speech on disk, three copies, a take-over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from capture.recovery import read_standing
from contracts import subjects
from contracts.directory import SessionEntry
from contracts.errors import RetoldError
from contracts.events import SessionStarted, encode_fact
from contracts.ids import new_id
from contracts.jetstream.asking import ask_status
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import put_entry
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.replay import replay
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.packets import BATCH_PACKETS, Packet, PacketBatch, encode_batch
from ops.cost import Process
from ops.embedded import EmbeddedServer, addresses, embedded_cluster
from ops.loopback.plan import make_plan
from ops.loopback.server import LoopbackDiscord

SESSIONS = 1000
MESSAGES = 20  # in each of them: ten seconds of one voice
SPEECH_BATCHES = 7_200  # an hour of one voice without a pause
OPUS_BYTES = 120
COPIED = 20_000  # messages
HOUR_PACKETS = 180_000


def rows() -> Iterator[dict[str, Any]]:
    """Figures of one run; they take about two minutes."""
    with tempfile.TemporaryDirectory(prefix="retold-bench-") as folder:
        yield from asyncio.run(_restart(Path(folder)))
        yield from asyncio.run(_hour(Path(folder) / "hour"))
        yield from asyncio.run(_copies(Path(folder)))


def _row(name: str, value: float, unit: str, floor: float) -> dict[str, Any]:
    return {"name": f"growing: {name}", "value": value, "unit": unit, "floor": floor, "ratio": value / floor}


# --- a restart with a thousand sessions


async def _restart(folder: Path) -> list[dict[str, Any]]:
    plan = make_plan(seconds=5, speakers=1, seed=1, joins=False)
    async with LoopbackDiscord(plan=plan, guild_id=1, channel_id=2, directory=folder) as discord:
        empty = await _restarted(folder / "empty", discord, sessions=0)
        full = await _restarted(folder / "full", discord, sessions=SESSIONS)
    names = ("nats-server after kill -9", "capture until it is ready", "nats-server's memory after it")
    units = ("s", "s", "MB")
    return [
        _row(f"{SESSIONS} sessions, {name}", value, unit, floor)
        for name, unit, value, floor in zip(names, units, full, empty, strict=True)
    ]


async def _restarted(folder: Path, discord: LoopbackDiscord, *, sessions: int) -> tuple[float, float, float]:
    async with EmbeddedServer(folder / "nats") as server:
        bus = await connect(server.url, name="bench")
        await ensure_shared(bus)
        for number in range(sessions):
            await _past_session(bus, number)
        await bus.close()
        await server.kill()
        began = time.monotonic()
        await server.start()
        bus = await connect(server.url, name="bench")
        server_s = time.monotonic() - began
        async with _capture(folder, server, discord, bus) as capture_s:
            rss = Process(server.pid or 0).rss_bytes / 1e6
        await bus.close()
    return server_s, capture_s, rss


async def _past_session(bus: Bus, number: int) -> None:
    session = new_id()
    await create_session(bus, session)
    await put_entry(
        bus,
        SessionEntry(
            session=session,
            guild_id=str(number),
            guild_name="Guild",
            channel_id="2",
            channel_name="Table",
            started_unix_ns=1,
            ended_unix_ns=2,
        ),
    )
    await _publish(bus, _speech(session, MESSAGES))


@contextlib.asynccontextmanager
async def _capture(folder: Path, server: EmbeddedServer, discord: LoopbackDiscord, bus: Bus) -> AsyncIterator[float]:
    """How long a capture takes from its start until its bot is ready, seconds."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
    environ |= discord.environ | {"RETOLD_NATS_URL": server.url, "RETOLD_DATA": str(folder / "data")}
    environ["RETOLD_LOG_LEVEL"] = "error"
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "capture", env=environ)
    try:
        while not await _ready(bus):
            await asyncio.sleep(0.02)
        yield time.monotonic() - began
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def _ready(bus: Bus) -> bool:
    try:
        return (await ask_status(bus)).ready
    except RetoldError:
        return False


# --- an hour of one voice


async def _hour(folder: Path) -> list[dict[str, Any]]:
    session = new_id()
    async with EmbeddedServer(folder) as server:
        bus = await connect(server.url, name="bench")
        await ensure_shared(bus)
        await create_session(bus, session)
        messages = _speech(session, SPEECH_BATCHES)
        await _publish(bus, messages)
        stored = sum(path.stat().st_size for path in server.store.rglob("*.blk") if f"REC_{session}" in path.parts)
        began = time.process_time()
        async for _ in replay(bus, session):
            pass
        floor_s = time.process_time() - began
        began = time.process_time()
        await read_standing(bus, session)
        standing_s = time.process_time() - began
        await bus.close()
    return [
        _row("storage of an hour of one voice", stored / 1e6, "MB", HOUR_PACKETS * OPUS_BYTES / 1e6),
        _row("taking over an hour of one voice, CPU", standing_s, "s", floor_s),
    ]


# --- copies


async def _copies(folder: Path) -> list[dict[str, Any]]:
    async with EmbeddedServer(folder / "one") as server:
        one_us = await _publish_cost([server], 1)
    async with embedded_cluster(folder / "three") as servers:
        three_us = await _publish_cost(servers, 3)
    return [_row("three copies, CPU of all servers per message of 25 packets", three_us, "us", one_us)]


async def _publish_cost(servers: list[EmbeddedServer], copies: int) -> float:
    """CPU of the servers for a message, microseconds."""
    bus = await connect(addresses(servers), name="bench", replicas=copies)
    await ensure_shared(bus)
    session = new_id()
    await create_session(bus, session)
    processes = [Process(server.pid or 0) for server in servers]
    messages = _speech(session, COPIED)
    for process in processes:
        process.begin()
    await _publish(bus, messages)
    cost = sum(process.cost(packets=COPIED, seconds=1).us_per_packet for process in processes)
    await bus.close()
    return cost


def _speech(session: str, batches: int) -> list[tuple[str, str, bytes]]:
    """(subject, message id, data) of a session's start and so many batches of one voice."""
    random = Random(1)  # repeatable by design
    payloads = [random.randbytes(OPUS_BYTES) for _ in range(BATCH_PACKETS)]
    started = SessionStarted(
        id=new_id(),
        session=session,
        at_ns=0,
        unix_ns=1,
        guild_id="1",
        guild_name="Guild",
        channel_id="2",
        channel_name="Table",
        name="",
        started_by=None,
        boot_id="",
        boottime_ns=0,
        recorder="bench",
    )
    found = [(subjects.facts(session), started.id, encode_fact(started))]
    for number in range(batches):
        first = number * BATCH_PACKETS
        packets = tuple(
            Packet((first + each) & 0xFFFF, (first + each) * 960 & 0xFFFFFFFF, each * 20_000, payload)
            for each, payload in enumerate(payloads)
        )
        batch = PacketBatch(1, 7, number, first * 20_000_000, packets)
        found.append((subjects.packets(session, 1, 7), batch.message_id, encode_batch(batch)))
    return found


async def _publish(bus: Bus, messages: Sequence[tuple[str, str, bytes]]) -> None:
    publisher = Publisher(bus, keep_acked=False)
    await publisher.start()
    for subject, message_id, data in messages:
        publisher.publish(subject, message_id, data)
    await publisher.drain(timeout_s=120)
    await publisher.close()
