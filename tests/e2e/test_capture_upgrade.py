"""An upgrade in mid-call: capture is told to leave by SIGTERM, and the next one goes on in the same session."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from contracts.events import (
    GapRecorded,
    SessionEnded,
    SessionFact,
    SessionStarted,
    TakeClosed,
    TakeOpened,
    decode_fact,
)
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.leases import is_leased
from contracts.jetstream.replay import replay
from contracts.subjects import facts
from tests.killable import READY_S, Room, key, recorded, room

pytestmark = pytest.mark.long

LEAVES_S = 5.0  # service managers wait for ten at least
TALK_S = 60.0  # longer than a busy machine needs: the call ends when enough was said behind the gap
BEFORE_S = 3.0
BEHIND_PACKETS = 50  # a second of somebody's speech
JOIN_S = 2.0  # what a gap may have beyond the end of the one process and the start of the next
ON_THE_WAY_NS = 300_000_000  # around a gap: what was sent, and not yet or not any more heard


@pytest.mark.alone
async def test_an_upgrade_goes_on_in_the_same_session(tmp_path: Path) -> None:
    """It leaves with everything saved, the next take opens within seconds, and only what is between is a gap."""
    async with room(tmp_path, seconds=TALK_S) as here:
        session = await here.begin()
        talk = asyncio.create_task(here.discord.talk())
        await asyncio.sleep(BEFORE_S)
        bus = await connect(here.server.url, name="check")
        left_s = await told_to(here, signal.SIGTERM)
        assert not await is_leased(bus, session), "another capture could go on at once"
        assert not [fact for fact in await told(bus, session) if isinstance(fact, SessionEnded)]
        begun = time.monotonic()
        await here.start_capture()
        status = await here.recording()
        back_s = time.monotonic() - begun
        assert [live.session for live in status.sessions] == [session]
        await here.discord.wait_for_bot()
        await heard_again(here)
        talk.cancel()
        stopped = await here.stop()
        assert stopped.session == session
        log = await told(bus, session)
        closed = [fact.cause for fact in log if isinstance(fact, TakeClosed)]
        assert closed[0] == "handed_over"
        assert [fact.cause for fact in log if isinstance(fact, TakeOpened)] == ["start", "restart"]
        (gap,) = [fact for fact in log if isinstance(fact, GapRecorded)]
        assert gap.cause == "handed_over"
        deaf_s = (gap.to_ns - gap.from_ns) / 1e9
        print(f"left in {left_s:.2f} s, back in {back_s:.2f} s, deaf for {deaf_s:.2f} s")
        assert 0 < deaf_s < left_s + back_s + JOIN_S
        await check_all_but_the_gap(here, bus, session, gap)
        assert len([fact for fact in log if isinstance(fact, SessionEnded)]) == 1
        await bus.close()


@pytest.mark.soak  # that SIGINT ends a recording is shown by test_capture_trouble, too
async def test_what_is_told_to_end_ends(tmp_path: Path) -> None:
    """Ctrl-C, and `systemctl stop` by our unit: the recording is over, and the next capture lets it be."""
    async with room(tmp_path, seconds=5, speakers=1) as here:
        session = await here.begin()
        await here.discord.talk()
        bus = await connect(here.server.url, name="check")
        await told_to(here, signal.SIGINT)
        assert [fact.cause for fact in await told(bus, session) if isinstance(fact, SessionEnded)] == ["shutdown"]
        await here.start_capture()
        await here.ready()
        async with asyncio.timeout(READY_S):
            while list((tmp_path / "data" / "spool").glob("*.spool")):
                await asyncio.sleep(0.1)
        assert [fact.cause for fact in await told(bus, session) if isinstance(fact, SessionEnded)] == ["shutdown"]
        await bus.close()


async def heard_again(here: Room) -> None:
    """Wait until enough was said, from now on, that the recorder should hear."""
    now_ns = time.time_ns() + 2 * ON_THE_WAY_NS
    async with asyncio.timeout(READY_S):
        while sum(frame.sent_unix_ns > now_ns for frame in here.discord.journal.owed()) < BEHIND_PACKETS:
            await asyncio.sleep(0.1)
    await asyncio.sleep(ON_THE_WAY_NS / 1e9)


async def told_to(here: Room, number: signal.Signals) -> float:
    """Capture gets a signal and is gone in time, without complaint; the seconds that it took."""
    assert here.capture is not None
    begun = time.monotonic()
    here.capture.send_signal(number)
    assert await asyncio.wait_for(here.capture.wait(), LEAVES_S) == 0
    took_s = time.monotonic() - begun
    said = here.log_of().read_text()
    assert "Traceback" not in said, said
    return took_s


async def told(bus: Bus, session: str) -> list[SessionFact]:
    """The facts of a session."""
    return [decode_fact(message.data) async for message in replay(bus, session, filter_subject=facts(session))]


async def check_all_but_the_gap(here: Room, bus: Bus, session: str, gap: GapRecorded) -> None:
    """Every packet that was sent before and behind the gap is in the log, once."""
    (started,) = [fact for fact in await told(bus, session) if isinstance(fact, SessionStarted)]
    found = await recorded(bus, session)
    assert max(found.values()) == 1
    from_ns = started.unix_ns + gap.from_ns - ON_THE_WAY_NS
    to_ns = started.unix_ns + gap.to_ns + ON_THE_WAY_NS
    owed = [frame for frame in here.discord.journal.owed() if not from_ns < frame.sent_unix_ns < to_ns]
    before = [frame for frame in owed if frame.sent_unix_ns <= from_ns]
    assert before
    assert len(before) < len(owed)
    missing = [(frame.sent_unix_ns - from_ns) / 1e9 for frame in owed if key(frame) not in found]
    assert not missing, f"seconds after the gap began, which was {(to_ns - from_ns) / 1e9} s"
