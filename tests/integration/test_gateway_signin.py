"""Links for one Discord account: who signs in with it gets in, and nobody else, whatever they send."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio

from contracts.artifacts import Artifact
from contracts.errors import SettingsError
from contracts.keys import load_public_keys
from contracts.linker import Linker
from contracts.links import download_path, new_claims, page_path, sign_link, verify_link
from contracts.settings import Settings
from gateway.signin import open_sign_in
from ops.loopback.accounts import CLIENT_ID, CLIENT_SECRET
from ops.loopback.plan import make_plan
from ops.loopback.server import LoopbackDiscord
from tests.gateway_server import RunningGateway, read_text, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADA, BELA = 300_000_000_000_000_001, 300_000_000_000_000_002
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent": "Mozilla/5.0 Firefox/140.0"}
PUBLIC = "http://127.0.0.1:8080"  # as the settings have it; the test's gateway is elsewhere


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def discord(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LoopbackDiscord]:
    folder = tmp_path_factory.mktemp("discord")
    plan = make_plan(seconds=5, speakers=1, seed=1)
    async with LoopbackDiscord(plan=plan, guild_id=1, channel_id=2, directory=folder) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, discord: LoopbackDiscord) -> AsyncIterator[RunningGateway]:
    more = {
        "RETOLD_DISCORD_CLIENT_ID": CLIENT_ID,
        "RETOLD_DISCORD_CLIENT_SECRET": CLIENT_SECRET,
        "RETOLD_DISCORD_API_URL": discord.environ["RETOLD_DISCORD_API_URL"],
    }
    async with running_gateway(tmp_path_factory.mktemp("gateway"), **more) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30, headers=BROWSER) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(gateway: RunningGateway) -> Artifact:
    return await gateway.store(await gateway.session(name="Secret plans"), "Die größte Höhle.mp3", b"sound" * 1000)


def link(gateway: RunningGateway, artifact: Artifact, *, who: int = ADA, file: bool = False) -> str:
    """A link for one account."""
    claims = new_claims(
        sub=str(who),
        session=artifact.session,
        action="download" if file else "page",
        obj=artifact.name if file else "",
        now_s=int(time.time()),
        lifetime_s=600,
        who=str(who),
    )
    token = sign_link(claims, gateway.key)
    return gateway.url + (download_path(token, artifact.filename) if file else page_path(token))


async def go_to_discord(gateway: RunningGateway, browser: httpx.AsyncClient, url: str) -> str:
    """Press the button; where Discord sends the browser back to."""
    off = await browser.get(f"{url}?signin=1")
    assert off.status_code == 303
    assert parse_qs(urlsplit(off.headers["location"]).query)["redirect_uri"] == [f"{PUBLIC}/signin"]
    back = await browser.get(off.headers["location"])
    return str(back.headers["location"]).replace(PUBLIC, gateway.url)


async def sign_in(gateway: RunningGateway, browser: httpx.AsyncClient, url: str) -> httpx.Response:
    """The whole way; what the gateway answers at its end."""
    return await browser.get(await go_to_discord(gateway, browser, url))


@pytest.mark.parametrize("file", [False, True], ids=["page", "file"])
async def test_the_right_account_gets_in(
    gateway: RunningGateway, discord: LoopbackDiscord, browser: httpx.AsyncClient, artifact: Artifact, file: Any
) -> None:
    """First a button and nothing of the recording, then Discord, then back to the very link, which opens."""
    discord.rest.accounts.at_browser = ADA
    url = link(gateway, artifact, file=file)
    asked = await browser.get(url)
    assert asked.status_code == 403
    assert "Sign in with Discord" in asked.text
    assert "Secret plans" not in asked.text
    back = await sign_in(gateway, browser, url)
    assert (back.status_code, gateway.url + back.headers["location"]) == (303, url)
    opened = await browser.get(url)
    assert opened.status_code == 200
    if file:
        assert opened.content == gateway.data[artifact.name]
    else:
        assert "Secret plans" in opened.text
        assert "With your account you can listen until" in opened.text
    other_of_hers = link(gateway, artifact, file=not file)
    assert (await browser.get(other_of_hers)).status_code == 200


async def test_another_account_does_not(
    gateway: RunningGateway, discord: LoopbackDiscord, browser: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Bela signs in and stands before Ada's link; everything below its page is as closed as the page."""
    discord.rest.accounts.at_browser = BELA
    url = link(gateway, artifact)
    await sign_in(gateway, browser, url)
    refused = await browser.get(url)
    assert refused.status_code == 403
    assert "another Discord account" in refused.text
    for below in ("", "/timeline", "/events", "/live.mp3", "/delete", f"/d/{artifact.name}/{artifact.name}"):
        answer = await browser.get(url + below, headers={"Accept": "*/*"})
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:retold:problem:sign-in-needed"), below
    made = await browser.post(f"{url}/mixes", data={"as": "mp3"}, headers={"Accept": "*/*"})
    assert made.status_code == 403
    assert (await browser.get(link(gateway, artifact, who=BELA))).status_code == 200


