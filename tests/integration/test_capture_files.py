"""Files by Discord: mixes, tracks, ranges, clips; a mixer runs beside the recorder, and people hear from both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from capture import panels
from capture.commands import downloads, hearing
from contracts.artifacts import RenderStored
from contracts.guilds import GuildSettings
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import list_entries
from contracts.jetstream.erase import delete_session
from contracts.jetstream.guilds import change_guild
from contracts.jetstream.keeping import withdraw
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.rendering import render
from contracts.jetstream.streams import ensure_shared
from contracts.presets import PRESETS, save_preset
from contracts.recipes import Recipe
from contracts.settings import Settings
from mixer import app as mixer
from ops.embedded import EmbeddedServer
from ops.loopback.client import Client, text_of
from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.messages import Message
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from tests.recorder import Recorder, recorder

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
TEXT = CHANNEL + 2 * CHANNEL_OFFSET
ADA, BELA = Person(user_id=501, name="Ada"), Person(user_id=502, name="Bela", voice=1)
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


@pytest.fixture
async def capture(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Recorder]:
    monkeypatch.setattr(panels, "EDIT_EVERY_S", 0.3)
    monkeypatch.setattr(hearing, "LISTEN_S", 2)
    bus = await connect(nats_server.url, name="test")
    await ensure_shared(bus)
    await change_guild(bus, str(GUILD), lambda _: GuildSettings(guild_id=str(GUILD), spoken_notice=False))
    for entry in await list_entries(bus):
        await delete_session(bus, entry.session)  # no cards of earlier tests
    await bus.close()
    stop = asyncio.Event()
    settings = Settings(data=tmp_path, nats_url=nats_server.url, auto_render=False)
    mixing = asyncio.create_task(mixer.run(settings, stop=stop))
    async with recorder(server, nats_url=nats_server.url, data=tmp_path) as each:
        await eventually(lambda: bool(server.rest.commands.get(None)))
        yield each
    stop.set()
    await mixing


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def recorded(server: LoopbackDiscord, ada: Client, name: str) -> Message:
    """Both have said something, and Ada has stopped it; the card."""
    await (await ada.types("/record start", name=name, preset="podcast")).reads("mixed as `podcast`, too")
    await server.wait_for_bot()
    await server.talk()
    await (await ada.types("/record stop")).reads("saved")
    await eventually(lambda: any(f"■ {name}" in text_of(one) for one in ada.sees()))
    return next(one for one in ada.sees() if f"■ {name}" in text_of(one))


async def test_a_recording_is_downloaded_and_mixed_anew(server: LoopbackDiscord, capture: Recorder, tmp_path: Path):
    """One file, a file for each, a part of it; other volumes by command and by form, and what is wrong with a wish."""
    ada, bela = server.person(ADA.user_id), server.person(BELA.user_id, locale="de")
    card = await recorded(server, ada, "Files")
    await (await ada.types("/record download", recording="files", format="MP3")).reads("MP3, one file", timeout_s=60)
    text = await (await bela.types("/aufnahme herunterladen", format="FLAC", spuren=True)).reads("2 Dateien")
    assert "[Ada](<" in text
    assert "[Bela](<" in text
    part = await bela.types("/aufnahme herunterladen", format="WAV", von="0:01", bis="0:02")
    await part.reads("WAV")
    await (await ada.types("/record download", format="MP3", **{"from": "59:00"})).reads("no range")
    await (await ada.types("/record download", format="MP3", **{"from": "soon"})).reads("no range")
    offered = await ada.completes("/record remix", "mute", "Ada, be", recording="Files")
    assert "Ada, Bela" in [choice["value"] for choice in offered]
    offered = await ada.completes("/record remix", "gain", "Ada=+2, be", recording="Files")
    assert [choice["value"] for choice in offered] == ["Ada=+2, be", "Ada=+2, Bela=+3", "Ada=+2, Bela=-3"]
    assert await ada.completes("/record remix", "mute", 30 * "Ada," + " be", recording="Files") == []
    await (await ada.types("/record remix", mute="Bela", gain="ada=+3")).reads("Ada +3 dB, ~~Bela~~")
    clean = await ada.types("/record remix", preset="podcast", denoise=True, trim=True, format="FLAC")
    assert "long silences taken out" in await clean.reads("noise taken out")
    offered = await ada.completes("/record remix", "preset", "ra", recording="Files")
    assert [choice["value"] for choice in offered] == ["raw"]
    await (await ada.types("/record remix", preset="raw")).reads("(all tracks in one ZIP)")
    await (await ada.types("/record remix", preset="loud")).reads("there are: tabletop, podcast, raw")
    save_preset("apart", Recipe(output="tracks", format="opus"), tmp_path)
    assert "[Bela](<" in await (await ada.types("/record remix", preset="apart")).reads("OPUS: 2 files")
    await (await ada.types("/record remix", gain="=3")).reads("Write gains as")
    await (await ada.types("/record download", to="9999999:00:00")).reads("no range")
    await (await ada.types("/record download", format="Audacity project")).reads("a project for Audacity")
    await (await ada.types("/record remix", gain="Ada=loud")).reads("Write gains as")
    await (await ada.types("/record remix", mute="Chiyo")).reads("Nobody by the name of Chiyo")
    form = await bela.presses(card, "Remix")
    assert (await form.opens())["title"] == "Neue Mischung"
    await (await bela.fills(form, text="Bela=-6")).reads("Bela -6 dB")
    await (await ada.presses(card, "Download")).reads("/s/")
    (entry,) = [each for each in await list_entries(capture.bus) if each.name == "Files"]
    assert entry.mix == PRESETS["podcast"]
    recipes = [stored.artifact.recipe for stored in await list_artifacts(capture.bus, entry.session)]
    assert {recipe.format for recipe in recipes} == {"mp3", "flac", "wav", "opus"}


@pytest.mark.usefixtures("capture")
async def test_what_was_deleted_while_it_was_mixed_has_no_link(
    server: LoopbackDiscord, monkeypatch: pytest.MonkeyPatch
):
    """The person is told that it is gone."""

    async def render_and_delete(bus: Bus, session: str, *args: Any, **kwargs: Any) -> RenderStored:
        stored = await render(bus, session, *args, **kwargs)
        await withdraw(bus, session, by="somebody", grace_s=60)
        return stored

    monkeypatch.setattr(downloads, "render", render_and_delete)
    ada = server.person(ADA.user_id)
    await recorded(server, ada, "Short-lived")
    await (await ada.types("/record remix", recording="Short-lived", mute="Bela")).reads("does not exist any more")


async def test_a_clip_fits_or_is_a_link(server: LoopbackDiscord, capture: Recorder):
    """By command and by form; one person alone; where Discord refuses the file, its link goes to who asked."""
    ada = server.person(ADA.user_id)
    await (await ada.types("/record start")).reads("Recording")
    await server.wait_for_bot()
    await (await ada.types("/record clip")).reads("Nobody was heard")
    await server.talk()
    clip = await ada.types("/record clip", last="1m", who=BELA.user_id)
    await clip.reads("with Bela", timeout_s=60)
    (posted,) = [each for each in ada.sees() if each["attachments"]]
    assert server.rest.messages.files[posted["id"]]
    panel = next(each for each in ada.sees() if "● Recording" in text_of(each))
    form = await ada.presses(panel, "Clip")
    server.rest.messages.attachment_bytes = 10
    text = await (await ada.fills(form, text="2m")).reads("/d/")
    assert "with Ada and Bela" in text
    assert len([each for each in ada.sees() if each["attachments"]]) == 1
    bela = server.person(BELA.user_id)
    await (await bela.types("/record optout")).reads("not recorded")
    await (await ada.types("/record clip", last="1m", who=BELA.user_id)).reads("Bela is not being recorded now")
    text = await (await ada.types("/record clip", last="1m")).reads("with Ada:", timeout_s=60)
    assert "Bela" not in text
    (live,) = (await capture.status()).sessions
    newest = max(await list_artifacts(capture.bus, live.session), key=lambda one: one.artifact.rendered_unix_ns)
    assert newest.artifact.recipe.people == (str(ADA.user_id),), "who refuses now is not posted, whatever was recorded"
    await (await ada.types("/record clip", last="a while")).reads("Write a length as")
    await (await ada.types("/record stop")).reads("saved")
    assert (await capture.status()).sessions == ()


async def test_a_person_hears_whether_they_are_heard(server: LoopbackDiscord, capture: Recorder):
    """Who speaks is told level and loss; who is silent, or not recorded, is told that."""
    ada, german = server.person(ADA.user_id), server.person(ADA.user_id, locale="de")
    await (await ada.types("/record start")).reads("Recording")
    await server.wait_for_bot()
    talk = asyncio.create_task(server.talk())
    heard = await ada.types("/record test")
    await heard.reads("I listen")
    assert "dB" in await heard.reads("Heard you")
    await talk
    await (await german.types("/aufnahme test")).reads("nichts von dir gehört")
    await (await german.types("/aufnahme widersprechen")).reads("nicht aufgenommen")
    await (await german.types("/aufnahme test")).reads("also habe ich nicht zugehört")
    await (await ada.types("/record stop")).reads("saved")
    assert (await capture.status()).sessions == ()


async def test_a_message_leads_to_its_moment(server: LoopbackDiscord, capture: Recorder):
    """The menu of a message that was written while it ran names recording and moment; of an older one it does not."""
    ada, german = server.person(ADA.user_id), server.person(ADA.user_id, locale="de")
    old = server.rest.messages.create(
        {"channel_id": str(TEXT), "timestamp": "2020-01-01T00:00:00+00:00"}, {"content": "x"}
    )
    old["id"] = str(1 << 40)
    await (await ada.types("/record start", name="Menu")).reads("Recording")
    await server.wait_for_bot()
    await asyncio.sleep(1.2)
    said = server.rest.messages.create({"channel_id": str(TEXT)}, {"content": "what was that?"})
    await (await ada.types("/record stop")).reads("saved")
    await (await german.uses("Aufnahme in diesem Moment", said)).reads("von **Menu**")
    await (await ada.uses("Recording at this moment", old)).reads("Nothing that you may open")
    assert (await capture.status()).sessions == ()
