"""Everything that people touch, through Discord's own rules: the real discord.py, a loopback Discord, a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import discord
import msgspec
import pytest

from capture import panels
from contracts.directory import SessionEntry
from contracts.guilds import AutoRule, GuildSettings
from contracts.ids import new_id
from contracts.jetstream.connection import connect
from contracts.jetstream.directory import change_keeping, get_entry, list_entries, put_entry
from contracts.jetstream.erase import delete_session
from contracts.jetstream.guilds import change_guild, get_guild
from contracts.jetstream.keeping import standing
from contracts.jetstream.streams import ensure_shared
from ops.embedded import EmbeddedServer
from ops.loopback.client import Client, buttons_of, text_of
from ops.loopback.errors import ClientError
from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.messages import Message
from ops.loopback.permissions import Permission
from ops.loopback.plan import CallPlan, Person
from ops.loopback.server import LoopbackDiscord
from tests.recorder import Recorder, recorder

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
TEXT = CHANNEL + 2 * CHANNEL_OFFSET
ADA, BELA, CHIYO = Person(user_id=501, name="Ada"), Person(user_id=502, name="Bela"), Person(user_id=503, name="Chiyo")
PLAN = CallPlan(people=(ADA, BELA, CHIYO), utterances=(), seconds=1.0)
DEADLINE_S = 20.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord(plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as each:
        each.room.leave(CHIYO.user_id)
        yield each


@pytest.fixture
async def capture(
    server: LoopbackDiscord, nats_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Recorder]:
    monkeypatch.setattr(panels, "EDIT_EVERY_S", 0.5)  # nobody waits five seconds here
    bus = await connect(nats_server.url, name="test")
    await ensure_shared(bus)
    await change_guild(bus, str(GUILD), lambda _: GuildSettings(guild_id=str(GUILD)))
    for entry in await list_entries(bus):
        await delete_session(bus, entry.session)  # no cards of earlier tests
    await bus.close()
    async with recorder(server, nats_url=nats_server.url, data=tmp_path) as each:
        await offered(server)
        yield each


async def offered(server: LoopbackDiscord) -> None:
    """Wait until the commands are offered."""
    await eventually(lambda: bool(server.rest.commands.get(None)))


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def panel_of(client: Client, holds: str = "Stop") -> Message:
    """The public message with buttons, once it holds a text."""
    found: list[Message] = []

    def there() -> bool:
        messages = client.sees()
        found[:] = [each for each in messages if holds in text_of(each) or holds in labels(each)]
        return bool(found)

    try:
        await eventually(there)
    except TimeoutError as error:
        raise AssertionError([text_of(each) for each in client.sees()]) from error
    return found[-1]


def labels(message: Message) -> list[str]:
    return [str(each.get("label")) for each in buttons_of(message)]


@pytest.mark.usefixtures("capture")
async def test_an_evening_by_commands(server: LoopbackDiscord):
    """Start, note, status, stop: each answered to the person alone; the room has one message, the card at the end."""
    ada = server.person(ADA.user_id)
    started = await ada.types("/record start", name="Evening")
    assert await started.acknowledged() < 1.0
    await started.reads("Recording **The table**")
    assert started.ephemeral
    panel = await panel_of(ada)
    assert labels(panel) == ["Stop", "Note", "Clip", "Link"]
    await panel_of(ada, "Ada")
    noted = await ada.types("/record note", text="The dragon *wakes*", ago="1s")
    await noted.reads("The dragon")
    status = await ada.types("/record status")
    assert "End-to-end encrypted" in await status.reads("Saved up to")
    await panel_of(ada, "Notes: 1 · last: The dragon")
    stopped = await ada.types("/record stop")
    await stopped.reads("Everything is saved")
    card = await panel_of(ada, "■ Evening")
    assert card["id"] == panel["id"]
    assert labels(card) == ["Listen", "Download", "Remix", "Delete"]
    assert len(ada.sees()) == 1
    listed = await ada.types("/record list")
    assert "**Evening**" in await listed.reads()


async def test_a_list_has_pages(server: LoopbackDiscord, capture: Recorder):
    """Ten to a page, newest first; its buttons turn it in place, and lead nowhere beyond its ends."""
    ada = server.person(ADA.user_id)
    for number in range(23):
        entry = SessionEntry(
            session=new_id(1_700_000_000_000 + number, 0),
            guild_id=str(GUILD),
            guild_name="Guild",
            channel_id=str(CHANNEL),
            channel_name="table",
            name=f"Evening {number:02}",
            started_unix_ns=(1_700_000_000_000 + number) * 10**6,
            ended_unix_ns=1_700_000_100_000 * 10**6,
            duration_ns=10**9,
            people={str(ADA.user_id): "Ada"},
        )
        await put_entry(capture.bus, entry)
    listed = await ada.types("/record list")
    text = await listed.reads("Page 1 of 3")
    assert [line[2:12] for line in text.splitlines()[1:11]] == [f"Evening {number}" for number in range(22, 12, -1)]
    (page,) = listed.answers
    assert labels(page) == ["Older"]
    turned = await ada.presses(page, "Older")
    await eventually(lambda: "Page 2 of 3" in listed.text)
    assert await turned.acknowledged() < 1.0
    assert labels(listed.answers[0]) == ["Newer", "Older"]
    await ada.presses(listed.answers[0], "Older")
    await eventually(lambda: "Page 3 of 3" in listed.text)
    assert "Evening 00" in listed.text
    assert labels(listed.answers[0]) == ["Newer"]


@pytest.mark.usefixtures("capture")
async def test_buttons_do_what_commands_do(server: LoopbackDiscord):
    """Note by a form, a link for the person alone, stop; in German for who reads German."""
    ada, bela = server.person(ADA.user_id), server.person(BELA.user_id, locale="de")
    await (await ada.types("/record start")).reads("Recording")
    panel = await panel_of(ada)
    form = await bela.presses(panel, "Note")
    assert (await form.opens())["title"] == "Notiz"
    noted = await bela.fills(form, text="Hier")
    await noted.reads("Notiert bei")
    await panel_of(ada, "last: Hier")
    linked = await bela.presses(panel, "Link")
    text = await linked.reads("/s/")
    assert linked.ephemeral
    url = next(word for word in text.split() if "/s/" in word)
    assert len(url.strip("<>")) <= 512
    await (await bela.presses(panel, "Stop")).reads("Beendet nach")
    await panel_of(ada, "■ Recording of The table")


@pytest.mark.usefixtures("capture")
async def test_german_names_lead_to_the_same_commands(server: LoopbackDiscord):
    """`/aufnahme ...` in a German client, every one of them; the English names work there, too."""
    ada = server.person(ADA.user_id, locale="de")
    await (await ada.types("/aufnahme hilfe")).reads("/aufnahme start")
    await (await ada.types("/aufnahme datenschutz")).reads("Was aufgenommen wird")
    await (await ada.types("/aufnahme start", name="Abend")).reads("wird aufgenommen")
    await (await ada.types("/aufnahme notiz", text="x", vor="2s")).reads("Notiert")
    await (await ada.types("/aufnahme status")).reads("Gesichert bis")
    await (await ada.types("/aufnahme widersprechen")).reads("nicht aufgenommen")
    await panel_of(ada, "is not recorded")
    await (await ada.types("/aufnahme erlauben")).reads("Du erlaubst")
    await (await ada.types("/aufnahme stopp")).reads("Beendet")
    await (await ada.types("/aufnahme liste")).reads("**Abend**")
    await (await ada.types("/aufnahme herunterladen")).reads("/s/")


@pytest.mark.usefixtures("capture")
async def test_recordings_are_found_by_name_and_person(server: LoopbackDiscord):
    """While somebody types, what they may open is offered; nobody ever types an id."""
    ada = server.person(ADA.user_id)
    for name in ("Dragons", "Cellar" + 93 * "r"):
        await (await ada.types("/record start", name=name)).reads("Recording")
        await server.wait_for_bot()
        await (await ada.types("/record stop")).reads("Stopped")
    offered_now = await ada.completes("/record download", "recording", "drag")
    assert [choice["name"].split(" · ")[0] for choice in offered_now] == ["Dragons"]
    both = await ada.completes("/record download", "recording", "bela")
    cellar, dragons, *_ = [choice["name"] for choice in both]
    assert (len(cellar), cellar[-2:], dragons.split(" · ")[0]) == (100, "r…", "Dragons")
    chosen = await ada.types("/record download", recording=offered_now[0]["value"])
    await chosen.reads("**Dragons**")
    stranger = server.person(CHIYO.user_id)
    assert await stranger.completes("/record download", "recording", "") == []
    await (await stranger.types("/record download", recording=offered_now[0]["value"])).reads("those who were there")


async def test_who_may_not_is_told_and_nothing_happens(server: LoopbackDiscord, capture: Recorder):
    """A stranger neither starts nor stops nor marks; a manager may; who started it may stop from outside."""
    ada, chiyo = server.person(ADA.user_id), server.person(CHIYO.user_id)
    await (await chiyo.types("/record start", channel=CHANNEL)).reads("Join <#")
    await (await chiyo.types("/record start")).reads("Nobody is in a voice channel")
    next_door = CHANNEL + CHANNEL_OFFSET
    await (await ada.types("/record start", channel=next_door)).reads(f"Nobody is in <#{next_door}>")
    await (await ada.types("/record start")).reads("Recording")
    await (await chiyo.types("/record stop")).reads("be in the channel")
    await (await chiyo.types("/record note", text="x")).reads("in the channel")
    await (await chiyo.types("/record settings")).reads("Only managers")
    assert len((await capture.status()).sessions) == 1
    server.room.roles.managers.add(CHIYO.user_id)
    server.set_roles()
    await (await chiyo.types("/record stop")).reads("Stopped")


async def test_missing_permissions_are_named(server: LoopbackDiscord, capture: Recorder):
    """Each one that is missing, in the person's language; nothing is recorded, and no session is left."""
    server.room.roles.denied[CHANNEL] = Permission.VIEW_CHANNEL | Permission.CONNECT
    server.set_roles()
    german = server.person(ADA.user_id, locale="de")
    await asyncio.sleep(0.1)
    await (await german.types("/record start")).reads("Kanal ansehen und Verbinden")
    assert (await capture.status()).sessions == ()


