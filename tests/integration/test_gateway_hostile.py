"""What attackers send, by the list: traversal in every path, headers in every name, markup in every text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
import pytest_asyncio

from contracts.events import NoteAdded, SpeakerJoined, encode_fact
from contracts.links import list_path, page_path
from contracts.recipes import Recipe
from contracts.subjects import facts
from gateway.edge import SECURITY_HEADERS
from tests.gateway_server import RunningGateway, running_gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")
TRAVERSALS = [
    "..",
    "../",
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%252f..%252fetc%252fpasswd",
    "....//....//etc/passwd",
    "..\\..\\..\\windows\\win.ini",
    "..%5c..%5cwindows%5cwin.ini",
    "%c0%ae%c0%ae/%c0%af",
    "%uff0e%uff0e/",
    "/etc/passwd",
    "//etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/",
    "private/key.pem",
    "..;/..;/",
    "page.css%00.svg",
    "%00",
    "%0d%0aX-Injected:%201",
    "%0aX-Injected:%201",
    "%e5%98%8a%e5%98%8dX-Injected:%201",
    ">",
    "*",
    "$JS.API.STREAM.NAMES",
    "%20",
    "~root",
    "con",
]
NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "</title><script>alert(1)</script>",
    "--><script>alert(1)</script>",
    "]]><x>",
    "&lt;script&gt;",
    "\u202eevil\u202c",
    "a\r\nSet-Cookie: x=1",
    "a\nContent-Length: 0\n\n",
    "a\x00b",
    "../../../etc/passwd",
    "..\\..\\x",
    '=HYPERLINK("http://x")',
    "\ufeff\u200b\u2066",
    "\U0001d56c" * 30,
    "x" * 200,
    'a"; filename="evil.exe',
    "CON",
    ".",
    "%s%n%x",
]


class Elements(HTMLParser):
    """Every element with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.found.append((tag, dict(attrs)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


async def raw(gateway: RunningGateway, target: str, *headers: str) -> bytes:
    """The answer to a request line that no client would tidy up."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"GET {target} HTTP/1.1", "Host: x", "Connection: close", *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.mark.parametrize("payload", TRAVERSALS)
async def test_no_path_leads_out(gateway: RunningGateway, payload: str) -> None:
    """In every place of every address: refused, without a file of ours, without a header of theirs."""
    session = await gateway.session()
    artifact = await gateway.store(session, "file.mp3", b"the bytes")
    page = page_path(gateway.token(session=session, action="page", may=("remix", "delete")))
    listed = list_path(gateway.token(session="", action="list", obj="all"))
    token = gateway.token(session=session, obj=artifact.name)
    for target in (
        f"/{payload}",
        f"/assets/{payload}",
        f"/assets/x/{payload}",
        f"/d/{token}/{payload}",
        f"/d/{payload}/file.mp3",
        f"/s/{payload}",
        f"{page}/{payload}",
        f"{page}/d/{payload}/file.mp3",
        f"{page}/d/{artifact.name}/{payload}",
        f"{listed}/{payload}",
        f"{listed}/{payload}/d/{artifact.name}/file.mp3",
        f"/api/v1/sessions/{payload}",
        f"/health/{payload}",
    ):
        answer = await raw(gateway, target)
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1])
        assert 400 <= status < 500, (target, head)
        assert b"x-injected" not in head.lower()
        assert b"root:" not in body
        assert b"PRIVATE KEY" not in body
        assert b"the bytes" not in body


@pytest.mark.parametrize("name", NAMES)
async def test_no_name_is_more_than_a_name(gateway: RunningGateway, client: httpx.AsyncClient, name: str) -> None:
    """Of a session, a server, a channel, a person, a note, a file: text on the page, and one header line."""
    session = await gateway.session(name=name, guild_name=name, channel_name=name, people={"11": name})
    joined = SpeakerJoined(id="j", session=session, at_ns=0, unix_ns=0, take=1, user_id="11", name=name)
    note = NoteAdded(id="n", session=session, at_ns=1, unix_ns=1, text=name, author=name)
    for fact in (joined, note):
        await gateway.bus.publish(facts(session), encode_fact(fact), message_id=fact.id)
    filename = name.replace("/", "_")  # as the mixer does: else there is no address for it
    await gateway.store(session, f"{filename}.mp3", b"x" * 100)
    track = await gateway.store(
        session,
        f"{filename}.opus",
        b"y" * 100,
        recipe=Recipe(output="tracks", format="opus"),
        user_id="11",
        speaker=name,
    )
    url = gateway.url + page_path(gateway.token(session=session, action="page", may=("remix", "delete")))
    listed = gateway.url + list_path(gateway.token(session="", action="list", obj="user:11"))
    for address in (url, f"{url}/delete", listed):
        answer = await client.get(address)
        assert answer.status_code == 200
        assert SECURITY_HEADERS.items() - {
            ("content-security-policy", SECURITY_HEADERS["content-security-policy"])
        } <= set(answer.headers.items())
        check_page(answer.text)
    timeline = (await client.get(f"{url}/timeline")).json()
    assert timeline["notes"][0]["text"] == name
    download = await client.get(gateway.link(track))
    assert download.content == b"y" * 100
    disposition = download.headers["content-disposition"]
    assert disposition.isascii()
    assert disposition.isprintable()
    assert "set-cookie" not in download.headers
    saved = unquote(disposition.partition("filename*=UTF-8''")[2])
    assert not set(saved) & set("/\\\r\n\0\u202e")


def check_page(html: str) -> None:
    """Nothing runs, nothing leaves, no attribute has broken out of its quotes."""
    for tag, attributes in Elements(html).found:
        assert tag not in {"img", "iframe", "object", "embed", "x"} or attributes.get("src", "").startswith("/assets/")
        if tag == "script":
            assert str(attributes["src"]).startswith("/assets/")
        for attribute, value in attributes.items():
            assert not attribute.startswith("on"), attribute
            assert attribute != "style"
            if attribute in {"href", "src", "action"}:
                assert str(value).startswith(("/", "?", "#")), value
                assert not str(value).startswith("//"), value


async def test_no_header_of_the_client_is_believed(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Host, forwarding, methods in headers, and what is meant for nginx change nothing and come back nowhere."""
    session = await gateway.session()
    artifact = await gateway.store(session, "file.mp3", b"the bytes")
    hostile: dict[str, Any] = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-For": "127.0.0.1",
        "X-Real-IP": "127.0.0.1",
        "X-Forwarded-Proto": "javascript",
        "X-HTTP-Method-Override": "DELETE",
        "X-Original-URL": "/health/live",
        "X-Accel": "on",
        "X-Accel-Redirect": "/_cache/x",
        "Forwarded": "host=evil.example",
        "Origin": "https://evil.example",
        "Accept": "text/html",
    }
    for url in (gateway.page(session), gateway.link(artifact), gateway.url + "/s/x.y.z"):
        answer = await client.get(url, headers=hostile)
        assert answer.status_code in {200, 403}
        assert b"evil.example" not in answer.content
        assert "evil.example" not in str(answer.headers)
        assert "access-control-allow-origin" not in answer.headers
        assert "x-accel-redirect" not in answer.headers
    assert (await client.get(gateway.link(artifact), headers=hostile)).content == b"the bytes"


@pytest.mark.parametrize(
    "header", ["Range", "If-Range", "If-None-Match", "If-Modified-Since", "Accept", "Authorization"]
)
@pytest.mark.parametrize(
    "value", ["\x01", "a" * 8000, ",".join("0-0" for _ in range(2000)), "\xff\xfe", "bytes=" + "9" * 4000]
)
async def test_no_header_makes_it_fail(gateway: RunningGateway, header: str, value: str) -> None:
    """Whatever is in it: an answer, and no 500."""
    session = await gateway.session()
    artifact = await gateway.store(session, "file.mp3", b"the bytes")
    target = httpx.URL(gateway.link(artifact)).raw_path.decode()
    answer = await raw(gateway, target, f"{header}: {value}")
    assert int(answer.split(b" ")[1]) < 500


async def test_a_form_is_not_read_from_elsewhere(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Without the field that says so, with another type of body, or too long: nothing is erased."""
    session = await gateway.session()
    url = gateway.url + page_path(gateway.token(session=session, action="page", may=("delete",))) + "/delete"
    assert (await client.get(url)).status_code == 200
    assert (await client.post(url)).status_code == 400
    assert (await client.post(url, data={"confirm": "no"})).status_code == 400
    assert (await client.post(url, json={"confirm": "erase"})).status_code == 400
    assert (await client.post(url, data={"confirm": "erase", "x": "y" * 100_000})).status_code == 413
    assert (await client.post(url + "?confirm=erase")).status_code == 400
    assert (await client.get(gateway.page(session))).status_code == 200
    may_not = gateway.page(session) + "/delete"
    assert (await client.post(may_not, data={"confirm": "erase"})).status_code == 403
    assert quote("erase") in (await client.get(url)).text
