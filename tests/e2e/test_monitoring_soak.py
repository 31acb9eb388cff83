"""A running installation, watched: by the real Prometheus on the shipped files, and by `retold lag`.

Rooms talk; a mixer is stopped, and started again. What is told is compared with what the server itself says. Once with
few rooms, and once with as many as one machine is to record.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from contracts.jetstream.connection import JetStreamError
from contracts.streams import FOLLOW_CONSUMER, session_stream_name
from tests.live_rooms import LiveRooms, eventually, live_rooms
from tests.prometheus import Prometheus, needs_prometheus, prometheus, questions

pytestmark = [pytest.mark.asyncio(loop_scope="module"), needs_prometheus, pytest.mark.soak]

MOST_FOLLOWED = 4
ALERT_S = 15  # from the mixer's end until the alerts fire
KEPT_UP = 5  # messages
BUSY_S = 120  # for what has no promise


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[2, 100], ids=["few", "hundred"])
async def rooms(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LiveRooms]:
    """Rooms that talk, the first of them followed by the mixer."""
    folder = tmp_path_factory.mktemp("rooms")
    async with live_rooms(folder, rooms=request.param, RETOLD_FOLLOW=str(MOST_FOLLOWED)) as running:
        await running.record()
        await eventually(lambda: keeps_up(running), seconds=BUSY_S, what="the mixer follows what it can")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watching(rooms: LiveRooms, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    """Prometheus, when it has seen everything."""
    async with prometheus(tmp_path_factory.mktemp("prometheus"), rooms.targets) as running:

        async def sees_all() -> bool:
            return len(await running.up()) == len(rooms.targets) and not await running.firing()

        await eventually(sees_all, seconds=BUSY_S, what="every process answers, and no alert fires")
        yield running


async def test_every_question_of_the_dashboard_is_answered(watching: Prometheus):
    """With data, while rooms talk."""

    async def unanswered() -> list[tuple[str, str]]:
        return [(panel, asked) for panel, asked in questions() if not await watching.query(asked)]

    async def all_answered() -> bool:
        return not await unanswered()

    try:
        await eventually(all_answered, seconds=BUSY_S, what="every question is answered")
    except AssertionError as error:
        raise AssertionError(await unanswered()) from error
    assert len(list(questions())) > 30


async def test_lag_is_what_the_server_says(rooms: LiveRooms):
    """`lag` and CONSUMER.INFO have one number for each room, as far as they are asked at one moment."""
    told = await lag(rooms)
    assert {room["session"] for room in told["rooms"]} == set(rooms.sessions)
    followed = [room for room in told["rooms"] if room["lag_messages"] is not None]
    assert len(followed) == min(MOST_FOLLOWED, len(rooms.sessions))
    for room in followed:
        server = await consumer_info(rooms, room["session"])
        assert server["ack_floor"]["stream_seq"] >= room["ack_floor"] > 0
        assert abs(server["num_pending"] + server["num_ack_pending"] - room["lag_messages"]) < 10  # as it grows
    for room in told["rooms"]:
        assert room["state"] == "heard"
        assert room["dave_version"] == 1
        assert 0 < room["ack_p50_s"] <= room["ack_p99_s"]
        assert 0 <= room["unheard_s"] < 1
        assert room["spool_bytes"] > 0


async def test_a_stopped_mixer_is_seen_and_drains_when_it_is_back(rooms: LiveRooms, watching: Prometheus):
    """Within ALERT_S the alerts fire, and `lag` shows each room behind that was followed; then it goes by itself."""
    followed = await followed_sessions(rooms)
    await rooms.supervisor.stop("mixer")

    async def alerts_fire() -> bool:
        return {"RetoldMixerAway", "RetoldFollowerBehind"} <= await watching.firing()

    await eventually(alerts_fire, seconds=ALERT_S, what="both alerts fire")
    told = {room["session"]: room for room in (await lag(rooms))["rooms"]}
    assert [room["session"] for room in list(told.values())[: len(followed)]] == [
        session for session in told if session in followed
    ]
    for session in followed:
        behind = await consumer_info(rooms, session)
        assert told[session]["state"] == "behind"
        assert 10 < told[session]["lag_messages"] <= behind["num_pending"] + behind["num_ack_pending"]
        assert told[session]["trend"] > 0
    rooms.supervisor.start("mixer")

    async def drained() -> bool:
        return await keeps_up(rooms) and not await watching.firing()

    await eventually(drained, seconds=BUSY_S, what="every room is drained, and no alert fires")
    assert {room["state"] for room in (await lag(rooms))["rooms"]} == {"heard"}


async def lag(rooms: LiveRooms) -> dict[str, Any]:
    """What `retold lag --json` says, as a user runs it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli.main", "lag", "--json"),
        env=rooms.environ,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(told)
    return found


async def consumer_info(rooms: LiveRooms, session: str) -> dict[str, Any]:
    return await rooms.bus.api(f"CONSUMER.INFO.{session_stream_name(session)}.{FOLLOW_CONSUMER}")


async def followed_sessions(rooms: LiveRooms) -> dict[str, dict[str, Any]]:
    """What the server says of the follower of each session that has one."""
    found = {}
    for session in rooms.sessions:
        with contextlib.suppress(JetStreamError):  # there is none, just now
            found[session] = await consumer_info(rooms, session)
    return found


async def keeps_up(rooms: LiveRooms) -> bool:
    """Whether the mixer follows as many as it may, and keeps up with them."""
    infos = (await followed_sessions(rooms)).values()
    if len(infos) < min(MOST_FOLLOWED, len(rooms.sessions)):
        return False
    return all(info["ack_floor"]["stream_seq"] > 0 and info["num_pending"] < KEPT_UP for info in infos)
