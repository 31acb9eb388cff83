"""Forget me: a person's voice goes from every file on disk, the others' stays, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts.commands import ForgetPerson, Forgotten, decode_reply
from contracts.events import PersonForgotten, SpeakerIdentified, SpeakerJoined
from contracts.ids import new_id
from contracts.jetstream import forget
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import get_entry
from contracts.jetstream.forget import finish_forgetting, forget_in_session
from contracts.jetstream.guilds import get_guild
from contracts.jetstream.replay import replay
from contracts.subjects import FORGET_PERSON
from ops.embedded import EmbeddedServer
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from tests.recorder import Recorder, read_log, recorder

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
ADA, BELA = Person(user_id=501, name="Ada Aloud"), Person(user_id=502, name="Bela", voice=1)
PLAN = CallPlan(
    people=(ADA, BELA),
    utterances=tuple(Utterance(user_id=each.user_id, start_s=0.1, stop_s=1.6) for each in (ADA, BELA)),
    seconds=2.0,
)
DEADLINE_S = 30.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord(plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as each:
        yield each


async def test_a_person_is_gone_from_every_file(server: LoopbackDiscord, tmp_path: Path):
    """While it runs it is put off; when it has ended, no payload and no name of hers is left in any file."""
    async with EmbeddedServer(tmp_path / "nats") as nats:  # noqa: SIM117  # the address is known only then
        async with recorder(server, nats_url=nats.url, data=tmp_path / "data") as each:
            session = await each.start()
            await server.talk()
            before = await messages(each.bus, session)
            put_off = await forget_me(each, ADA.user_id)
            assert put_off.later == (session,)
            await each.stop()
            await until_forgotten(each, session)
            log = await read_log(each.bus, session)
            entry = await get_entry(each.bus, session)
            after = await messages(each.bus, session)
            assert (await get_guild(each.bus, str(GUILD))).to_forget == ()
            assert await forget_me(each, ADA.user_id) == Forgotten()
    ssrc = {person.name: server.room.speakers[person.user_id].ssrc for person in (ADA, BELA)}
    payloads = {name: {p.opus for p in server.journal.owed() if p.ssrc == each} for name, each in ssrc.items()}
    hers, others = payloads["Ada Aloud"] - payloads["Bela"], payloads["Bela"]
    on_disk = b"".join(path.read_bytes() for path in (tmp_path).rglob("*") if path.is_file())
    assert len(hers) > 50
    assert not [payload for payload in hers if payload in on_disk]
    assert b"Ada Aloud" not in on_disk
    assert all(payload in on_disk for payload in others)
    kept = [each for each in before if each[0] != f"rec.{session}.pkt.1.{ssrc['Ada Aloud']}" and ".pkt." in each[0]]
    assert kept == [each for each in after if ".pkt." in each[0]][: len(kept)]
    (proof,) = [fact for fact in log.facts if isinstance(fact, PersonForgotten)]
    assert proof.packets == sum(1 for p in server.journal.owed() if p.ssrc == ssrc["Ada Aloud"])
    assert {batch.ssrc for batch in log.batches} == {ssrc["Bela"]}
    assert entry is not None
    assert entry.people == {str(BELA.user_id): "Bela"}
    assert entry.forgotten == (str(ADA.user_id),)
    named = [fact for fact in log.facts if isinstance(fact, SpeakerJoined | SpeakerIdentified)]
    assert {fact.user_id for fact in named} == {str(BELA.user_id)}


async def test_forgetting_goes_on_where_it_died(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It dies when the stream is deleted and nothing is back yet: the next start puts the session back, whole."""
    async with recorder(server, nats_url=nats_server.url, data=tmp_path / "data") as each:
        session = await each.start()
        await server.talk()
        await each.stop()
        folder = tmp_path / "forget"
        folder.mkdir()

        async def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(forget, "create_session", die)
        with pytest.raises(KeyboardInterrupt):
            await forget_in_session(each.bus, session, str(ADA.user_id), folder)
        monkeypatch.undo()
        assert [path.name for path in folder.iterdir()] == [f"{session}.forget"]
        (folder / f"{new_id()}.forget.part").write_bytes(b"half")
        assert await finish_forgetting(each.bus, folder) == [session]
        assert list(folder.iterdir()) == []
        log = await read_log(each.bus, session)
        assert [type(fact) for fact in log.facts].count(PersonForgotten) == 1
        assert {batch.ssrc for batch in log.batches} == {server.room.speakers[BELA.user_id].ssrc}


async def forget_me(each: Recorder, user_id: int) -> Forgotten:
    asked = msgspec.json.encode(ForgetPerson(guild_id=str(GUILD), user_id=str(user_id)))
    reply = decode_reply(await each.bus.request(FORGET_PERSON, asked, timeout_s=30))
    assert isinstance(reply, Forgotten), reply
    return reply


async def messages(bus: Bus, session: str) -> list[tuple[str, bytes]]:
    return [(message.subject, message.data) async for message in replay(bus, session)]


async def until_forgotten(each: Recorder, session: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while (entry := await get_entry(each.bus, session)) is None or not entry.forgotten:
            await asyncio.sleep(0.05)
