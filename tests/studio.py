"""A browser and a session that was really rendered, for tests of the page and for the pictures of it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from contracts.directory import fold_entry
from contracts.events import NoteAdded, decode_fact, encode_fact
from contracts.jetstream.directory import put_entry
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.streams import create_session
from contracts.links import Permission, new_claims, page_path, sign_link
from contracts.settings import Settings
from contracts.subjects import FactSubject, facts, parse
from mixer import app as mixer
from tests.builders import Built, Network, build_session
from tests.gateway_server import RunningGateway, running_gateway, until

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DEFAULT_FILES: Final = Counter(mp3=1, flac=2, opus=2)  # a mix, and two tracks in two formats
NOTES: Final = ((4.0, "The dragon wakes", "Ada"), (20.0, "<b>Second</b> act", "Bela"))
NAMES: Final = ("Ada Lovelace", "Bela B.")
SECONDS: Final = 40.0
SIGNING_IN: Final = {"RETOLD_DISCORD_CLIENT_ID": "1", "RETOLD_DISCORD_CLIENT_SECRET": "none"}  # nobody gets that far
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--mute-audio")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: the page is not driven")


@dataclass
class Stage:
    """A gateway and a mixer, and a session of two people in the store."""

    gateway: RunningGateway
    session: str

    def link(self, *may: Permission, uses: int | None = None, who: str = "") -> str:
        """A link to the session's page."""
        claims = new_claims(
            sub="tests",
            session=self.session,
            action="page",
            obj="",
            now_s=int(time.time()),
            lifetime_s=3600,
            may=may,
            uses=uses,
            who=who,
        )
        return self.gateway.url + page_path(sign_link(claims, self.gateway.key))


@contextlib.asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """Everything, with the default recipes rendered."""
    async with running_gateway(folder, **SIGNING_IN) as gateway:
        stop = asyncio.Event()
        settings = Settings(data=folder / "data", nats_url=gateway.settings.nats_url)
        mixing = asyncio.create_task(mixer.run(settings, stop=stop))
        try:
            session = await put_session(gateway, two_people())
            await until(lambda: is_rendered(gateway, session))
            yield Stage(gateway, session)
        finally:
            stop.set()
            await mixing


def two_people() -> Built:
    """Two who speak in turn, for SECONDS."""
    plan = [[(1.0, 9.0), (20.0, 30.0)], [(10.0, 19.0), (31.0, 38.0)]]
    return build_session(SECONDS, 2, plan=plan, seed=7, speech=True, network=Network(loss=0.01))


async def put_session(gateway: RunningGateway, built: Built) -> str:
    """A built session on its stream and in the directory, with notes and names, as capture leaves it."""
    bus = gateway.bus
    await create_session(bus, built.session)
    entry = None
    for message in [*built.messages[:-1], *notes(built.session), built.messages[-1]]:
        if not isinstance(message, tuple):
            message_id, data = message.message_id, message.data
            if isinstance(parse(message.subject), FactSubject):
                data = _renamed(data)
                entry = fold_entry(entry, decode_fact(data))
            await bus.publish(message.subject, data, message_id=message_id)
        else:
            await bus.publish(facts(built.session), message[1], message_id=message[0])
    assert entry is not None
    await put_entry(bus, entry)
    return built.session


def notes(session: str) -> Iterator[tuple[str, bytes]]:
    """Message ids and facts."""
    for number, (at_s, text, author) in enumerate(NOTES):
        fact = NoteAdded(
            id=f"note.{number}", session=session, at_ns=round(at_s * 1e9), unix_ns=0, text=text, author=author
        )
        yield fact.id, encode_fact(fact)


def _renamed(data: bytes) -> bytes:
    fact: Any = decode_fact(data)
    if name := getattr(fact, "name", ""):
        for number, other in enumerate(NAMES):
            name = name.replace(f"Speaker {number}", other)
        fact = msgspec.structs.replace(fact, name=name)
    return encode_fact(fact)


async def is_rendered(gateway: RunningGateway, session: str) -> bool:
    """Whether every default recipe of two people is in the store."""
    kinds = Counter(stored.artifact.recipe.format for stored in await list_artifacts(gateway.bus, session))
    return kinds >= DEFAULT_FILES
