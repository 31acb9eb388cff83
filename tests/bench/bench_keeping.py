"""What it costs to keep sessions: a look at a thousand, and an hour of four speakers backed up, checked and restored.

The floor of a look is to read the directory; that of a backup is to copy the same bytes, with their digest, and sync.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import structlog

from contracts.directory import SessionEntry
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import put_entry, read_directory
from contracts.jetstream.leases import holding
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.streams import create_session
from contracts.packets import BATCH_PACKETS, Packet, PacketBatch, encode_batch
from contracts.settings import Settings
from contracts.subjects import packets
from ops.backup import back_up, check_backup
from ops.keeper import Keeper
from ops.restore import restore
from ops.vault.place import Folder
from tests.installation import installed

SESSIONS: Final = 1000
SPEAKERS: Final = 4
BATCHES: Final = 7200 * SPEAKERS  # of an hour: two a second and speaker
ROUNDS: Final = 3


def rows() -> Iterator[dict[str, str | float]]:
    """One row per kind of work, CPU seconds of this process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        yield from asyncio.run(_look(Path(folder) / "look"))
        yield from asyncio.run(_back_up(Path(folder)))


async def _look(folder: Path) -> list[dict[str, str | float]]:
    async with installed(folder, Settings(retention="30d")) as here:
        for _ in range(SESSIONS):
            await put_entry(here.bus, _entry(new_id(), time.time_ns()))
        async with holding(here.bus, "keeper", "bench") as lease:
            keeper = Keeper(here.bus, here.settings)
            floor = min([await _cpu(lambda: read_directory(here.bus)) for _ in range(ROUNDS)])
            value = min([await _cpu(lambda: keeper.sweep(lease)) for _ in range(ROUNDS)])
    return [_row(f"look at {SESSIONS} sessions", value, floor)]


async def _back_up(folder: Path) -> list[dict[str, str | float]]:
    place = Folder(folder / "backup")
    async with installed(folder / "here") as here, installed(folder / "there") as there:
        await _record(here.bus)
        first = await _cpu(lambda: back_up(here.bus, here.settings, place))
        again = await _cpu(lambda: back_up(here.bus, here.settings, place))
        check = await _cpu(lambda: check_backup(place, here.settings))
        back = await _cpu(lambda: restore(there.bus, there.settings, place))
    (log,) = (folder / "backup").rglob("*.retold")
    floor = await _cpu(lambda: asyncio.to_thread(_copy, log, folder / "copy"))
    what = f"60 min x {SPEAKERS}, {log.stat().st_size / 1e6:.0f} MB"
    took = {"back up": first, "back up again, unchanged": again, "check": check, "restore": back}
    return [_row(f"{name} {what}", value, floor) for name, value in took.items()]


async def _record(bus: Bus) -> None:
    session, body = new_id(), os.urandom(120)
    await create_session(bus, session)
    publisher = Publisher(bus)
    await publisher.start()
    for number in range(BATCHES):
        ssrc = number % SPEAKERS
        spoken = tuple(Packet(k, k, k, body) for k in range(BATCH_PACKETS))
        batch = PacketBatch(1, ssrc, number // SPEAKERS, number, spoken)
        publisher.publish(packets(session, 1, ssrc), batch.message_id, encode_batch(batch))
        if number % 2048 == 0:
            await publisher.drain(timeout_s=60)
    await publisher.drain(timeout_s=60)
    await publisher.close()
    await put_entry(bus, _entry(session, 2))


def _entry(session: str, ended_unix_ns: int) -> SessionEntry:
    return SessionEntry(
        session=session,
        guild_id="1",
        guild_name="The Guild",
        channel_id="2",
        channel_name="General",
        started_unix_ns=1,
        ended_unix_ns=ended_unix_ns,
        people={"11": "Ada", "12": "Bela"},
    )


def _copy(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as write:
        while chunk := read.read(1 << 20):
            digest.update(chunk)
            write.write(chunk)
        os.fsync(write.fileno())
    return digest.hexdigest()


async def _cpu(work: Callable[[], Awaitable[object]]) -> float:
    begun = time.process_time()
    await work()
    return time.process_time() - begun


def _row(name: str, value: float, floor: float) -> dict[str, str | float]:
    return {"name": f"keeping: {name}", "value": value, "unit": "CPU s", "floor": floor, "ratio": value / floor}
