"""Whatever happens to a call, the recorder hears again within two seconds, or ends the session and says why."""

from __future__ import annotations

import asyncio

import pytest

from contracts.events import (
    EncryptionChanged,
    GapRecorded,
    RecorderDeafened,
    RecorderUndeafened,
    RecoveryBegun,
    SessionEnded,
    TakeOpened,
)
from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.opcodes import Dave
from ops.loopback.plan import Presence
from tests.never_deaf import ADA, BELA, CHIYO, Played, Scenario, Stage, play

pytestmark = pytest.mark.alone

DEAF_S = 2.0
TOGETHER = 12  # rooms that fail at the same time


def closes(code: int) -> Scenario:
    """The voice websocket is closed with a code that is worth another try."""

    async def act(stage: Stage) -> None:
        stage.server.close_voice(code, guild_id=stage.guild_id)

    causes = {
        1000: "closed",
        1001: "voice_server_going_away",
        4004: "token_refused",
        4006: "session_invalid",
        4009: "session_timed_out",
        4014: "disconnected",
        4015: "voice_server_crashed",
        4099: "closed_4099",
    }
    return Scenario(name=f"close {code}", act=act, gaps=(causes[code],))


def ends(code: int, cause: str) -> Scenario:
    """The voice websocket is closed for good."""

    async def act(stage: Stage) -> None:
        stage.server.close_voice(code, guild_id=stage.guild_id)

    return Scenario(name=f"close {code}", act=act, takes=("start",), ends=cause)


def says(name: str, opcode: int, data: object, **expected: object) -> Scenario:
    """The voice gateway says something odd; nothing may be lost."""

    async def act(stage: Stage) -> None:
        stage.server.say(opcode, data, guild_id=stage.guild_id)

    joins = (Presence(user_id=CHIYO.user_id, at_s=1.5),)  # keys change: who does not follow is deaf from then on
    fields = {"takes": ("start",), "joins": joins} | expected
    return Scenario(name=name, act=act, **fields)


async def dropped(stage: Stage) -> None:
    stage.server.drop_voice(guild_id=stage.guild_id)


async def moved(stage: Stage) -> None:
    stage.server.move_bot(stage.room.channel_id + CHANNEL_OFFSET, guild_id=stage.guild_id)


async def server_moved(stage: Stage) -> None:
    stage.server.allocate_voice_server(guild_id=stage.guild_id)


async def server_lost(stage: Stage) -> None:
    stage.server.lose_voice_server(guild_id=stage.guild_id)
    await asyncio.sleep(0.7)
    stage.server.allocate_voice_server(guild_id=stage.guild_id)


async def refused_twice(stage: Stage) -> None:
    stage.server.voice.refusals[stage.guild_id].extend([("identify", 4006), ("select", 4009)])
    stage.server.close_voice(4006, guild_id=stage.guild_id)


async def kicked(stage: Stage) -> None:
    stage.server.disconnect_bot(guild_id=stage.guild_id)


async def deleted(stage: Stage) -> None:
    stage.server.delete_channel(guild_id=stage.guild_id)


async def black_hole(stage: Stage) -> None:
    stage.server.black_hole(guild_id=stage.guild_id)


async def downgraded(stage: Stage) -> None:
    stage.room.downgrade()


async def upgraded(stage: Stage) -> None:
    stage.room.upgrade()


async def down_and_up(stage: Stage) -> None:
    stage.room.downgrade()
    await asyncio.sleep(1.0)
    stage.room.upgrade()


async def deafened(stage: Stage) -> None:
    stage.server.deafen_bot(True, guild_id=stage.guild_id)
    await asyncio.sleep(0.7)
    stage.server.deafen_bot(False, guild_id=stage.guild_id)


async def rejoined(stage: Stage) -> None:
    stage.room.leave(BELA.user_id)
    stage.room.join(BELA)
    stage.room.announce(BELA.user_id, speaking=1)


async def cameras(stage: Stage) -> None:
    for _ in range(20):
        stage.server.send_video(ADA.user_id, guild_id=stage.guild_id)
        for _ in range(10):
            stage.room.send_video_packet(ADA.user_id, bytes(1000))
        await asyncio.sleep(0.05)


async def commit_lost(stage: Stage) -> None:
    """The group moves on without us; nothing but the frames that no key opens shows it."""
    stage.room.swallowed.add(Dave.ANNOUNCE_COMMIT)


WAVE = tuple(Presence(user_id=CHIYO.user_id, at_s=1.0 + 0.4 * n) for n in range(6))

