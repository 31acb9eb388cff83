"""What was ended is ended in every cache, too: stories in memory, files on nginx's disk, transfers that it makes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from contracts.artifacts import Artifact
from contracts.events import NoteAdded, encode_fact
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import rebuild_entry
from contracts.jetstream.erase import delete_session
from contracts.jetstream.forget import forget_in_session
from contracts.jetstream.keeping import withdraw
from contracts.jetstream.revoked import revoke
from contracts.jetstream.streams import create_session, delete_stream
from contracts.links import page_path
from contracts.recipes import Recipe
from contracts.streams import session_stream_name
from contracts.subjects import facts
from contracts.tokens import peek_jti
from gateway.links import KeyRing
from gateway.problems import ProblemError
from gateway.story import Stories
from gateway.transfers import Transfers
from tests.builders import build_session
from tests.gateway_server import RunningGateway, running_gateway, until, wait_for_event
from tests.nginx import RunningNginx, needs_nginx, running_nginx
from tests.restartable import restartable
from tests.small_disk import small_disk

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIZE = 24 * 1024 * 1024
WITHIN_S = 1.0  # what the issue promises
ADA = "100000"  # the builder's first person, `Speaker 0`


@dataclass
class Behind:
    """A gateway with a disk cache, behind the shipped nginx."""

    gateway: RunningGateway
    nginx: RunningNginx
    client: httpx.AsyncClient

    def files(self, session: str) -> list[Path]:
        """What is on nginx's disk of a session."""
        return [path for path in (self.gateway.folder / "cache" / session).glob("*") if path.is_file()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Behind]:
    folder = tmp_path_factory.mktemp("gateway")
    cache = folder / "cache"
    more = {"RETOLD_TRUSTED_PROXIES": "127.0.0.1", "RETOLD_CACHE": str(cache)}
    async with (
        running_gateway(folder, **more) as gateway,
        running_nginx(folder / "nginx", gateway=gateway.url.removeprefix("http://"), cache=cache) as nginx,
        httpx.AsyncClient(base_url=nginx.url, verify=nginx.trust, timeout=30) as client,
    ):
        yield Behind(gateway, nginx, client)


async def put_two_people(bus: Bus, seed: int) -> str:
    """A session of two that has ended, as capture leaves it."""
    built = build_session(6.0, 2, plan=[[(0.5, 2.5)], [(3.0, 5.0)]], seed=seed)
    await create_session(bus, built.session)
    for message in built.messages:
        await bus.publish(message.subject, message.data, message_id=message.message_id)
    await rebuild_entry(bus, built.session)
    return built.session


async def store_big(gateway: RunningGateway, session: str) -> Artifact:
    data = random.Random(session).randbytes(SIZE)
    return await gateway.store(session, "big.wav", data, recipe=Recipe(format="wav"))


@needs_nginx
@pytest.mark.alone  # judged by the clock
@pytest.mark.parametrize("end", ["forget", "delete", "erase", "revoke"])
async def test_an_end_reaches_every_cache_within_a_second(behind: Behind, tmp_path: Path, end: str) -> None:
    """Page and API have read the story, nginx sends the file from its disk: all of it ends, also what is under way."""
    gateway, client = behind.gateway, behind.client
    session = await put_two_people(gateway.bus, seed={"forget": 1, "erase": 2, "revoke": 3, "delete": 9}[end])
    artifact = await store_big(gateway, session)
    token = gateway.token(session=session, action="page")
    page = page_path(token)
    file = f"{page}/d/{artifact.name}/{artifact.filename}"
    assert "Speaker 0" in (await client.get(page)).text
    await warm(behind, session, file)
    begun, hurry = asyncio.Event(), asyncio.Event()
    reading = asyncio.create_task(read_on(client, file, begun, hurry))
    await begun.wait()
    match end:
        case "forget":
            assert await forget_in_session(gateway.bus, session, ADA, tmp_path) is not None
        case "delete":  # it could be brought back
            await withdraw(gateway.bus, session, by="tests", grace_s=3600)
        case "erase":
            await delete_session(gateway.bus, session)
        case _:
            await revoke(gateway.bus, peek_jti(token))
    hurry.set()
    ended = time.monotonic()

    async def is_over() -> bool:
        answers = [await client.get(page), await client.get(file, headers={"Range": "bytes=0-0"})]
        closed = answers[1].status_code in {404, 410} and "Speaker 0" not in answers[0].text
        return closed and not behind.files(session) and reading.done()

    await until(is_over)
    assert time.monotonic() - ended < WITHIN_S
    assert 0 < await reading < SIZE
    if end == "forget":
        shown = await client.get(page)
        assert shown.status_code == 200
        assert "Speaker 1" in shown.text


async def warm(behind: Behind, session: str, file: str) -> None:
    """Ask for it until nginx has it on disk."""
    for _ in range(2):
        assert (await behind.client.get(file, headers={"Range": "bytes=0-0"})).status_code == 206

    async def is_there() -> bool:
        return any(path.suffix != ".part" for path in behind.files(session))

    await until(is_there)


