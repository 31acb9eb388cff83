"""Mutated messages of the voice gateway, on the real connection: nothing ends, and the next words are recorded."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from ops.embedded import EmbeddedServer
from ops.loopback.opcodes import Voice
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from ops.loopback.voice_session import VoiceSession
from tests.recorder import owed, read_log, recorder

pytestmark = pytest.mark.long

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
PEOPLE = (Person(user_id=501, name="Ada", voice=0), Person(user_id=502, name="Bela", voice=1))
SEEDS = (1,)  # one that ever failed belongs here
QUICK, SOAK = 3_000, 100_000
IN_FLIGHT = 200
DEADLINE_S = 60.0
SLOWEST_PER_S = 200  # messages that a busy machine handles: some of them begin a group anew
JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    1.5,
    "",
    "x",
    "501",
    [],
    [None],
    ["501"],
    {},
    {"op": 5},
    "\x00\ud7ff",
)
SEED_MESSAGES: tuple[dict[str, Any], ...] = (
    {"op": 5, "d": {"user_id": "501", "ssrc": 7, "speaking": 1}},
    {"op": 6, "d": {"t": 1}},
    {"op": 9, "d": None},
    {"op": 12, "d": {"user_id": "501", "audio_ssrc": 7, "video_ssrc": 8, "streams": [{"ssrc": 8, "rtx_ssrc": 9}]}},
    {"op": 13, "d": {"user_id": "501"}},
    {"op": 18, "d": {"user_id": "501", "flags": 2}},
    {"op": 20, "d": {"user_id": "501", "platform": 0}},
    {"op": 21, "d": {"protocol_version": 1, "transition_id": 3}},
    {"op": 22, "d": {"transition_id": 3}},
    {"op": 24, "d": {"protocol_version": 1, "epoch": 1}},
)


class Mutator:
    """Damages messages that the server really sent, and some that it might have."""

    def __init__(self, seed: int, sent: list[str | bytes]) -> None:
        self._chance = random.Random(seed)
        self._texts = [json.dumps(message) for message in SEED_MESSAGES] + [m for m in sent if isinstance(m, str)]
        self._binaries = [message for message in sent if isinstance(message, bytes)]

    def message(self) -> str | bytes:
        """The next one."""
        chance = self._chance
        if self._binaries and chance.random() < 0.3:
            return self._damaged(chance.choice(self._binaries))
        text = chance.choice(self._texts)
        if chance.random() < 0.1:
            return self._damaged(text.encode()).decode(errors="replace")
        message = json.loads(text)
        for _ in range(chance.randrange(1, 4)):
            message = self._mutated(message)
        return json.dumps(message)

    def _mutated(self, value: Any) -> Any:
        """The same value with something in it lost, or replaced by something else."""
        chance = self._chance
        if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
            return chance.choice(JUNK)
        copy = value.copy()
        key = chance.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
        if chance.random() < 0.3:
            del copy[key]
        else:
            copy[key] = self._mutated(copy[key])
        return copy

    def _damaged(self, data: bytes) -> bytes:
        damaged = bytearray(data)
        for _ in range(self._chance.randrange(1, 4)):
            position = self._chance.randrange(max(1, len(damaged)))
            if self._chance.random() < 0.7:
                damaged[position : position + 1] = self._chance.randbytes(1)
            else:
                del damaged[position:]
        return bytes(damaged)


async def fuzz(session: VoiceSession, mutator: Mutator, messages: int) -> None:
    """Send them all, as fast as the client reads them."""
    outbox = session._outbox
    for _ in range(messages):
        outbox.put_nowait(mutator.message())
        while outbox.qsize() > IN_FLIGHT:
            await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        while not outbox.empty():
            await asyncio.sleep(0.01)


async def until_read(session: VoiceSession, *, deadline_s: float) -> None:
    """Wait until the client acknowledges a message that stands behind all damaged ones; true ones may follow it."""
    session.send(Voice.CLIENTS_CONNECT, {"user_ids": ["501"]})
    last = session._sequence - 1
    async with asyncio.timeout(deadline_s):
        while not last <= session.seq_ack < session._sequence:
            await asyncio.sleep(0.05)


async def judge(tmp_path: Path, *, seed: int, messages: int) -> None:
    plan = CallPlan(
        people=PEOPLE,
        utterances=tuple(Utterance(user_id=person.user_id, start_s=0.3, stop_s=1.5) for person in PEOPLE),
        seconds=2.0,
    )
    server = LoopbackDiscord(plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path)
    async with (
        EmbeddedServer(tmp_path / "nats") as nats,
        server,
        recorder(server, nats_url=nats.url, data=tmp_path / "data") as capture,
    ):
        identifier = await capture.start()
        threads = threading.active_count()
        session = server.voice.sessions[GUILD]
        await fuzz(session, Mutator(seed, [message for _, message in session._history]), messages)
        assert server.voice.sessions[GUILD] is session, "the client has left"
        await until_read(session, deadline_s=DEADLINE_S + messages / SLOWEST_PER_S)
        assert threading.active_count() <= threads + 1
        server.close_voice(4006)  # keys and group may be nonsense by now: the next connection has its own
        async with asyncio.timeout(DEADLINE_S):
            while server.voice.sessions.get(GUILD) in {None, session}:
                await asyncio.sleep(0.02)
        await server.wait_for_bot(timeout_s=DEADLINE_S)
        await server.talk()
        await capture.stop()
        log = await read_log(capture.bus, identifier)
    assert log.wire() == owed(server.journal)


@pytest.mark.parametrize("seed", SEEDS)
async def test_damaged_messages_end_nothing(seed: int, tmp_path: Path):
    """Each is handled or refused; the websocket is read on, heartbeats go on, and the next take is complete."""
    await judge(tmp_path, seed=seed, messages=QUICK)


@pytest.mark.soak
async def test_a_hundred_thousand_damaged_messages_end_nothing(tmp_path: Path):
    """The same for long."""
    await judge(tmp_path, seed=99, messages=SOAK)
