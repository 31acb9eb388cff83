"""A whole evening: a rule starts the recording, five people play, things go wrong, and everything is as people expect.

Every service runs as in production, below its supervisor; people use Discord's client, of a loopback Discord.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from contracts.commands import LiveSession
from contracts.errors import RetoldError
from contracts.events import GapRecorded, PersonForgotten, SpeakerWithheld, TakeOpened
from contracts.jetstream.asking import ask_status
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import get_entry
from contracts.jetstream.objects import list_artifacts, read_artifact
from contracts.jetstream.server import Server
from contracts.settings import Settings
from ops.cli.up import Installation
from ops.embedded import free_port
from ops.loopback.client import Client, buttons_of, text_of
from ops.loopback.messages import Message
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from tests.processes import left_below
from tests.recorder import Log, read_log

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
PEOPLE = tuple(
    Person(user_id=501 + number, name=name, voice=number)
    for number, name in enumerate(("Ada", "Bela", "Chiyo", "Dara", "Enzo"))
)
ADA, BELA, CHIYO, _, ENZO = PEOPLE
SPELL_S = 4.0  # one of several stretches of talk
PLAN = CallPlan(
    people=PEOPLE,
    utterances=tuple(
        Utterance(user_id=person.user_id, start_s=0.1 + 0.2 * number, stop_s=SPELL_S - 0.4)
        for number, person in enumerate(PEOPLE)
    ),
    seconds=SPELL_S,
)
DEADLINE_S = 60.0
LINK_S = 12.0  # how long the bot's links live this evening


class Evening:
    """The installation, Discord, and what a test asks of both."""

    def __init__(self, server: LoopbackDiscord, bus: Bus, folder: Path) -> None:
        self.server = server
        self.bus = bus
        self.folder = folder

    def person(self, who: Person, locale: str = "en-US") -> Client:
        """Somebody's client."""
        return self.server.person(who.user_id, locale=locale)

    def panel(self) -> Message | None:
        """The room's message, in the voice channel's own chat: a rule has no other place."""
        found = [each for each in self.person(ADA).sees(CHANNEL) if len(buttons_of(each)) >= 4]
        return found[-1] if found else None

    def reads(self, text: str) -> bool:
        """Whether the panel says so."""
        panel = self.panel()
        return panel is not None and text in text_of(panel)

    async def live(self) -> LiveSession | None:
        """The running session, None also while capture is away."""
        try:
            sessions = (await ask_status(self.bus)).sessions
        except RetoldError:
            return None
        return sessions[0] if sessions else None

    async def talks(self) -> None:
        """Everybody who is there says something; it is in batches when this returns."""
        before = await self.live()
        await self.server.talk()
        if before is not None:
            await until(self._more_than(before.packets["recorded"] + 100), "more is recorded")

    def _more_than(self, packets: int) -> Callable[[], Awaitable[bool]]:
        async def enough() -> bool:
            live = await self.live()
            return live is not None and live.packets["recorded"] > packets

        return enough

    def kill_capture(self) -> None:
        """As a power switch would; its supervisor starts it again."""
        (pid,) = [pid for pid, command in left_below(self.folder).items() if " capture" in command]
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def evening(tmp_path: Path) -> AsyncIterator[Evening]:
    port = free_port()
    settings = Settings(data=tmp_path / "data", public_url=f"http://127.0.0.1:{port}", gateway_port=port)
    async with LoopbackDiscord(plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as server:
        for person in PEOPLE:
            server.room.leave(person.user_id)
        server.room.roles.managers.add(CHIYO.user_id)
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
        environ = {**plain, **server.environ, "RETOLD_LINK_HOURS": str(LINK_S / 3600)}
        installation = Installation(
            settings,
            environ,
            logs=tmp_path / "logs",
            stop_timeout_s=10,
            encrypted=False,  # what is erased is looked for
        )
        async with installation.running() as running:
            installation.start()
            watching = asyncio.create_task(installation.watch())
            bus = await connect(Server.of(running, "operator"), name="test")
            each = Evening(server, bus, settings.data)
            try:
                await until(lambda: bool(server.rest.commands.get(None)), "the commands are offered")
                yield each
                for log in (tmp_path / "logs").glob("*.log"):
                    assert "permissions violation" not in log.read_text().lower(), log.name
            except BaseException:
                for service in ("capture", "mixer", "gateway"):
                    print(service, *installation.supervisor.last_words(service), sep="\n  ")
                raise
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await bus.close()


async def until(condition: Callable[[], object], what: str, *, seconds: float = DEADLINE_S) -> None:
    try:
        async with asyncio.timeout(seconds):
            while True:
                held = condition()
                if await held if isinstance(held, Awaitable) else held:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(f"not within {seconds:g} s: {what}") from error


@pytest.mark.soak
@pytest.mark.timeout(300)
async def test_an_evening(evening: Evening, tmp_path: Path):
    """From the rule that starts it to the person who wants to be forgotten."""
    session = await it_starts_by_itself(evening)
    await they_play(evening)
    await things_go_wrong(evening)
    await it_ends(evening, session)
    await links_work_and_expire(evening)
    await one_is_forgotten(evening, session, tmp_path)


async def it_starts_by_itself(evening: Evening) -> str:
    """A manager set a rule; when three are there, it records, and says so."""
    chiyo, server = evening.person(CHIYO, "de"), evening.server
    ruled = await chiyo.types("/aufnahme einstellungen", selbsttätig=CHANNEL, mindestens=3, zustimmung="opt-out")
    await ruled.reads("Gespeichert.")
    for person in PEOPLE[:2]:
        server.room.join(person)
    await asyncio.sleep(3.0)
    assert await evening.live() is None
    for person in PEOPLE[2:]:
        server.room.join(person)
    await until(lambda: evening.reads("● Recording"), "the panel stands")
    await server.wait_for_bot(timeout_s=30)
    await until(lambda: server.rest.voice_statuses.get(str(CHANNEL)) == "● Recording", "the channel says so")
    live = await evening.live()
    assert live is not None
    return live.session


async def they_play(evening: Evening) -> None:
    """Two notes, and a clip of what was just said, posted while it records."""
    ada, bela = evening.person(ADA), evening.person(BELA)
    await evening.talks()
    await (await ada.types("/record note", text="The dragon wakes", ago="2s")).reads("Noted")
    panel = evening.panel()
    assert panel is not None
    form = await bela.presses(panel, "Note")
    await (await bela.fills(form, text="We run")).reads("Noted")
    await until(lambda: evening.reads("Notes: 2 · last: We run"), "the notes are shown")
    clip = await ada.types("/record clip", last="1m", channel_id=CHANNEL)
    await clip.reads("A clip of the last ", timeout_s=DEADLINE_S)
    (posted,) = [each for each in ada.sees(CHANNEL) if each["attachments"]]
    (content,) = evening.server.rest.messages.files[posted["id"]].values()
    assert len(content) > 10_000


async def things_go_wrong(evening: Evening) -> None:
    """One does not want to be recorded any more; the connection breaks; the bot is killed. It goes on."""
    panel = evening.panel()
    assert panel is not None
    await (await evening.person(ENZO, "de").presses(panel, "Do not record me")).reads("nichts aufgenommen")
    await until(lambda: evening.reads("🔇 Enzo"), "the panel shows it")
    evening.server.drop_voice()
    await evening.server.wait_for_bot(timeout_s=30)
    await evening.talks()
    before = await evening.live()
    assert before is not None
    evening.kill_capture()
    await until(_is_take(evening, before.take + 1), "it records again after a restart")
    await evening.server.wait_for_bot(timeout_s=30)
    await evening.talks()
    await until(lambda: evening.reads("🔇 Enzo"), "the choice outlives the restart")


def _is_take(evening: Evening, take: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        live = await evening.live()
        return live is not None and live.take >= take

    return check


async def it_ends(evening: Evening, session: str) -> None:
    """Stopped by a button of before the restart; the same message becomes the card, and is ready soon."""
    panel = evening.panel()
    assert panel is not None
    await (await evening.person(ADA).presses(panel, "Stop")).reads("Stopped after")
    await until(lambda: evening.reads("■ Recording of The table"), "the card")
    card = evening.panel()
    assert card is not None
    assert card["id"] == panel["id"]
    await until(lambda: evening.reads("Ready: mix"), "the renders")
    log = await read_log(evening.bus, session)
    assert [fact.cause for fact in log.facts if isinstance(fact, TakeOpened)] == ["start", "reconnect", "restart"]
    assert len([fact for fact in log.facts if isinstance(fact, GapRecorded)]) == 2
    (withheld,) = [fact for fact in log.facts if isinstance(fact, SpeakerWithheld)]
    assert withheld.user_id == str(ENZO.user_id)
    late = [at for at in arrivals_of(evening, log, ENZO) if at >= withheld.at_ns]
    assert late == []
    assert arrivals_of(evening, log, ENZO)
    assert {note.text for note in log.facts if hasattr(note, "text")} == {"The dragon wakes", "We run"}


def arrivals_of(evening: Evening, log: Log, person: Person) -> list[int]:
    """When each recorded packet of a person arrived."""
    frames = evening.server.journal.frames
    ssrcs = {frame.ssrc for frame in frames if frame.user_id == str(person.user_id)}
    return [batch.arrival_ns(packet) for batch, packet in log.packets() if batch.ssrc in ssrcs]


async def links_work_and_expire(evening: Evening) -> None:
    """A page and a file by their links; a while later the same links are gone."""
    card = evening.panel()
    assert card is not None
    page = link_in(await (await evening.person(BELA).presses(card, "Listen")).reads("/s/"))
    mix = link_in(await (await evening.person(BELA).types("/record download", format="MP3")).reads("/d/"))
    tracks = await (await evening.person(BELA).types("/record download", format="FLAC", tracks=True)).reads("5 files")
    async with httpx.AsyncClient() as http:
        for url in (page, mix, link_in(tracks)):
            answer = await http.get(url)
            assert answer.status_code == httpx.codes.OK, (url, answer.text[:300])
            assert len(answer.content) > 1000

        async def gone() -> bool:
            return {(await http.get(url)).status_code for url in (page, mix)} == {httpx.codes.GONE}

        await until(gone, "the links expire")


def link_in(text: str) -> str:
    """The first link of an answer."""
    start = text.index("http")
    return text[start:].split(">", maxsplit=1)[0].split(")", maxsplit=1)[0].split(maxsplit=1)[0]


async def one_is_forgotten(evening: Evening, session: str, folder: Path) -> None:
    """Bela's voice is in no file any more, nor in what is mixed anew; everybody else's is what it was."""
    frames = evening.server.journal.frames
    hers = {frame.opus for frame in frames if frame.user_id == str(BELA.user_id) and frame.kind == "voice"}
    others = {frame.opus for frame in frames if frame.user_id == str(CHIYO.user_id) and frame.kind == "voice"}
    hers -= {frame.opus for frame in frames if frame.user_id != str(BELA.user_id)}
    before = await read_log(evening.bus, session)
    theirs = [batch for batch, _ in before.packets() if batch.ssrc not in ssrcs_of(evening, BELA)]
    assert holds(folder, hers)
    form = await evening.person(BELA).types("/record forget-me")
    await (await evening.person(BELA).fills(form, text="forget me")).reads("You are erased from 1 recordings")
    await until(_is_mixed_anew(evening, session), "mixed anew")
    after = await read_log(evening.bus, session)
    assert [batch for batch, _ in after.packets()] == theirs
    (proof,) = [fact for fact in after.facts if isinstance(fact, PersonForgotten)]
    assert proof.packets > 100
    artifacts = [stored.artifact for stored in await list_artifacts(evening.bus, session)]
    assert str(BELA.user_id) not in {artifact.user_id for artifact in artifacts}
    assert not holds(folder, hers)
    assert holds(folder, others)
    listed = await evening.person(BELA).types("/record list")
    await listed.reads("no recording")
    stored = await list_artifacts(evening.bus, session)
    assert [len(b"".join([part async for part in read_artifact(evening.bus, each)])) for each in stored] == [
        each.size for each in stored
    ]


def ssrcs_of(evening: Evening, person: Person) -> set[int]:
    """Every SSRC that a person had."""
    frames = evening.server.journal.frames
    return {frame.ssrc for frame in frames if frame.user_id == str(person.user_id)}


def _is_mixed_anew(evening: Evening, session: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        entry = await get_entry(evening.bus, session)
        stored = [each.artifact for each in await list_artifacts(evening.bus, session)]
        kinds = {(artifact.recipe.output, artifact.recipe.format) for artifact in stored}
        return bool(entry and entry.forgotten) and {("mix", "mp3"), ("tracks", "flac"), ("tracks", "opus")} <= kinds

    return check


def holds(folder: Path, payloads: set[bytes]) -> bool:
    """Whether any of these payloads is in any file below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if any(payload in content for payload in payloads):
                return True
    return False
