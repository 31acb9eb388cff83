"""The session's page as a browser gets it: parsed, not compared as text."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
import pytest_asyncio

from contracts.recipes import Recipe
from tests.gateway_server import START_NS, RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOSTILE = "<script>alert(1)</script>\" onload='x' &amp; {{7*7}} \u202e"
PEOPLE = {"11": "Alice", "12": "Bob <b>", "13": HOSTILE}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Attributes of every such element."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(gateway: RunningGateway) -> str:
    """A recording of three people, one of them hostile, rendered in every default format and once without Alice."""
    session = await gateway.session(name="Friday game", people=PEOPLE, recorded=12_345, undecryptable=0, lost=7)
    await gateway.store(session, "Friday game.mp3", b"mix" * 1000)
    remix = Recipe(output="mix", format="mp3", mute=("11",))
    await gateway.store(session, "Friday game 2.mp3", b"mix2" * 1000, recipe=remix, rendered_unix_ns=START_NS + 1)
    for user, name in PEOPLE.items():
        for sort in ("flac", "opus"):
            recipe = Recipe(output="tracks", format=sort)
            await gateway.store(
                session, f"{user}.{sort}", f"{user}{sort}".encode() * 5000, recipe=recipe, user_id=user, speaker=name
            )
    return session


async def test_the_page_says_what_was_recorded_and_offers_it(
    gateway: RunningGateway, client: httpx.AsyncClient, session: str
) -> None:
    """Header, one player, every track with its downloads, people, counts, digests; and every link on it works."""
    url = gateway.page(session)
    response = await client.get(url)
    assert response.status_code == 200
    page = Page(response.text)
    for text in ("Friday game", "The Guild", "#General", "1:30", "Ready", "Alice", "Bob <b>", "12,345", "lost"):
        assert text in page.text, text
    (player,) = page.all("audio")
    assert player["preload"] == "none"
    assert "controls" in player
    (source,) = page.all("source")
    played = await client.get(urljoin(url, source["src"]))
    assert played.content == b"mix" * 1000
    assert played.headers["content-disposition"].startswith("inline")
    downloads = [link for link in page.all("a") if "download" in link]
    assert len(downloads) == 2 + 2 * len(PEOPLE)
    for link in downloads:
        got = await client.get(urljoin(url, link["href"]))
        assert got.status_code == 200
        assert got.headers["content-disposition"].startswith("attachment")
    assert "without Alice" in page.text
    assert not [meta for meta in page.all("meta") if meta.get("http-equiv") == "refresh"]


async def test_nothing_on_the_page_runs_or_leaves(
    gateway: RunningGateway, client: httpx.AsyncClient, session: str
) -> None:
    """One script of our own, nothing inline, nothing foreign; hostile names are text; the policy forbids the rest."""
    url = gateway.page(session)
    response = await client.get(url)
    page = Page(response.text)
    assert HOSTILE in page.text
    (script,) = page.all("script")
    assert script["type"] == "module"
    assert not page.all("style")
    assert not [name for _, attributes in page.elements for name in attributes if name == "style" or name[:2] == "on"]
    for _, attributes in page.elements:
        for name in ("href", "src"):
            if value := attributes.get(name):
                assert value.startswith("/"), value
                assert not value.startswith("//"), value
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    links = [link["href"] for link in page.all("link")]
    assert len(links) == 2
    for address in (*links, script["src"], script["src"].replace("session.js", "player.js")):
        got = await client.get(urljoin(url, address))
        assert got.status_code == 200
        assert "immutable" in got.headers["cache-control"]


async def test_a_live_session_says_so(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """While it is recorded there is nothing to play, and the page looks again by itself."""
    started = time.time_ns() - 61 * 1_000_000_000
    session = await gateway.session(started_unix_ns=started, ended_unix_ns=None, duration_ns=None, people=PEOPLE)
    page = Page((await client.get(gateway.page(session))).text)
    assert "Being recorded" in page.text
    assert not page.all("audio")
    assert [meta for meta in page.all("meta") if meta.get("http-equiv") == "refresh"]


async def test_a_session_just_ended_is_rendering(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Ended a moment ago and no file yet: it says so and looks again; ended long ago: it says how to get files."""
    now = time.time_ns()
    just = await gateway.session(started_unix_ns=now - 90_000_000_000, ended_unix_ns=now)
    page = Page((await client.get(gateway.page(just))).text)
    assert "Rendering" in page.text
    assert [meta for meta in page.all("meta") if meta.get("http-equiv") == "refresh"]
    long_ago = await gateway.session(ended_unix_ns=now - 7200 * 1_000_000_000)
    page = Page((await client.get(gateway.page(long_ago))).text)
    assert f"retold mix {long_ago}" in page.text
    assert not [meta for meta in page.all("meta") if meta.get("http-equiv") == "refresh"]


async def test_head_of_a_page_has_no_body(gateway: RunningGateway, client: httpx.AsyncClient, session: str) -> None:
    """HEAD, as link previewers send it, is answered like GET."""
    head = await client.head(gateway.page(session))
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1000


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: the page is not looked at")
async def test_a_browser_shows_the_page(gateway: RunningGateway, session: str, tmp_path: Path) -> None:
    """Chromium renders it without a complaint of its policy; the picture is kept in the test's folder."""
    picture = tmp_path / "page.png"
    arguments = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1000,1600",
        f"--screenshot={picture}",
        gateway.page(session),
    ]
    done = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, timeout=60, check=False)
    assert picture.stat().st_size > 10_000  # a test
    assert b"Content Security Policy" not in done.stderr
