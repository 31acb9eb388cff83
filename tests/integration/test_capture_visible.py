"""Nobody can miss that they are recorded: it is heard, the channel's status says so, who comes later is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from capture import panels, telling
from capture.notice import notice, tone
from capture.visible import Visible, plain_nickname
from contracts.events import NoticeSpoken
from contracts.guilds import GuildSettings
from contracts.jetstream.connection import connect
from contracts.jetstream.directory import get_entry
from contracts.jetstream.guilds import change_guild
from contracts.jetstream.streams import ensure_shared
from ops.embedded import EmbeddedServer
from ops.loopback.client import text_of
from ops.loopback.plan import CallPlan, Person
from ops.loopback.server import LoopbackDiscord
from tests.recorder import read_log, recorder

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
ADA, BELA = Person(user_id=501, name="Ada"), Person(user_id=502, name="Bela")
PLAN = CallPlan(people=(ADA, BELA), utterances=(), seconds=1.0)
DEADLINE_S = 15.0


@pytest.fixture(params=[True, False], ids=["dave", "plain"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord(
        plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path, dave=request.param
    ) as each:
        yield each


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def test_recording_is_heard_seen_and_told(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Notice and tones arrive whole, opened with Ada's own keys; status line and nickname come, and go with it."""
    monkeypatch.setattr(panels, "EDIT_EVERY_S", 0.3)
    monkeypatch.setattr(telling, "MINUTE_S", 0.3)
    server.room.leave(BELA.user_id)
    bus = await connect(nats_server.url, name="test")
    await ensure_shared(bus)
    await change_guild(
        bus,
        str(GUILD),
        lambda _: GuildSettings(guild_id=str(GUILD), consent="opt-in", language="de", nickname=True, tone_minutes=1),
    )
    await bus.close()
    async with recorder(server, nats_url=nats_server.url, data=tmp_path / "data") as each:
        session = await each.start()
        frames, heard = [*notice("de"), *tone(), *tone()], []

        def said() -> bool:
            heard.extend(server.hear_bot(ADA.user_id))
            return len(heard) >= len(frames)

        await eventually(said)
        assert heard[: len(frames)] == frames
        await eventually(lambda: server.rest.voice_statuses.get(str(CHANNEL)) == "● Aufnahme")
        await eventually(lambda: server.room.bot_nick == "[REC] Retold")
        server.room.join(BELA)
        ada = server.person(ADA.user_id)
        await eventually(lambda: any(f"<@{BELA.user_id}>" in text_of(one) for one in ada.sees(CHANNEL)))
        greeting = next(one for one in ada.sees(CHANNEL) if "erlaubst" in text_of(one))
        bela = server.person(BELA.user_id, locale="de")
        await (await bela.presses(greeting, "Erlauben")).reads("Du erlaubst")
        await each.stop()
        await eventually(lambda: server.rest.voice_statuses.get(str(CHANNEL)) is None)
        await eventually(lambda: server.room.bot_nick is None)
        log = await read_log(each.bus, session)
    (spoken,) = [fact for fact in log.facts if isinstance(fact, NoticeSpoken)]
    assert spoken.language == "de"


async def test_a_process_that_ends_takes_back_what_it_shows(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path
):
    """Its recordings end with it: status line and nickname are as before when it is gone."""
    bus = await connect(nats_server.url, name="test")
    await ensure_shared(bus)
    await change_guild(bus, str(GUILD), lambda _: GuildSettings(guild_id=str(GUILD), nickname=True))
    await bus.close()
    async with recorder(server, nats_url=nats_server.url, data=tmp_path / "data") as each:
        await each.start()
        await eventually(lambda: server.rest.voice_statuses.get(str(CHANNEL)) == "● Recording")
        await eventually(lambda: server.room.bot_nick == "[REC] Retold")
    assert server.rest.voice_statuses.get(str(CHANNEL)) is None
    assert server.room.bot_nick is None


def test_what_is_over_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch):
    """Of a year of recordings, those of the last hours."""
    me = SimpleNamespace(nick=None, name="Retold", global_name=None)
    visible, guild = Visible(), SimpleNamespace(id=GUILD, me=me, get_channel=lambda _: None)
    for hour in range(100):
        monkeypatch.setattr(time, "monotonic", lambda hour=hour: hour * 3600.0)
        visible.over(guild, f"{hour:016}", channel_id=0)
    assert len(visible._over) <= 3


async def test_what_a_process_that_ended_had_shown_is_taken_back_by_the_next(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It could not say so: it was killed, or Discord did not let it."""

    async def say_nothing(_: Visible) -> None:
        pass

    monkeypatch.setattr(panels, "EDIT_EVERY_S", 0.3)
    monkeypatch.setattr(Visible, "end", say_nothing)
    bus = await connect(nats_server.url, name="test")
    await ensure_shared(bus)
    await change_guild(bus, str(GUILD), lambda _: GuildSettings(guild_id=str(GUILD), nickname=True))
    await bus.close()
    async with recorder(server, nats_url=nats_server.url, data=tmp_path / "data") as each:
        session = await each.start()
        await eventually(lambda: server.rest.voice_statuses.get(str(CHANNEL)) == "● Recording")
        await eventually(lambda: server.room.bot_nick == "[REC] Retold")
        async with asyncio.timeout(DEADLINE_S):
            while (entry := await get_entry(each.bus, session)) is None or entry.panel_message_id is None:
                await asyncio.sleep(0.02)
    async with recorder(server, nats_url=nats_server.url, data=tmp_path / "data"):
        await eventually(lambda: server.rest.voice_statuses.get(str(CHANNEL)) is None)
        await eventually(lambda: server.room.bot_nick is None)


@pytest.mark.parametrize(
    ("nick", "plain"), [(None, None), ("[REC] [REC] Bot", "Bot"), ("[REC] ", None), ("Rec", "Rec")]
)
def test_a_mark_that_was_left_is_no_name(nick: str | None, plain: str | None):
    """Whoever left it, and however often."""
    assert plain_nickname(nick) == plain


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_notice_is_a_short_sentence_of_opus(language: str):
    """Two to four seconds in frames of 20 ms, none larger than a datagram, ending in silence."""
    frames = notice(language)
    assert 100 <= len(frames) <= 200
    assert max(map(len, frames)) < 1000
    assert len(set(frames[-5:])) == 1
