"""What was heard is kept: through a nats-server that dies, freezes or forgets, and a capture that is killed.

Capture runs as a process of its own; the loopback Discord's journal says what it was owed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from contracts import subjects
from contracts.events import SessionEnded, TakeClosed, TakeOpened, count_outcomes, decode_fact
from contracts.jetstream.connection import connect
from contracts.jetstream.replay import replay
from tests.killable import READY_S, Room, check_nothing_lost, key, recorded, room

pytestmark = pytest.mark.long

KILLED_LOSES_S = 0.5  # issue: of speech, when capture is killed
BACK_WITHIN_S = 5.0  # of the restart
FRAME_S = 0.02
TAIL_BYTES = 60_000  # about the last second of a server's data


async def killed_again_and_again(here: Room) -> None:
    for _ in range(3):
        await asyncio.sleep(1.0)
        await here.kill_server()
        await asyncio.sleep(0.3)
        await here.server.start()


async def stopped_for_a_while(here: Room) -> None:
    await asyncio.sleep(1.0)
    await here.server.stop()
    await asyncio.sleep(3.0)
    await here.server.start()


async def frozen_for_a_while(here: Room) -> None:
    await asyncio.sleep(1.0)
    assert here.server.pid is not None
    os.kill(here.server.pid, signal.SIGSTOP)
    await asyncio.sleep(3.0)
    os.kill(here.server.pid, signal.SIGCONT)


async def restarted_without_its_last_second(here: Room) -> None:
    """Power loss: what the server had acked, but not synced, is gone."""
    await asyncio.sleep(2.5)
    await here.kill_server()
    cut = 0
    for block in (here.server.store).rglob("REC_*/msgs/*.blk"):
        size = block.stat().st_size
        os.truncate(block, max(0, size - TAIL_BYTES))
        cut += min(size, TAIL_BYTES)
    assert cut, "nothing was cut off: the test shows nothing"
    await here.server.start()


@pytest.mark.parametrize(
    "trouble",
    [killed_again_and_again, stopped_for_a_while, frozen_for_a_while, restarted_without_its_last_second],
)
async def test_a_server_in_trouble_costs_nothing(tmp_path: Path, trouble: object) -> None:
    """Every packet is in the log exactly once, whatever happened to nats-server while people talked."""
    assert callable(trouble)
    async with room(tmp_path, seconds=7) as here:
        session = await here.begin()
        await asyncio.gather(here.discord.talk(), trouble(here))
        await here.stop()
        await check_nothing_lost(here, session)


async def killed_every_five_seconds(here: Room) -> None:
    for _ in range(12):
        await asyncio.sleep(4.5)
        await here.kill_server()
        await asyncio.sleep(0.5)
        await here.server.start()


async def stopped_for_a_minute(here: Room) -> None:
    await asyncio.sleep(2.0)
    await here.server.stop()
    await asyncio.sleep(60.0)
    await here.server.start()


@pytest.mark.soak
@pytest.mark.parametrize(
    ("trouble", "seconds", "speakers"), [(killed_every_five_seconds, 66, 20), (stopped_for_a_minute, 70, 5)]
)
async def test_a_server_in_long_trouble_costs_nothing(
    tmp_path: Path, trouble: object, seconds: float, speakers: int
) -> None:
    """As above, for a minute, with twenty speakers."""
    assert callable(trouble)
    async with room(tmp_path, seconds=seconds, speakers=speakers) as here:
        session = await here.begin()
        await asyncio.gather(here.discord.talk(), trouble(here))
        await here.stop()
        await check_nothing_lost(here, session)


@pytest.mark.alone
async def test_a_killed_capture_goes_on_in_the_same_session(tmp_path: Path) -> None:
    """Capture dies by -9 in mid-speech: its spool is drained, the session goes on, half a second of speech is lost."""
    async with room(tmp_path, seconds=12) as here:
        session = await here.begin()
        talk = asyncio.create_task(here.discord.talk())
        await asyncio.sleep(4.0)
        loop = asyncio.get_running_loop()
        killed_ns = time.time_ns()
        await here.kill_capture()
        await here.start_capture()
        restarted = loop.time()
        status = await here.recording()
        back_s = loop.time() - restarted
        assert [live.session for live in status.sessions] == [session]
        await here.discord.wait_for_bot()
        back_ns = time.time_ns()
        await talk
        stopped = await here.stop()
        assert stopped.session == session
        bus = await connect(here.server.url, name="check")
        found = await recorded(bus, session)
        facts = [
            decode_fact(message.data)
            async for message in replay(bus, session)
            if isinstance(subjects.parse(message.subject), subjects.FactSubject)
        ]
        await bus.close()
        takes = [(fact.take, fact.cause) for fact in facts if isinstance(fact, TakeOpened)]
        assert takes == [(1, "start"), (2, "restart")]
        assert [fact.cause for fact in facts if isinstance(fact, TakeClosed)] == ["capture_died", "stopped"]
        ended = [fact for fact in facts if isinstance(fact, SessionEnded)]
        assert count_outcomes(ended[0].tracks)["recorded"] == sum(found.values())
        missing = [frame for frame in here.discord.journal.owed() if key(frame) not in found]
        before = Counter(frame.ssrc for frame in missing if frame.sent_unix_ns < killed_ns)
        assert all(count * FRAME_S <= KILLED_LOSES_S for count in before.values()), before
        assert not [frame for frame in missing if frame.sent_unix_ns > back_ns]
        assert back_s < BACK_WITHIN_S
        assert not list((tmp_path / "data" / "spool").glob("*.part"))


async def test_a_second_capture_cannot_have_the_same_folder(tmp_path: Path) -> None:
    """Two captures on one RETOLD_DATA: the second says so and ends."""
    async with room(tmp_path, seconds=5) as here:
        first = here.capture
        await here.start_capture()
        second, here.capture = here.capture, first
        assert second is not None
        assert await asyncio.wait_for(second.wait(), READY_S) == 1
        assert "another capture runs" in here.log_of().read_text()
