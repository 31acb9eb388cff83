"""A deletion ends everything within a second, and its undo brings everything back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio

from contracts.jetstream.directory import change_keeping
from contracts.jetstream.keeping import standing, withdraw
from contracts.links import page_path
from tests.gateway_server import RunningGateway, running_gateway, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOSED_S = 1.0
FORM = {"accept": "text/html"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as http:
        yield http


async def test_a_deletion_by_the_page_can_be_undone_by_its_link(
    gateway: RunningGateway, client: httpx.AsyncClient
) -> None:
    """Files are dead within a second, and the very same bytes again after the undo; the undo needs the permission."""
    session = await gateway.session()
    artifact = await gateway.store(session, "a.mp3", b"sound" * 1000)
    file = gateway.link(artifact)
    page = gateway.url + page_path(gateway.token(session=session, action="page", may=("delete",)))
    assert (await client.get(file)).status_code == 200
    deleted = await client.post(f"{page}/delete", data={"confirm": "erase"}, headers=FORM)
    assert deleted.status_code == 200
    assert "1 day" in deleted.text or "24 hours" in deleted.text
    began = time.monotonic()
    assert (await client.get(file)).status_code == 410
    assert (await client.get(page)).status_code == 410
    assert time.monotonic() - began < CLOSED_S
    assert (await client.post(gateway.page(session) + "/undelete")).status_code == 403
    undone = await client.post(f"{page}/undelete")
    assert (undone.status_code, undone.headers["location"]) == (303, httpx.URL(page).path)
    assert (await client.get(file)).content == b"sound" * 1000
    assert (await client.post(f"{page}/undelete")).status_code == 410


async def test_a_mix_under_way_outlives_a_deletion_and_its_undo(
    gateway: RunningGateway, client: httpx.AsyncClient
) -> None:
    """Nobody makes it here, so it waits; the page still shows it when the recording is back."""
    session = await gateway.session()
    page = gateway.url + page_path(gateway.token(session=session, action="page", may=("remix", "delete")))
    assert (await client.post(f"{page}/mixes", data={"as": "flac"})).status_code == 202
    waiting = "being made"
    assert waiting in (await client.get(f"{page}?open=1")).text
    assert (await client.post(f"{page}/delete", data={"confirm": "erase"}, headers=FORM)).status_code == 200
    assert (await client.post(f"{page}/undelete")).status_code == 303
    assert waiting in (await client.get(f"{page}?open=1")).text


async def test_without_grace_a_deletion_is_for_ever(tmp_path: Path, client: httpx.AsyncClient) -> None:
    """RETOLD_GRACE_HOURS=0: the page says so, and nobody opens the session or brings it back; the keeper erases it."""
    async with running_gateway(tmp_path, RETOLD_GRACE_HOURS="0") as strict:
        session = await strict.session()
        page = strict.url + page_path(strict.token(session=session, action="page", may=("delete",)))
        assert "Nobody can bring it back" in (await client.get(f"{page}/delete", headers=FORM)).text
        told = await client.post(f"{page}/delete", data={"confirm": "erase"}, headers=FORM)
        assert "is erased" in told.text
        assert await standing(strict.bus, session) == "deleted"
        assert (await client.get(page)).status_code == 410
        assert (await client.post(f"{page}/undelete")).status_code == 410


async def test_a_page_says_that_its_recording_will_go(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """When, and why."""
    session = await gateway.session()
    going_ns = 2_000_000_000 * 1_000_000_000
    await change_keeping(
        gateway.bus,
        session,
        lambda keeping: msgspec.structs.replace(keeping, going_unix_ns=going_ns, going_why="age"),
    )
    shown = await client.get(gateway.page(session), headers=FORM)
    assert "because of its age" in shown.text
    assert "2033" in shown.text


async def test_whoever_deletes_elsewhere_ends_it_here(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """The gateway hears of it, whatever it kept."""
    session = await gateway.session()
    page = gateway.page(session)
    assert (await client.get(page)).status_code == 200
    await withdraw(gateway.bus, session, by="operator", grace_s=60)

    async def is_gone() -> bool:
        return (await client.get(page)).status_code == 410

    await until(is_gone)