async def test_an_old_panel_stops_no_new_recording(server: LoopbackDiscord, capture: Recorder):
    """A Stop or Note of a message that still stands from before is answered, and does nothing."""
    ada = server.person(ADA.user_id)
    await (await ada.types("/record start", name="First")).reads("Recording")
    old = dict(await panel_of(ada, "● Recording First"))
    form = await ada.presses(old, "Note")
    await (await ada.types("/record stop")).reads("Stopped")
    await panel_of(ada, "■ First")
    await (await ada.types("/record start", name="Second")).reads("Recording")
    await (await ada.fills(form, text="too late")).reads("That recording is over")
    server.rest.messages.by_id[old["id"]]["components"] = old["components"]
    await (await ada.presses(old, "Stop")).reads("That recording is over")
    assert len((await capture.status()).sessions) == 1
    await (await ada.types("/record note", text="x", ago="a while")).reads("Write how long ago")
    await (await ada.types("/record note", text="   ")).reads("Write a note of 1 to 1000")


async def test_rules_are_set_and_taken_away(server: LoopbackDiscord, capture: Recorder):
    """A channel that is recorded by itself, with its people, role and hours; named again without any, it is not."""
    server.room.roles.managers.add(ADA.user_id)
    server.room.roles.custom["Players"] = {BELA.user_id}
    server.set_roles()
    role = server.room.roles.custom_role("Players")
    ada = server.person(ADA.user_id)
    hours = {"from-hour": 18, "to-hour": 2, "auto-role": role}
    await (await ada.types("/record settings", auto=CHANNEL, minimum=9, **hours)).reads("18:00-2:00 UTC")
    settings = await get_guild(capture.bus, str(GUILD))
    assert settings.auto == (AutoRule(channel_id=str(CHANNEL), minimum=9, role_id=str(role), from_hour=18, to_hour=2),)
    await (await ada.types("/record settings", auto=CHANNEL)).reads("Recorded by itself: none")
    alone = await (await ada.types("/record settings", minimum=3)).reads("changed nothing")
    assert "Saved" not in alone
    assert "changed nothing" not in await (await ada.types("/record settings", tone=0)).reads("Saved")