async def read_on(client: httpx.AsyncClient, url: str, begun: asyncio.Event, hurry: asyncio.Event) -> int:
    """Read until the end, or until it is cut, slowly until told to hurry; the bytes that came."""
    received = 0
    with contextlib.suppress(httpx.RemoteProtocolError):
        async with client.stream("GET", url) as response:
            async for chunk in response.aiter_raw(65_536):
                received += len(chunk)
                begun.set()
                if not hurry.is_set():
                    await asyncio.sleep(0.01)
    return received


@needs_nginx
async def test_after_an_outage_the_disk_is_empty(behind: Behind) -> None:
    """What ended meanwhile was not heard of, so nothing is sent that was fetched before."""
    gateway = behind.gateway
    session = await gateway.session()
    artifact = await store_big(gateway, session)
    page = page_path(gateway.token(session=session, action="page"))
    file = f"{page}/d/{artifact.name}/{artifact.filename}"
    await warm(behind, session, file)
    await gateway.server.stop()
    await gateway.server.start()

    async def is_empty() -> bool:
        return not behind.files(session)

    await until(is_empty)

    async def is_served() -> bool:
        answer = await behind.client.get(file, headers={"Range": "bytes=0-9"})
        return answer.status_code == 206 and answer.content == gateway.data[artifact.name][:10]

    await until(is_served)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bus]:
    async with restartable(tmp_path_factory.mktemp("nats")) as (_, connected):
        yield connected


async def test_a_story_that_is_read_while_it_changes_is_not_kept(bus: Bus) -> None:
    """Somebody looks, and is still reading when a person is taken out: the next look tells of the new log alone."""
    session = await put_two_people(bus, seed=4)
    stories = Stories(bus)
    looking = asyncio.create_task(stories.of(session))
    while session not in stories._locks:
        await asyncio.sleep(0)
    stories.forget(session)
    assert "Speaker 0" in (await looking).names.values()
    await delete_stream(bus, session_stream_name(session))
    await create_session(bus, session)
    note = NoteAdded(id="only", session=session, at_ns=1, unix_ns=1, text="Alone")
    await bus.publish(facts(session), encode_fact(note), message_id="only")
    told = await stories.of(session)
    assert (told.names, [each.text for each in told.notes]) == ({}, ["Alone"])


@pytest.mark.parametrize(("end", "title"), [("revoke", "withdrawn"), ("erase", "deleted")])
async def test_what_ends_between_check_and_beginning_does_not_begin(
    bus: Bus, tmp_path: Path, end: str, title: str
) -> None:
    """A link was checked, and ended before its transfer began: nobody would cut it any more, so it is not begun."""
    session = await put_two_people(bus, seed=5 + len(end))
    transfers = Transfers(bus, KeyRing(tmp_path).current)
    watching = asyncio.create_task(transfers.watch())
    allowed = {"jti": f"a-link-{end}", "session": session}
    transfers.check(**allowed)
    end_it: Callable[[], Awaitable[object]] = (
        (lambda: revoke(bus, allowed["jti"])) if end == "revoke" else (lambda: delete_session(bus, session))
    )

    async def is_refused() -> bool:
        await end_it()
        try:
            with transfers.running(kid="k", **allowed):
                return False
        except ProblemError as error:
            return title in error.problem.title

    await until(is_refused)
    watching.cancel()


async def test_a_disk_that_takes_no_more_costs_no_download(tmp_path: Path) -> None:
    """What does not fit is sent all the same; then the oldest file has made room, and nothing half is kept."""
    with small_disk(tmp_path / "cache", megabytes=32) as disk:
        more = {"RETOLD_TRUSTED_PROXIES": "127.0.0.1", "RETOLD_CACHE": str(disk.path)}
        async with running_gateway(tmp_path, **more) as gateway, httpx.AsyncClient(timeout=30) as client:
            stored = [await store_big(gateway, await put_two_people(gateway.bus, seed=seed)) for seed in (31, 32)]

            async def is_handed_over(artifact: Artifact) -> bool:
                answer = await client.get(gateway.link(artifact), headers={"X-Accel": "on"})  # as nginx says it
                handed_over = "x-accel-redirect" in answer.headers
                assert handed_over or answer.content == gateway.data[artifact.name]
                return handed_over

            for artifact in stored:  # each fits, and both do not
                await until(lambda artifact=artifact: is_handed_over(artifact))
            await wait_for_event(gateway.log_file, "cache_not_filled", session=stored[1].session)
            assert [path.stat().st_size for path in disk.path.rglob("*") if path.is_file()] == [SIZE]
            disk.fill(files=True)
            assert not await is_handed_over(stored[0])
            assert not await is_handed_over(stored[0])
            await wait_for_event(gateway.log_file, "cache_not_filled", session=stored[0].session)
            disk.empty()
            await until(lambda: is_handed_over(stored[0]))