async def test_cookies_of_others_and_codes_of_others_open_nothing(
    gateway: RunningGateway, discord: LoopbackDiscord, browser: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Forged, changed and swapped cookies are none; a code works in the browser that asked for it, once."""
    discord.rest.accounts.at_browser = ADA
    url = link(gateway, artifact)
    back = await go_to_discord(gateway, browser, url)
    state = browser.cookies["retold-state"]
    async with httpx.AsyncClient(timeout=30, headers=BROWSER) as stranger:
        assert (await stranger.get(back)).status_code == 403
        await stranger.get(f"{url}?signin=1")
        assert (await stranger.get(back)).status_code == 403
    answer = await browser.get(back)
    assert answer.status_code == 303
    account = browser.cookies["retold-account"]
    for cookie in ("", "x", "x.y", account[:-6] + "AAAAA=", state, "=" + account, account.replace(".", "..")):
        async with httpx.AsyncClient(headers=BROWSER, cookies={"retold-account": cookie}) as stranger:
            assert (await stranger.get(url)).status_code == 403, cookie
    async with httpx.AsyncClient(headers=BROWSER, cookies={"retold-state": state}) as again:
        assert (await again.get(back)).status_code == 403
    set_cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(set_cookie.split("; "))


async def test_who_says_no_is_not_signed_in(
    gateway: RunningGateway, discord: LoopbackDiscord, browser: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Discord sends them back without a code: a page that says so."""
    discord.rest.accounts.at_browser = None
    answer = await sign_in(gateway, browser, link(gateway, artifact))
    assert answer.status_code == 403
    assert "You are not signed in" in answer.text
    text = read_text(gateway.log_file)
    assert "eyJ" not in text


async def test_an_open_link_asks_nobody(
    gateway: RunningGateway, browser: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Signing in is for links that are bound; the others open as ever."""
    assert (await browser.get(gateway.page(artifact.session))).status_code == 200


async def test_the_bot_binds_its_links_if_it_shall(tmp_path: Path) -> None:
    """With RETOLD_BIND_LINKS what is made for a person is theirs; the operator's own links open for anybody."""
    bound = Settings(data=tmp_path, discord_client_id="1", discord_client_secret="s", bind_links=True)  # noqa: S106

    def who(**of_linker: Any) -> str:
        linker = Linker(of_linker.pop("settings", bound), **of_linker)
        token = linker.page("0" * 16).rpartition("/")[2]
        return verify_link(token, load_public_keys(tmp_path / "keys"), now_s=int(time.time())).who

    assert who(subject=str(ADA)) == str(ADA)
    assert who() == ""
    assert who(who=str(BELA)) == str(BELA)
    assert who(settings=Settings(data=tmp_path), subject=str(ADA)) == ""


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"bind_links": True}, "RETOLD_BIND_LINKS"),
        ({"discord_client_id": "1"}, "RETOLD_DISCORD_CLIENT_SECRET"),
        (
            {"discord_client_id": "1", "discord_client_secret": "s", "discord_ca_file": "/nowhere"},
            "RETOLD_DISCORD_CA_FILE",
        ),
    ],
)
async def test_half_a_set_up_is_refused_by_name(fields: dict[str, Any], named: str) -> None:
    """The gateway does not start with signing in that cannot work."""
    with pytest.raises(SettingsError, match=named):
        open_sign_in(Settings(**fields), now_s=time.time)