@pytest.mark.usefixtures("capture")
async def test_any_channel_with_voices_can_be_chosen(server: LoopbackDiscord):
    """Stages as well as voice channels; the panel may stand in their own chats, too."""
    (record,) = [each for each in server.rest.commands[None] if each["name"] == "record"]
    (settings,) = [each for each in record["options"] if each["name"] == "settings"]
    kinds = {each["name"]: set(each["channel_types"]) for each in settings["options"] if "channel_types" in each}
    voice, stage, text, news = (discord.ChannelType[each].value for each in ("voice", "stage_voice", "text", "news"))
    assert kinds == {"auto": {voice, stage}, "never": {voice, stage}, "panel": {text, news, voice, stage}}


async def test_a_channel_that_is_never_recorded_is_not_recorded_any_longer(server: LoopbackDiscord, capture: Recorder):
    """What runs in it is stopped, and the manager is told; what runs next door goes on."""
    server.room.roles.managers.add(ADA.user_id)
    server.set_roles()
    ada = server.person(ADA.user_id)
    await (await ada.types("/record start")).reads("Recording")
    await (await ada.types("/record settings", never=CHANNEL + CHANNEL_OFFSET)).reads("Saved.")
    assert len((await capture.status()).sessions) == 1
    await (await ada.types("/record settings", never=CHANNEL)).reads(f"running in <#{CHANNEL}> is stopped")
    assert (await capture.status()).sessions == ()
    again = await (await ada.types("/record settings", never=CHANNEL)).reads("Saved.")
    assert "is stopped" not in again


