"""Links end when they should: used up, withdrawn, signed by a key that was retired; also in mid-download."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from contracts.artifacts import Artifact
from contracts.jetstream.erase import delete_session
from contracts.jetstream.keeping import withdraw
from contracts.jetstream.revoked import revoke
from contracts.jetstream.uses import Standing, look_up, take_use
from contracts.keys import make_keys, retire_key, rotate_keys
from contracts.links import LinkClaims, download_path, list_path, new_claims, page_path, sign_link
from contracts.recipes import Recipe
from tests.gateway_server import RunningGateway, read_log, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")
BIG = 48 * 1024 * 1024
CUT_S = 1.0  # what the issue promises
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent": "Mozilla/5.0 Firefox/140.0"}
CURL = {"Accept": "*/*", "User-Agent": "curl/8"}
DISCORD = {"Accept": "*/*", "User-Agent": "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def artifact(gateway: RunningGateway) -> Artifact:
    return await gateway.store(await gateway.session(name="Secret plans"), "one.mp3", os.urandom(300_000))


def claims_for(artifact: Artifact, **fields: Any) -> LinkClaims:
    values: dict[str, Any] = {"action": "download", "obj": artifact.name, **fields}
    return new_claims(sub="1", session=artifact.session, now_s=int(time.time()), lifetime_s=600, **values)


def url_of(gateway: RunningGateway, artifact: Artifact, claims: LinkClaims) -> str:
    token = sign_link(claims, gateway.key)
    return gateway.url + (download_path(token, artifact.filename) if claims.obj else page_path(token))


async def test_a_link_for_one_opens_for_one(
    gateway: RunningGateway, client: httpx.AsyncClient, artifact: Artifact
) -> None:
    """The first client gets it, again and in parts; another gets 410, by GET and HEAD alike."""
    url = url_of(gateway, artifact, claims_for(artifact, uses=1))
    assert (await client.head(url, headers=CURL)).status_code == 200
    assert (await client.get(url, headers=CURL)).content == gateway.data[artifact.name]
    part = await client.get(url, headers={**CURL, "Range": "bytes=10-19"})
    assert part.content == gateway.data[artifact.name][10:20]
    for method in ("GET", "HEAD"):
        other = await client.request(method, url, headers={**CURL, "User-Agent": "wget"})
        assert other.status_code == 410
    assert other.headers["content-type"] == "application/problem+json"
    assert (await client.get(url, headers=CURL)).status_code == 200


async def test_of_many_at_once_exactly_so_many_win(
    gateway: RunningGateway, client: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Twelve clients at the same moment on a link for three: three get it."""
    url = url_of(gateway, artifact, claims_for(artifact, uses=3))
    answers = await asyncio.gather(
        *(client.get(url, headers={**CURL, "User-Agent": f"agent {number}"}) for number in range(12))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [410] * 9


async def test_four_connections_are_one_use(
    gateway: RunningGateway, client: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Parallel ranges of one client are one use, whichever comes first."""
    url = url_of(gateway, artifact, claims_for(artifact, uses=1))
    edges = [(0, 99_999), (100_000, 199_999), (200_000, 299_999)]
    parts = await asyncio.gather(
        *(client.get(url, headers={**CURL, "Range": f"bytes={first}-{last}"}) for first, last in edges)
    )
    assert b"".join(part.content for part in parts) == gateway.data[artifact.name]


async def test_a_use_is_over_after_its_time(gateway: RunningGateway) -> None:
    """A client that comes back much later counts anew; looking counts nothing."""
    who = {"client": "c", "limit": 1}
    assert await look_up(gateway.bus, "later", **who, now_s=0) is Standing.FREE
    assert await take_use(gateway.bus, "later", **who, now_s=0)
    assert await look_up(gateway.bus, "later", **who, now_s=60) is Standing.HELD
    assert await look_up(gateway.bus, "later", **who, now_s=24 * 3600) is Standing.USED_UP
    assert not await take_use(gateway.bus, "later", **who, now_s=24 * 3600)


@pytest.mark.parametrize("action", ["page", "download"])
async def test_a_previewer_gets_a_card_and_spends_nothing(
    gateway: RunningGateway, client: httpx.AsyncClient, artifact: Artifact, action: str
) -> None:
    """Discord's own previewer, on page and file: no name, no bytes, no use; afterwards somebody still gets it."""
    url = url_of(
        gateway, artifact, claims_for(artifact, action=action, obj="" if action == "page" else artifact.name, uses=1)
    )
    for _ in range(3):
        card = await client.get(url, headers=DISCORD)
        assert (card.status_code, card.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert 'property="og:title"' in card.text
        assert "Secret plans" not in card.text
        assert gateway.data[artifact.name][:100] not in card.content
    assert (await client.get(url, headers=CURL)).status_code == 200


@pytest.mark.parametrize("action", ["page", "download"])
async def test_a_browser_is_asked_before_a_use_is_counted(
    gateway: RunningGateway, client: httpx.AsyncClient, artifact: Artifact, action: str
) -> None:
    """Following a limited link shows a button; pressing it opens, and from then on it is open for this client."""
    url = url_of(
        gateway, artifact, claims_for(artifact, action=action, obj="" if action == "page" else artifact.name, uses=1)
    )
    asked = await client.get(url, headers=BROWSER)
    assert "Open the recording" in asked.text
    assert "Secret plans" not in asked.text
    assert (await client.get(url + "?open=1", headers=BROWSER)).status_code == 200
    again = await client.get(url, headers=BROWSER)
    assert again.status_code == 200
    assert "Open the recording" not in again.text
    late = await client.get(url, headers={**BROWSER, "User-Agent": "Mozilla/5.0 Chrome/150"})
    assert late.status_code == 410


async def read_slowly(client: httpx.AsyncClient, url: str, started: asyncio.Event) -> tuple[int, float]:
    """Bytes that came until the connection was cut, and when that was."""
    received = 0
    try:
        async with client.stream("GET", url) as response:
            assert response.status_code == 200
            async for chunk in response.aiter_raw(65_536):
                received += len(chunk)
                started.set()
                await asyncio.sleep(0.02)
    except httpx.RemoteProtocolError:
        pass
    return received, time.monotonic()


@pytest.mark.parametrize("end", ["revoke", "retire", "erase", "delete"])
async def test_what_ends_a_link_cuts_its_downloads_within_a_second(
    gateway: RunningGateway, client: httpx.AsyncClient, end: str
) -> None:
    """The server lets go of a running download; one by another link, if it still holds, comes to its end."""
    session = await gateway.session()
    artifact = await gateway.store(session, "big.wav", os.urandom(BIG), recipe=Recipe(format="wav"))
    key = make_keys(gateway.settings.data / "keys") if end == "retire" else gateway.key
    claims = claims_for(artifact)
    url = gateway.url + download_path(sign_link(claims, key), artifact.filename)
    started = asyncio.Event()
    reading = asyncio.create_task(read_slowly(client, url, started))
    await started.wait()
    beside = asyncio.create_task(client.get(gateway.link(artifact)))
    ended = time.monotonic()
    match end:
        case "revoke":
            await revoke(gateway.bus, claims.jti)
        case "retire":
            (gateway.settings.data / "keys" / "private" / f"{key.kid}.pem").unlink()
            retire_key(gateway.settings.data / "keys", key.kid)
        case "delete":
            beside.cancel()
            await withdraw(gateway.bus, session, by="test", grace_s=60)
        case _:
            beside.cancel()
            await delete_session(gateway.bus, session)
    async with asyncio.timeout(10):
        while session not in cut_sessions(gateway):
            await asyncio.sleep(0.01)
    assert time.monotonic() - ended < CUT_S
    received, _ = await reading
    assert received < BIG
    assert (await client.get(url)).status_code in {403, 410}
    if end not in {"erase", "delete"}:
        assert len((await beside).content) == BIG


def cut_sessions(gateway: RunningGateway) -> set[str]:
    """Sessions whose transfers were cut, because of what we heard or because the object was gone."""
    return {line["session"] for line in read_log(gateway.log_file) if line["event"] in {"transfer_cut", "download_cut"}}


async def test_a_rotated_key_still_opens_and_a_retired_one_does_not(
    gateway: RunningGateway, client: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Rotating ends no link; retiring ends exactly those of the old key."""
    keys = gateway.settings.data / "keys"
    old = gateway.key
    before = gateway.link(artifact)
    gateway.key = rotate_keys(keys)
    after = gateway.link(artifact)
    assert [(await client.get(url)).status_code for url in (before, after)] == [200, 200]
    retire_key(keys, old.kid)
    assert [(await client.get(url)).status_code for url in (before, after)] == [403, 200]


async def test_a_list_shows_and_opens_what_it_is_for(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """A person's list: the sessions they were in, newest first, each page with its files; nothing of others."""
    mine = await gateway.session(name="Mine", people={"77": "Ann"})
    other = await gateway.session(name="Not mine", people={"78": "Bob"})
    artifact = await gateway.store(mine, "mine.mp3", b"mine" * 100)
    foreign = await gateway.store(other, "other.mp3", b"other" * 100)
    claims = new_claims(sub="1", session="", action="list", obj="user:77", now_s=int(time.time()), lifetime_s=60)
    base = gateway.url + list_path(sign_link(claims, gateway.key))
    shown = await client.get(base)
    assert shown.status_code == 200
    assert "Mine" in shown.text
    assert "Not mine" not in shown.text
    assert (await client.get(f"{base}/{mine}")).status_code == 200
    assert (await client.get(f"{base}/{mine}/d/{artifact.name}/mine.mp3")).content == b"mine" * 100
    assert (await client.get(f"{base}/{other}")).status_code == 404
    assert (await client.get(f"{base}/{other}/d/{foreign.name}/other.mp3")).status_code == 404
    assert (await client.get(f"{base}/{mine}/d/{foreign.name}/other.mp3")).status_code == 404
    assert (await client.get(f"{base}/{'0' * 16}")).status_code == 404
    assert (await client.get(f"{base}/..%2f")).status_code == 404
