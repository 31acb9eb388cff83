"""What Discord does to a bot: each gets a clear word or a clean end, and the recording is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from capture import panels
from contracts.guilds import GuildSettings
from contracts.jetstream.connection import connect
from contracts.jetstream.directory import get_entry, list_entries
from contracts.jetstream.erase import delete_session
from contracts.jetstream.guilds import change_guild
from contracts.jetstream.streams import ensure_shared
from ops.embedded import EmbeddedServer
from ops.loopback.client import text_of
from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.permissions import Permission
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from tests.recorder import Recorder, recorder
from tests.restartable import restartable

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
TEXT = CHANNEL + 2 * CHANNEL_OFFSET
ADA, BELA = Person(user_id=501, name="Ada"), Person(user_id=502, name="Bela")
PLAN = CallPlan(people=(ADA, BELA), utterances=(Utterance(user_id=ADA.user_id, start_s=0.1, stop_s=0.9),), seconds=1.2)
DEADLINE_S = 20.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord(plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as each:
        yield each


@pytest.fixture
async def capture(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Recorder]:
    monkeypatch.setattr(panels, "EDIT_EVERY_S", 0.3)
    monkeypatch.setattr(panels, "RETRY_S", 0.5)
    bus = await connect(nats_server.url, name="test")
    await ensure_shared(bus)
    await change_guild(bus, str(GUILD), lambda _: GuildSettings(guild_id=str(GUILD), spoken_notice=False))
    for entry in await list_entries(bus):
        await delete_session(bus, entry.session)  # no cards of earlier tests
    await bus.close()
    async with recorder(server, nats_url=nats_server.url, data=tmp_path) as each:
        await eventually(lambda: bool(server.rest.commands.get(None)))
        yield each


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def started(server: LoopbackDiscord, capture: Recorder) -> str:
    """Ada starts a recording; the session."""
    await (await server.person(ADA.user_id).types("/record start", name="Evening")).reads("Recording")
    await server.wait_for_bot()
    (live,) = (await capture.status()).sessions
    return live.session


async def kept(capture: Recorder, session: str, *, cause: str = "stopped") -> None:
    """The session has ended by this cause, with Ada's voice in it."""
    async with asyncio.timeout(DEADLINE_S):
        while (entry := await get_entry(capture.bus, session)) is None or entry.ended_unix_ns is None:
            await asyncio.sleep(0.05)
    assert entry.cause == cause
    assert entry.recorded > 30


async def test_an_interaction_that_discord_forgot_is_done_all_the_same(server: LoopbackDiscord, capture: Recorder):
    """The first answer is refused (10062): the recording starts, the room sees it, and stopping works."""
    server.rest.fail("POST", "/callback", 404, code=10062)
    await server.person(ADA.user_id).types("/record start")
    await server.wait_for_bot()
    (live,) = (await capture.status()).sessions
    await server.talk()
    ada = server.person(ADA.user_id)
    await eventually(lambda: bool(ada.sees()))
    server.rest.fail("POST", "/callback", 404, code=10062)
    await ada.types("/record stop")
    await kept(capture, live.session)


async def test_a_token_that_expired_loses_nothing(server: LoopbackDiscord, capture: Recorder):
    """The answer cannot be written any more (50027): what was asked for is done."""
    session = await started(server, capture)
    await server.talk()
    server.rest.fail("PATCH", "/messages/@original", 401, code=50027)
    await server.person(ADA.user_id).types("/record stop")
    await kept(capture, session)


async def test_five_hundreds_are_outlived(server: LoopbackDiscord, capture: Recorder):
    """Discord's 5xx on the panel and on the answer: tried again until it works, and the recording goes on."""
    server.rest.fail("POST", f"/channels/{TEXT}/messages", 503, times=2)
    server.rest.fail("PUT", "/voice-status", 500, times=1)
    session = await started(server, capture)
    await server.talk()
    ada = server.person(ADA.user_id)
    await eventually(lambda: any("● Recording Evening" in text_of(one) for one in ada.sees()))
    await (await ada.types("/record stop")).reads("Everything is saved")
    await kept(capture, session)


async def test_a_panel_that_is_not_allowed_goes_where_it_is(server: LoopbackDiscord, capture: Recorder):
    """No writing in the text channel: the voice channel's own chat has it; nowhere at all: it records all the same."""
    server.room.roles.denied[TEXT] = Permission.SEND_MESSAGES
    server.set_roles()
    session = await started(server, capture)
    ada = server.person(ADA.user_id)
    await eventually(lambda: len(ada.sees(CHANNEL)) == 1)
    assert ada.sees(TEXT) == []
    await (await ada.types("/record stop")).reads("saved")
    server.room.roles.denied[CHANNEL] = Permission.SEND_MESSAGES
    server.set_roles()
    session = await started(server, capture)
    await server.talk()
    await (await ada.types("/record stop")).reads("saved")
    await kept(capture, session)


async def test_a_deleted_panel_comes_back_while_it_records(server: LoopbackDiscord, capture: Recorder):
    """Somebody deletes the message: recording is shown all the same; the card may be deleted for good."""
    session = await started(server, capture)
    ada = server.person(ADA.user_id)
    await eventually(lambda: len(ada.sees()) == 1)
    (first,) = ada.sees()
    server.rest.messages.delete(first["id"])
    await (await ada.types("/record note", text="where is it?")).reads("Noted")
    await eventually(lambda: any("where is it?" in text_of(one) for one in ada.sees()))
    await server.talk()
    await (await ada.types("/record stop")).reads("saved")
    await eventually(lambda: any("■ Evening" in text_of(one) for one in ada.sees()))
    await kept(capture, session)


async def test_a_deleted_channel_ends_the_recording_cleanly(server: LoopbackDiscord, capture: Recorder):
    """The voice channel is deleted: what was said is kept, and the card says why it ended."""
    session = await started(server, capture)
    await server.talk()
    ada = server.person(ADA.user_id)
    await eventually(lambda: bool(ada.sees()))
    server.delete_channel()
    await kept(capture, session, cause="channel_deleted")
    await eventually(lambda: any("the channel was deleted" in text_of(one) for one in ada.sees()))


async def test_a_kicked_bot_keeps_what_it_heard(server: LoopbackDiscord, capture: Recorder):
    """Thrown out of the server in mid-recording: the session ends, and is all there."""
    session = await started(server, capture)
    await server.talk()
    server.kick_bot()
    await kept(capture, session, cause="removed_from_server")


@pytest.mark.soak
async def test_a_server_that_is_away_is_said_and_nothing_is_lost(
    server: LoopbackDiscord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """NATS dies: commands say that storage does not answer; an opt-out holds at once; afterwards all is there."""
    monkeypatch.setattr(panels, "EDIT_EVERY_S", 0.3)
    async with restartable(tmp_path / "nats") as (nats, _):  # noqa: SIM117  # the address is known only then
        async with recorder(server, nats_url=nats.url, data=tmp_path / "data") as each:
            await eventually(lambda: bool(server.rest.commands.get(None)))
            session = await started(server, each)
            await server.talk()
            await nats.kill()
            ada = server.person(ADA.user_id)
            said = await ada.types("/record status")
            await said.reads("My storage does not answer")
            refused = await ada.types("/record optout")
            await refused.reads("It holds now")
            await nats.start()
            await server.talk()
            async with asyncio.timeout(DEADLINE_S):
                while not (await each.status()).sessions:
                    await asyncio.sleep(0.1)
            states = {one.name: one.state for one in (await each.status()).sessions[0].speakers}
            assert states["Ada"] == "opted_out"
            await (await ada.types("/record stop")).reads("saved")
            await kept(each, session)