@pytest.mark.usefixtures("capture")
async def test_settings_are_set_and_shown(server: LoopbackDiscord):
    """A manager sets the rule and the language; the room's message follows at once."""
    server.room.roles.managers.add(ADA.user_id)
    server.set_roles()
    ada = server.person(ADA.user_id)
    await (await ada.types("/record start")).reads("Recording")
    await panel_of(ada)
    changed = await ada.types("/record settings", consent="opt-in", language="Deutsch", never=CHANNEL + CHANNEL_OFFSET)
    text = await changed.reads("Saved.")
    assert "Nobody is recorded before" in text
    assert f"<#{CHANNEL + CHANNEL_OFFSET}>" in text
    panel = await panel_of(ada, "hat es nicht erlaubt")
    assert labels(panel) == ["Stopp", "Notiz", "Ausschnitt", "Link", "Erlauben", "Mich nicht aufnehmen"]
    await (await ada.presses(panel, "Erlauben")).reads("You allow being recorded")
    await eventually(lambda: text_of(ada.sees()[0]).count("hat es nicht erlaubt") == 1)
    await (await ada.types("/record stop")).reads("Stopped")


async def test_who_was_there_may_open_it_while_it_runs(server: LoopbackDiscord, capture: Recorder):
    """Also who came late, said nothing, and has left."""
    ada, chiyo = server.person(ADA.user_id), server.person(CHIYO.user_id)
    await (await ada.types("/record start", name="Open house")).reads("Recording")
    await (await chiyo.types("/record download", recording="Open house")).reads("does not exist any more")
    server.room.join(CHIYO)
    async with asyncio.timeout(DEADLINE_S):
        while str(CHIYO.user_id) not in (await capture.status()).sessions[0].people:
            await asyncio.sleep(0.05)
    server.room.leave(CHIYO.user_id)
    await (await chiyo.types("/record download", recording="Open house")).reads("/s/")
    await (await ada.types("/record stop")).reads("Stopped")


