"""Who does not want to be recorded is not: a real capture, on loopback, through races."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts.commands import ChooseConsent, ConsentChosen, decode_reply
from contracts.events import ConsentRuled, SpeakerAdmitted, SpeakerWithheld
from contracts.guilds import Choice
from contracts.jetstream.connection import connect
from contracts.jetstream.guilds import change_guild
from contracts.jetstream.streams import ensure_shared
from contracts.subjects import CHOOSE_CONSENT
from ops.embedded import EmbeddedServer
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from tests.recorder import Recorder, read_log, recorder

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
ADA, BELA = Person(user_id=501, name="Ada"), Person(user_id=502, name="Bela", voice=1)
SECONDS = 3.0
PLAN = CallPlan(
    people=(ADA, BELA),
    utterances=tuple(Utterance(user_id=each.user_id, start_s=0.1, stop_s=SECONDS - 0.3) for each in (ADA, BELA)),
    seconds=SECONDS,
)
WITHIN_NS = 1_000_000_000  # "a change takes effect within a second"


@pytest.fixture
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LoopbackDiscord]:
    """End-to-end encrypted, unless a test says `plain`."""
    dave = getattr(request, "param", True)
    async with LoopbackDiscord(plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path, dave=dave) as each:
        yield each


async def choose(each: Recorder, user_id: int, choice: Choice) -> ConsentChosen:
    asked = msgspec.json.encode(ChooseConsent(guild_id=str(GUILD), user_id=str(user_id), choice=choice))
    reply = decode_reply(await each.bus.request(CHOOSE_CONSENT, asked, timeout_s=10))
    assert isinstance(reply, ConsentChosen), reply
    return reply


async def rule(nats: EmbeddedServer, mode: str) -> None:
    bus = await connect(nats.url, name="test")
    await ensure_shared(bus)
    await change_guild(bus, str(GUILD), lambda _: msgspec.convert({"guild_id": str(GUILD), "consent": mode}, type(_)))
    await bus.close()


async def test_nobody_is_recorded_after_they_refused_in_mid_spurt(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path
):
    """While both speak, Ada refuses, and allows again: nothing of hers in between is in the log, all of Bela's is."""
    await rule(nats_server, "notice")
    async with recorder(server, nats_url=nats_server.url, data=tmp_path) as each:
        session = await each.start()
        talk = asyncio.create_task(server.talk())
        await until_recorded(each, 80)
        assert (await choose(each, ADA.user_id, "out")).live_session == session
        states = {speaker.name: speaker.state for speaker in (await each.status()).sessions[0].speakers}
        assert states["Ada"] == "opted_out"
        await until_recorded(each, 130)
        await choose(each, ADA.user_id, "in")
        await talk
        ended = await each.stop()
        log = await read_log(each.bus, session)
    (out,) = [fact for fact in log.facts if isinstance(fact, SpeakerWithheld)]
    (back,) = [fact for fact in log.facts if isinstance(fact, SpeakerAdmitted)]
    assert (out.user_id, out.why, back.user_id) == (str(ADA.user_id), "opted_out", str(ADA.user_id))
    heard = {user: arrivals(log, server, user) for user in (ADA.user_id, BELA.user_id)}
    assert not [at_ns for at_ns in heard[ADA.user_id] if out.at_ns <= at_ns < back.at_ns]
    assert min(heard[ADA.user_id]) < out.at_ns
    assert max(heard[ADA.user_id]) > back.at_ns
    assert back.at_ns - out.at_ns < 2 * WITHIN_NS
    of_bela = [packet for packet in server.journal.owed() if packet.ssrc == server.room.speakers[BELA.user_id].ssrc]
    assert len(heard[BELA.user_id]) == len(of_bela)
    assert log.ended().ignored["withheld"] >= 20
    assert ended.recorded == len(log.packets())


@pytest.mark.parametrize(
    ("server", "named"),
    [(True, True), (True, False), (False, True), (False, False)],
    ids=["encrypted", "by key alone", "plain", "plain and never named"],
    indirect=["server"],
)
async def test_in_opt_in_only_those_who_allowed_it_are_recorded(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path, *, named: bool
):
    """Bela allowed it, Ada said nothing; also where the gateway names no SSRC, and a key has to tell whose it is."""
    await rule(nats_server, "opt-in")
    server.suppress_op5(not named)
    async with recorder(server, nats_url=nats_server.url, data=tmp_path) as each:
        await choose(each, BELA.user_id, "in")
        session = await each.start()
        await server.talk()
        await each.stop()
        log = await read_log(each.bus, session)
    assert [fact.mode for fact in log.facts if isinstance(fact, ConsentRuled)] == ["opt-in"]
    assert {fact.user_id: fact.why for fact in log.facts if isinstance(fact, SpeakerWithheld)} == {
        str(ADA.user_id): "not_opted_in"
    }
    assert arrivals(log, server, ADA.user_id) == []
    can_be_known = named or server.room.spec.dave
    owed = [packet for packet in server.journal.owed() if packet.ssrc == server.room.speakers[BELA.user_id].ssrc]
    assert len(arrivals(log, server, BELA.user_id)) == (len(owed) if can_be_known else 0)


async def test_a_choice_outlives_a_reconnect_and_counts_for_who_joins_in_it(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path
):
    """The connection is lost while a person who refused leaves and comes back with a new SSRC: not one packet."""
    await rule(nats_server, "opt-out")
    async with recorder(server, nats_url=nats_server.url, data=tmp_path) as each:
        await choose(each, ADA.user_id, "out")
        session = await each.start()
        first = server.room.speakers[ADA.user_id].ssrc
        server.room.leave(ADA.user_id)
        server.drop_voice()
        server.room.join(ADA)
        await server.wait_for_bot(timeout_s=15)
        assert server.room.speakers[ADA.user_id].ssrc != first
        await server.talk()
        await each.stop()
        log = await read_log(each.bus, session)
    assert {batch.ssrc for batch in log.batches} == {server.room.speakers[BELA.user_id].ssrc}
    sent = {packet.ssrc for packet in server.journal.owed()}
    assert server.room.speakers[ADA.user_id].ssrc in sent


async def until_recorded(each: Recorder, packets: int) -> None:
    """Wait until so many packets are in batches."""
    async with asyncio.timeout(20):
        while (await each.status()).sessions[0].packets["recorded"] < packets:
            await asyncio.sleep(0.02)


def arrivals(log: object, server: LoopbackDiscord, user_id: int) -> list[int]:
    """When each packet of a person arrived, by their SSRC."""
    ssrc = server.room.speakers[user_id].ssrc
    return [batch.arrival_ns(packet) for batch, packet in log.packets() if batch.ssrc == ssrc]  # type: ignore[attr-defined]
