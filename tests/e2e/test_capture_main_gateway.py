"""The main gateway comes and goes; the call is recorded through it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from contracts.events import GapRecorded, SessionEnded, TakeOpened
from tests.never_deaf import Act, Scenario, Stage, play

pytestmark = pytest.mark.long

DEAF_S = 2.0
IDENTIFIED_S = 3.5  # with the seconds before: longer ago than Discord's pause between two identifications


async def asked_to_reconnect(stage: Stage) -> None:
    await stage.server.main.ask_to_reconnect()


async def call_closed(stage: Stage) -> None:
    stage.server.close_voice(4006, guild_id=stage.guild_id)


async def closed(stage: Stage) -> None:
    await stage.server.close_main_gateway(1000)


async def session_lost(stage: Stage) -> None:
    await stage.server.main.invalidate()


async def call_lost(stage: Stage) -> None:
    stage.server.forget_bot(guild_id=stage.guild_id)


async def call_closed_in_the_next_session(stage: Stage) -> None:
    """discord.py forgets its voice clients when a session begins; a reconnect needs them."""
    async with asyncio.timeout(10):
        while stage.server.main.session in {None, stage.main_session}:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    stage.fails()
    stage.server.close_voice(4006, guild_id=stage.guild_id)


def reconnects(act: Act, cause: str) -> Scenario:
    return Scenario(name=act.__name__, act=act, gaps=(cause,))


def goes_on(act: Act) -> Scenario:
    return Scenario(name=act.__name__, act=act, takes=("start",))


WAVES = {
    "op 7": [goes_on(asked_to_reconnect), reconnects(call_closed, "session_invalid")],
    "closed": [goes_on(closed)],
    "op 9": [
        goes_on(session_lost),
        reconnects(call_lost, "disconnected"),
        reconnects(call_closed_in_the_next_session, "session_invalid"),
    ],
}


@pytest.mark.parametrize("wave", WAVES)
async def test_the_call_goes_on(wave: str, tmp_path: Path) -> None:
    """Through a reconnect with and without resume, also when the place in the call is lost, nothing delivered is."""
    timed = {"fail_s": IDENTIFIED_S, "talk_s": IDENTIFIED_S + 3.5} if wave == "op 9" else {}
    scenarios = [msgspec.structs.replace(scenario, **timed) for scenario in WAVES[wave]]
    outcomes = await play(scenarios, tmp_path)
    for scenario in scenarios:
        outcome = outcomes[scenario.name]
        print(f"\nDEAF {wave}, {scenario.name}: {outcome.deaf_s:.2f} s")
        assert outcome.causes(SessionEnded) == ("stopped",)
        assert outcome.causes(TakeOpened) == scenario.takes
        assert outcome.causes(GapRecorded) == scenario.gaps
        assert outcome.missing() == (0, 0)
        assert outcome.deaf_s < DEAF_S