async def test_what_is_deleted_is_what_was_meant(server: LoopbackDiscord, capture: Recorder):
    """By its id or its whole name; a part that several names have deletes none. Who started it may, also unheard."""
    ada, chief = server.person(ADA.user_id), server.person(BELA.user_id)
    for name in ("Evening", "Evening 2"):
        await (await ada.types("/record start", name=name)).reads("Recording")
        await (await ada.types("/record stop")).reads("Stopped")
    await (await ada.types("/record delete", recording="even")).reads(
        "Several recordings could be meant: Evening 2, Evening"
    )
    form = await ada.types("/record delete", recording="evening")
    assert "**Evening** · <t:" in text_of(await form.opens())
    await (await ada.fills(form, text="delete")).reads("**Evening** is deleted")
    assert [each.name for each in await list_entries(capture.bus) if each.name.startswith("Even")] == ["Evening 2"]
    await (await chief.types("/record delete", recording="Evening 2")).reads("Only who started it")
    await (await chief.types("/record delete", recording="Morning")).reads("does not exist any more")
    await change_guild(capture.bus, str(GUILD), lambda old: msgspec.structs.replace(old, downloads="managers"))
    assert await ada.completes("/record download", "recording", "") == []
    (offered_to_delete,) = await ada.completes("/record delete", "recording", "")
    assert offered_to_delete["name"].startswith("Evening 2 · ")
    assert await chief.completes("/record delete", "recording", "") == []
    form = await ada.types("/record delete", recording="Evening 2")
    await (await ada.fills(form, text="delete")).reads("**Evening 2** is deleted")


async def test_a_recording_is_deleted_by_its_word(server: LoopbackDiscord, capture: Recorder):
    """A wrong word deletes nothing; the right one closes it, the card says so, and a button takes that back."""
    ada = server.person(ADA.user_id)
    await (await ada.types("/record start", name="Secret")).reads("Recording")
    await panel_of(ada)
    await (await ada.types("/record stop")).reads("Stopped")
    card = await panel_of(ada, "■ Secret")
    form = await ada.presses(card, "Delete")
    await (await ada.fills(form, text="no")).reads("Nothing was deleted")
    (entry,) = [each for each in await list_entries(capture.bus) if each.name == "Secret"]
    form = await ada.types("/record delete", recording=entry.session)
    deleted = await ada.fills(form, text="delete")
    await deleted.reads("is deleted")
    assert entry.session not in [each.session for each in await list_entries(capture.bus)]
    assert await standing(capture.bus, entry.session) == "deleted"
    await panel_of(ada, "This recording was deleted")
    stranger = server.person(BELA.user_id)
    await (await stranger.presses(deleted.answers[0], "Undo")).reads("Only who started it")
    await (await ada.presses(deleted.answers[0], "Undo")).reads("is back")
    assert await standing(capture.bus, entry.session) == "here"
    await panel_of(ada, "■ Secret")
    await delete_session(capture.bus, entry.session)
    await (await ada.presses(deleted.answers[0], "Undo")).reads("cannot be brought back")


async def test_people_are_told_where_the_card_stands_that_it_goes_and_can_keep_it(
    server: LoopbackDiscord, capture: Recorder
):
    """Once, with a button that pins it; the card says both."""
    ada = server.person(ADA.user_id)
    await (await ada.types("/record start", name="Old")).reads("Recording")
    await panel_of(ada)
    await (await ada.types("/record stop")).reads("Stopped")
    await panel_of(ada, "■ Old")
    (entry,) = [each for each in await list_entries(capture.bus) if each.name == "Old"]
    going_ns = time.time_ns() + 3 * 86_400 * 10**9
    await change_keeping(
        capture.bus,
        entry.session,
        lambda old: msgspec.structs.replace(old, going_unix_ns=going_ns, going_why="age"),
    )
    told = await panel_of(ada, "old enough to be deleted")
    await panel_of(ada, "It will be deleted")
    await (await ada.presses(told, "Keep it")).reads("stays until somebody deletes it")
    await panel_of(ada, "It is kept")
    entry_now = await get_entry(capture.bus, entry.session)
    assert entry_now is not None
    assert entry_now.keeping.pinned
    assert len([each for each in ada.sees() if "old enough" in text_of(each)]) == 1


@pytest.mark.usefixtures("capture")
async def test_a_person_is_told_what_is_not_there(server: LoopbackDiscord):
    """No recording to stop, to list or to open; a length that is none."""
    server.room.roles.managers.add(ADA.user_id)
    ada = server.person(ADA.user_id)
    for command in ("stop", "note", "clip"):
        options = {"text": "x"} if command == "note" else {}
        await (await ada.types(f"/record {command}", **options)).reads("Nothing is being recorded")
    await (await ada.types("/record status")).reads("Nothing is being recorded")
    await (await ada.types("/record download", recording="gone")).reads("not exist any more")
    with pytest.raises(ClientError, match="no 'nonsense'"):
        await ada.types("/record nonsense")
