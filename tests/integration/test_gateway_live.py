"""A call while it is recorded: heard, followed, and left when it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from contracts.artifacts import RenderProgressed
from contracts.directory import SessionEntry
from contracts.events import NoteAdded, SpeakerJoined, encode_fact
from contracts.jetstream.directory import get_entry, put_entry
from contracts.jetstream.jobs import publish_render_fact
from contracts.jetstream.revoked import revoke
from contracts.jetstream.streams import create_session, delete_stream
from contracts.links import page_path
from contracts.streams import session_stream_name
from contracts.subjects import facts, live
from contracts.tokens import peek_jti
from tests.gateway_server import RunningGateway, running_gateway, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


async def live_session(gateway: RunningGateway) -> str:
    started = time.time_ns() - 5_000_000_000
    return await gateway.session(started_unix_ns=started, ended_unix_ns=None, duration_ns=None)


class Reader:
    """A response that is read in the background."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.data = b""
        self.status = 0
        self.headers = httpx.Headers()
        self.task = asyncio.create_task(self._read(client, url))

    async def _read(self, client: httpx.AsyncClient, url: str) -> None:
        async with client.stream("GET", url) as response:
            self.status, self.headers = response.status_code, response.headers
            async for chunk in response.aiter_raw():
                self.data += chunk

    async def has(self, part: bytes) -> bool:
        """Whether this came."""
        return part in self.data

    async def leave(self) -> None:
        """Hang up."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def states(self) -> list[dict[str, Any]]:
        """Data of every event."""
        lines = self.data.decode().splitlines()
        return [msgspec.json.decode(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_a_call_is_heard_while_it_is_recorded(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """It begins with what was said last, goes on with what comes, and the page offers it; nothing else is in it."""
    session, other = await live_session(gateway), await live_session(gateway)
    page = gateway.page(session)
    assert (await client.get(f"{page}/live.mp3")).status_code == 404
    assert "live.mp3" not in (await client.get(page)).text
    await gateway.bus.publish(live(session), b"first")
    await gateway.bus.publish(live(other), b"foreign")
    assert "live.mp3" in (await client.get(page)).text
    reader = Reader(client, f"{page}/live.mp3")
    await until(lambda: reader.has(b"first"))
    await gateway.bus.publish(live(session), b"second")
    await gateway.bus.publish(live(other), b"foreign")
    await until(lambda: reader.has(b"second"))
    assert reader.data == b"firstsecond"
    assert reader.headers["content-type"] == "audio/mpeg"
    assert "content-length" not in reader.headers
    await reader.leave()


async def test_what_has_ended_is_not_heard_any_more(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Its last second stays on the bus for a while, and is no live sound: the recording is on its page."""
    session = await gateway.session()
    await gateway.bus.publish(live(session), b"last")
    answer = await client.get(f"{gateway.page(session)}/live.mp3")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:retold:problem:not-live")


async def test_a_withdrawn_link_is_silent_at_once(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Whoever listens by it is cut off."""
    session = await live_session(gateway)
    await gateway.bus.publish(live(session), b"first")
    token = gateway.token(session=session, action="page")
    reader = Reader(client, gateway.url + page_path(token) + "/live.mp3")
    await until(lambda: reader.has(b"first"))
    await revoke(gateway.bus, peek_jti(token))
    await asyncio.wait({reader.task}, timeout=1)
    assert reader.task.done()
    await asyncio.gather(reader.task, return_exceptions=True)


async def test_a_feed_tells_what_is_new_on_the_page(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Its version changes with a note, and with the end; its clock runs while it is live."""
    session = await live_session(gateway)
    reader = Reader(client, gateway.page(session) + "/events")
    await until(lambda: reader.has(b'"state":"live"'))
    first = reader.states()[0]
    note = NoteAdded(id="n", session=session, at_ns=1, unix_ns=1, text="Here")
    await gateway.bus.publish(facts(session), encode_fact(note), message_id="n")

    async def is_new() -> bool:
        return reader.states()[-1]["version"] != first["version"]

    await until(is_new)
    assert reader.states()[-1]["duration_s"] > first["duration_s"]
    entry = await get_entry(gateway.bus, session)
    assert isinstance(entry, SessionEntry)
    await put_entry(gateway.bus, msgspec.structs.replace(entry, ended_unix_ns=time.time_ns()))
    await until(lambda: reader.has(b'"state":"rendering"'))
    await reader.leave()


async def test_a_feed_tells_how_a_mix_goes(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Progress of a job that the page asked for, without waiting for the next look."""
    session = await gateway.session()
    url = gateway.url + page_path(gateway.token(session=session, action="page", may=("remix",)))
    reader = Reader(client, f"{url}/events")
    await until(lambda: reader.has(b'"mixes":[]'))
    made = await client.post(f"{url}/mixes", data={"as": "mp3"})
    assert made.status_code == 202
    job = made.json()["job"]
    fact = RenderProgressed(job=job, session=session, unix_ns=1, stage="render", fraction=0.5, eta_s=2.0)
    await publish_render_fact(gateway.bus, fact)
    await until(lambda: reader.has(b'"fraction":0.5'))
    await reader.leave()


async def test_who_is_taken_out_of_the_session_is_off_the_page(
    gateway: RunningGateway, client: httpx.AsyncClient
) -> None:
    """What the gateway remembers of a session ends with the entry that it remembers it by."""
    session = await gateway.session(people={"11": "Ada", "12": "Bela"})
    for user, name in (("11", "Ada"), ("12", "Bela")):
        fact = SpeakerJoined(id=f"j{user}", session=session, at_ns=0, unix_ns=0, take=1, user_id=user, name=name)
        await gateway.bus.publish(facts(session), encode_fact(fact), message_id=fact.id)
    page = gateway.page(session)
    assert "Bela" in (await client.get(page)).text
    await delete_stream(gateway.bus, session_stream_name(session))
    await create_session(gateway.bus, session)
    entry = await get_entry(gateway.bus, session)
    assert entry is not None
    await put_entry(gateway.bus, msgspec.structs.replace(entry, people={"11": "Ada"}))

    async def is_gone() -> bool:
        return "Bela" not in (await client.get(page)).text

    await until(is_gone)
    assert "Ada" in (await client.get(page)).text