SCENARIOS = [
    *(closes(code) for code in (1000, 1001, 4004, 4006, 4009, 4014, 4015, 4099)),
    ends(4017, "dave_required"),
    ends(4021, "rate_limited"),
    ends(4022, "call_ended"),
    Scenario(name="disconnected by a moderator", act=kicked, takes=("start",), ends="disconnected_by_moderator"),
    Scenario(name="channel deleted", act=deleted, takes=("start",), ends="channel_deleted"),
    Scenario(name="close 1006", act=dropped, gaps=("connection_dropped",)),
    Scenario(name="refused twice after a close", act=refused_twice, gaps=("session_invalid",)),
    Scenario(name="moved to another channel", act=moved, takes=("start", "move"), gaps=("move",)),
    Scenario(name="voice server changed", act=server_moved, gaps=("voice_server_changed",)),
    Scenario(name="endpoint null, then allocated", act=server_lost, gaps=("voice_server_lost",)),
    Scenario(
        name="UDP black hole",
        act=black_hole,
        gaps=("route_silent",),
        recoveries=(("reconnect", "route_silent"),),
    ),
    says("op 27 that davey refuses", 27, b"\0\5\1\2\3\4\5", recoveries=(("rekey", "proposals_refused"),)),
    says("op 25 twice", 25, b"\x01\x02\x03"),
    says("op 12 without streams", 12, {"user_id": str(ADA.user_id), "audio_ssrc": 0, "video_ssrc": 0}),
    says("op 13 of somebody unknown", 13, {"user_id": "77"}),
    says("a message without sense", 5, {"nothing": []}),
    Scenario(name="downgrade to version 0", act=downgraded, takes=("start",)),
    Scenario(name="upgrade from version 0", act=upgraded, takes=("start",), dave=False),
    Scenario(name="downgrade and upgrade", act=down_and_up, takes=("start",)),
    Scenario(name="server-deafened for 0.7 s", act=deafened, takes=("start",)),
    Scenario(
        name="a commit gets lost",
        act=commit_lost,
        takes=("start",),
        recoveries=(("rekey", "frames_undecryptable"),),
        joins=(Presence(user_id=CHIYO.user_id, at_s=1.2),),
        keyless=True,
        talk_s=6.2,  # Discord waits 2 s for us, then the others change keys
    ),
    Scenario(name="somebody comes back with another SSRC", act=rejoined, takes=("start",)),
    Scenario(name="cameras on", act=cameras, takes=("start",)),
    Scenario(name="a wave of joins and leaves", act=cameras, takes=("start",), joins=WAVE[::2], leaves=WAVE[1::2]),
]
NAMES = [scenario.name for scenario in SCENARIOS]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """What became of each scenario."""
    found: dict[str, Played] = {}
    for start in range(0, len(SCENARIOS), TOGETHER):
        wave = SCENARIOS[start : start + TOGETHER]
        found |= asyncio.run(play(wave, tmp_path_factory.mktemp("wave")))
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_what_was_delivered_is_recorded(scenario: Scenario, outcomes: dict[str, Played]) -> None:
    """Every frame delivered while we were connected and had its key is in the log once, byte for byte."""
    missing, invented = outcomes[scenario.name].missing()
    assert invented == 0
    assert missing == 0 or scenario.keyless


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_audio_flows_again(scenario: Scenario, outcomes: dict[str, Played]) -> None:
    """Within two seconds of the failure; unless Discord ended the call, which the session's end says."""
    outcome = outcomes[scenario.name]
    assert outcome.causes(SessionEnded) == (scenario.ends or "stopped",)
    if not scenario.ends:
        print(f"\nDEAF {scenario.name}: {outcome.deaf_s:.2f} s")
        assert outcome.deaf_s < DEAF_S


def test_deafness_and_encryption_are_facts(outcomes: dict[str, Played]) -> None:
    """What a moderator did, and when end-to-end encryption went on and off."""
    facts = {name: [type(fact) for fact in played.log.facts] for name, played in outcomes.items()}
    told = facts["server-deafened for 0.7 s"]
    assert [kind for kind in told if kind in {RecorderDeafened, RecorderUndeafened}] == [
        RecorderDeafened,
        RecorderUndeafened,
    ]
    versions = {
        name: [fact.dave_version for fact in played.log.facts if isinstance(fact, EncryptionChanged)]
        for name, played in outcomes.items()
    }
    assert versions["downgrade to version 0"] == [0]
    assert versions["upgrade from version 0"] == [1]
    assert versions["downgrade and upgrade"] == [0, 1]
    assert versions["close 4006"] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=NAMES)
def test_the_facts_say_what_happened(scenario: Scenario, outcomes: dict[str, Played]) -> None:
    """Takes, gaps and remedies are facts, with their causes; a gap is as long as what was missed."""
    outcome = outcomes[scenario.name]
    assert outcome.causes(TakeOpened) == scenario.takes
    assert outcome.causes(GapRecorded) == scenario.gaps
    recoveries = [(fact.action, fact.cause) for fact in outcome.log.facts if isinstance(fact, RecoveryBegun)]
    assert tuple(recoveries) == scenario.recoveries
    for gap in outcome.log.facts:
        if isinstance(gap, GapRecorded):
            assert 0 < gap.to_ns - gap.from_ns < DEAF_S * 1e9
