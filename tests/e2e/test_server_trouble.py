"""A server that cannot write, a block that rots, a clock that jumps: each is seen, and what was safe stays safe."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import time
from pathlib import Path

import pytest

from contracts.events import SessionEnded, TakeOpened, decode_fact
from contracts.jetstream.connection import connect
from contracts.jetstream.replay import replay
from contracts.streams import session_stream_name
from contracts.subjects import facts
from tests.killable import READY_S, Room, check_nothing_lost, room

FAKETIME = shutil.which("faketime")
LIBRARY = next(Path("/usr/lib").rglob("libfaketime.so.1"), None) if FAKETIME else None
TOLD_S = 0.5
pytestmark = pytest.mark.soak
DAY_S = 86_400


@pytest.mark.parametrize("more_bytes", [0, 10_000], ids=["read_only", "full"])
async def test_a_server_that_cannot_write_is_told_and_loses_nothing(tmp_path: Path, more_bytes: int) -> None:
    """Its disk takes no more: that is an alarm, and in the status; what is said waits in the spool, and comes later."""
    async with room(tmp_path, seconds=8) as here:
        session = await here.begin()
        talk = asyncio.create_task(here.discord.talk())
        await asyncio.sleep(1.5)
        assert here.server.pid is not None
        largest = max(path.stat().st_size for path in block_files(here, session))
        _, hard = resource.prlimit(here.server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(here.server.pid, resource.RLIMIT_FSIZE, (largest + more_bytes, hard))
        await talk
        (live,) = (await here.recording()).sessions
        assert live.unacked_batches > 0
        assert live.dropped_batches == 0
        assert live.spool_bytes > largest
        assert live.elapsed_s - live.saved_up_to_s > TOLD_S
        async with asyncio.timeout(READY_S):
            while "publish_stalled" not in here.log_of().read_text():
                await asyncio.sleep(0.1)
        await here.server.stop()
        await here.server.start()  # on a disk that takes what it is given
        await here.recording()
        await here.stop()
        await check_nothing_lost(here, session)


async def test_a_block_that_rots_is_made_good_while_the_spool_is_there(tmp_path: Path) -> None:
    """One bit of the log flips and the server starts again without what stands behind it: capture has it all."""
    async with room(tmp_path, seconds=7) as here:
        session = await here.begin()
        talk = asyncio.create_task(here.discord.talk())
        await asyncio.sleep(4.0)
        await here.kill_server()
        flip(max(block_files(here, session), key=lambda path: path.stat().st_size))
        await here.server.start()
        await talk
        await here.stop()
        async with asyncio.timeout(READY_S):
            while list((tmp_path / "data" / "spool").glob("*.spool")):
                await asyncio.sleep(0.1)
        await check_nothing_lost(here, session)


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed")
async def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    """The recorder's wall clock goes an hour on and two days back in mid-speech: one take, all packets, true times."""
    clock = tmp_path / "clock"
    clock.write_text("+0")
    settings = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with room(tmp_path, seconds=7) as here:
        await here.kill_capture()
        here.capture = await here.spawn(here.discord, "data", **settings)
        await here.ready()
        begun = time.monotonic()
        session = await here.begin()
        talk = asyncio.create_task(here.discord.talk())
        for jump in ("+1h", "-2d"):
            await asyncio.sleep(2.0)
            clock.write_text(jump)
        await talk
        stopped = await here.stop()
        assert (
            '"timestamp": "' + time.strftime("%Y-%m-%d", time.gmtime(time.time() - 2 * DAY_S))
            in here.log_of().read_text()
        )
        assert stopped.duration_s <= time.monotonic() - begun
        await check_nothing_lost(here, session)
        bus = await connect(here.server.url, name="check")
        told = [decode_fact(message.data) async for message in replay(bus, session, filter_subject=facts(session))]
        await bus.close()
        assert [fact.take for fact in told if isinstance(fact, TakeOpened)] == [1]
        assert [fact.cause for fact in told if isinstance(fact, SessionEnded)] == ["stopped"]
        times = [fact.at_ns for fact in told]
        assert min(times) >= 0
        assert max(times) <= stopped.duration_s * 1e9 + 1


def block_files(here: Room, session: str) -> list[Path]:
    """The files that hold a session's log."""
    return [path for path in here.server.store.rglob("*.blk") if session_stream_name(session) in path.parts]


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
