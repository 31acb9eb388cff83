"""Every kind of token on every route: exactly the right ones open, and a refusal says nothing it should not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from contracts.jetstream.erase import delete_session
from contracts.jetstream.revoked import revoke
from contracts.keys import make_keys
from contracts.links import (
    download_path,
    new_claims,
    page_path,
    sign_link,
)
from gateway.edge import SECURITY_HEADERS
from gateway.services import open_services
from tests.gateway_server import RunningGateway, read_text, running_gateway, wait_for_event
from tests.tokens import REVOKED, World, bad_tokens, right

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROBLEM = "application/problem+json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(gateway: RunningGateway) -> World:
    session, another = await gateway.session(), await gateway.session()
    await revoke(gateway.bus, REVOKED)
    return World(
        gateway,
        await gateway.store(session, "first.mp3", b"first" * 1000),
        await gateway.store(session, "second.mp3", b"second" * 1000),
        await gateway.store(another, "other.mp3", b"other" * 1000),
    )


class Opens(NamedTuple):
    """A route, the action of the link that opens it, what the right one gets, and how the route is spelled.

    Attributes
    ----------
    pattern
        As the application routes it; what stands for a name in it is filled in by `path`.
    """

    action: str
    pattern: str
    method: str = "GET"
    statuses: tuple[int, ...] = (200,)
    may: tuple[str, ...] = ()
    heads: bool = True

    def obj(self, world: World) -> str:
        """The object that its link names."""
        return {"download": world.first.name, "page": "", "list": "all"}[self.action]

    def path(self, world: World, token: str) -> str:
        """An address on this route."""
        return self.pattern.format_map(
            {
                "token": quote(token, safe=""),
                "session": world.first.session,
                "name": world.first.name,
                "filename": world.first.filename,
            }
        )


BELOW_A_PAGE = {
    "page": ("", {}),
    "file": ("/d/{name}/{filename}", {}),
    "timeline": ("/timeline", {}),
    "events": ("/events", {"heads": False}),
    "live sound": ("/live.mp3", {"statuses": (404,), "heads": False}),
    "ask to delete": ("/delete", {"may": ("delete",)}),
    "delete": ("/delete", {"method": "POST", "statuses": (400,), "may": ("delete",)}),
    "make a mix": ("/mixes", {"method": "POST", "statuses": (400,), "may": ("remix",)}),
}
ROUTES = {
    "download": Opens("download", "/d/{token}/{filename}"),
    "list": Opens("list", "/l/{token}"),
    "undelete": Opens("page", "/s/{token}/undelete", method="POST", statuses=(410,), may=("delete",)),  # it is there
    **{name: Opens("page", "/s/{token}" + suffix, **more) for name, (suffix, more) in BELOW_A_PAGE.items()},
    **{
        f"{name} of a list": Opens("list", "/l/{token}/{session}" + suffix, **more)
        for name, (suffix, more) in BELOW_A_PAGE.items()
    },
}


@pytest.mark.parametrize("route", ROUTES)
async def test_only_the_right_token_opens(
    gateway: RunningGateway, world: World, client: httpx.AsyncClient, route: str
) -> None:
    """The right token gets in; every other kind gets its status, as problem+json, without the token in it."""
    opens = ROUTES[route]
    payload = right_payload(world, opens)
    assert await status_of(client, opens.method, gateway.url + opens.path(world, world.sign(payload))) in opens.statuses
    if opens.may:
        without = world.sign({name: value for name, value in payload.items() if name != "may"})
        refused = await client.request(opens.method, gateway.url + opens.path(world, without))
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:retold:problem:not-permitted")
    methods = ("GET", "HEAD") if opens.method == "GET" and opens.heads else (opens.method,)
    for kind, (token, status) in bad_tokens(world, opens.action, opens.obj(world), may=opens.may).items():
        if opens.action == "list" and kind == "deleted session":
            continue
        for method in methods:
            response = await client.request(method, gateway.url + opens.path(world, token))
            assert response.status_code == status, (kind, response.text)
            assert response.headers["content-type"] == PROBLEM, kind
            if method == "HEAD":
                assert not response.content
            else:
                problem = response.json()
                assert set(problem) == {"type", "title", "status", "detail"}
                assert problem["status"] == status
                assert len(token) < 5 or token not in response.text
            assert SECURITY_HEADERS.items() <= dict(response.headers).items()


async def status_of(client: httpx.AsyncClient, method: str, url: str) -> int:
    """The status alone: what answers may have no end."""
    async with client.stream(method, url) as response:
        return response.status_code


def right_payload(world: World, opens: Opens) -> dict[str, Any]:
    """Claims that open a route."""
    more: dict[str, Any] = {"may": list(opens.may)} if opens.may else {}
    if opens.action == "list":
        more["ses"] = ""
    return world.payload(opens.action, opens.obj(world), **more)


async def test_every_route_of_the_gateway_is_in_the_table(gateway: RunningGateway) -> None:
    """A route that is added comes with its row: whatever the application routes by a token is tried above."""
    from gateway import application  # noqa: PLC0415  # only here

    services = open_services(gateway.settings, bus=gateway.bus, now_s=time.time)
    app = application.create_app(services)._app
    routed = {
        (route.path.replace(":str}", "}"), method)
        for route in app.routes
        if "{token" in route.path
        for method in route.methods - {"OPTIONS", "HEAD"}
    }
    assert routed == {(opens.pattern, opens.method) for opens in ROUTES.values()}


async def test_a_link_opens_its_own_file_only(gateway: RunningGateway, world: World, client: httpx.AsyncClient) -> None:
    """Another file's name on a link is refused; a page link reaches its own session's files, and no other's."""
    token = right(world, "download", world.first.name)
    own = await client.get(gateway.url + download_path(token, world.first.filename))
    assert own.content == gateway.data[world.first.name]
    for name in (world.second.filename, world.second.name, world.other.filename, "x", "..", "first.mp3%00", " "):
        response = await client.get(gateway.url + f"/d/{token}/{quote(name)}")
        assert response.status_code in {403, 404}, name
        assert response.headers["content-type"] == PROBLEM
    page = page_path(right(world, "page", ""))
    assert (await client.get(f"{gateway.url}{page}/d/{world.second.name}/second.mp3")).status_code == 200
    assert (await client.get(f"{gateway.url}{page}/d/{world.second.name}/first.mp3")).status_code == 403
    assert (await client.get(f"{gateway.url}{page}/d/{world.other.name}/other.mp3")).status_code == 404
    assert (await client.get(f"{gateway.url}{page}/d/nothing.mp3/nothing.mp3")).status_code == 404
    with_object = world.sign(world.payload("page", world.first.name))
    assert (await client.get(gateway.url + page_path(with_object))).status_code == 403
    missing = right(world, "download", "nothing.mp3")
    assert (await client.get(gateway.url + f"/d/{missing}/nothing.mp3")).status_code == 404


async def test_a_withdrawn_link_opens_nothing_more(
    gateway: RunningGateway, world: World, client: httpx.AsyncClient
) -> None:
    """Revoking by jti ends that link at once, and no other."""
    payload = world.payload("download", world.first.name, jti="withdrawn-0123456789")
    url = gateway.url + download_path(world.sign(payload), world.first.filename)
    assert (await client.get(url)).status_code == 200
    await revoke(gateway.bus, "withdrawn-0123456789", by="test")
    response = await client.get(url)
    assert (response.status_code, response.json()["type"]) == (410, "urn:retold:problem:link-revoked")
    assert (await client.get(gateway.link(world.first))).status_code == 200


async def test_a_deleted_session_is_gone(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """After deletion its genuine links say 410, page and file alike."""
    session = await gateway.session()
    artifact = await gateway.store(session, "gone.mp3", b"gone")
    links = gateway.link(artifact), gateway.page(session)
    assert [(await client.get(link)).status_code for link in links] == [200, 200]
    await delete_session(gateway.bus, session)
    answers = [await client.get(link) for link in links]
    assert [(a.status_code, a.json()["type"]) for a in answers] == [(410, "urn:retold:problem:session-gone")] * 2


async def test_keys_come_and_go_without_a_restart(
    gateway: RunningGateway, world: World, client: httpx.AsyncClient
) -> None:
    """A new public key is accepted at once, one that is taken away no longer, and a broken file harms nobody."""
    keys = gateway.settings.data / "keys"
    new = make_keys(keys)
    claims = new_claims(
        sub="1",
        session=world.first.session,
        action="page",
        obj="",
        now_s=int(time.time()),
        lifetime_s=60,
    )
    url = gateway.url + page_path(sign_link(claims, new))
    assert (await client.get(url)).status_code == 200
    broken = keys / "public" / "broken.pem"
    broken.write_text("not a key")
    assert (await client.get(url)).status_code == 200
    (keys / "public" / f"{new.kid}.pem").unlink()
    assert (await client.get(url)).status_code == 403
    assert (await client.get(gateway.page(world.first.session))).status_code == 200
    broken.unlink()
    assert (await client.get(gateway.page(world.first.session))).status_code == 200


async def test_no_token_is_ever_logged(gateway: RunningGateway, world: World, client: httpx.AsyncClient) -> None:
    """The log names route, session and jti of every request, and holds no part of any token."""
    payload = world.payload("download", world.first.name, jti="logged-0123456789")
    token = world.sign(payload)
    await client.get(gateway.url + download_path(token, world.first.filename))
    await client.get(gateway.url + f"/nowhere/{token}")
    await client.get(gateway.url + f"/d/{token[:-3]}/x")
    await client.post(gateway.url + f"/d/{token}/x")
    line = await wait_for_event(gateway.log_file, "request", jti="logged-0123456789")
    assert line["session"] == world.first.session
    assert line["route"] == "download"
    assert line["sent_bytes"] == len(gateway.data[world.first.name])
    await wait_for_event(gateway.log_file, "request", method="POST")
    text = read_text(gateway.log_file)
    assert "eyJ" not in text
    assert token.rpartition(".")[2] not in text


async def test_browsers_get_a_page_and_clients_a_problem(
    gateway: RunningGateway, world: World, client: httpx.AsyncClient
) -> None:
    """The same status, as HTML for who prefers it."""
    token, status = bad_tokens(world, "page", "")["expired"]
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    page = await client.get(gateway.url + page_path(token), headers=browser)
    assert page.status_code == status
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "This link has expired" in page.text
    assert "style-src 'self'" in page.headers["content-security-policy"]
    assert token not in page.text
    for accept in ("*/*", "application/json", "application/problem+json, text/html;q=0.5", ""):
        response = await client.get(gateway.url + page_path(token), headers={"Accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)


async def test_without_a_link_one_is_told_of_links(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """The bare address is a page, with every security header, and names no recording."""
    response = await client.get(gateway.url + "/")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "Each opens by a link of its own" in response.text
    pages_have_their_own = {"content-security-policy"}
    for name in SECURITY_HEADERS.keys() - pages_have_their_own:
        assert response.headers[name] == SECURITY_HEADERS[name]


async def test_the_edge_refuses_what_is_none_of_ours(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Unknown paths, other methods, endless addresses: each its problem+json, with every security header."""
    for path in ("/d", "/d/", "/d/x", "/s", "/s/", "/x", "/assets/../app.py", "/assets/%2e%2e/app.py", "/health"):
        response = await client.get(gateway.url + path)
        assert (response.status_code, response.headers["content-type"]) == (404, PROBLEM), path
        assert SECURITY_HEADERS.items() <= dict(response.headers).items()
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        response = await client.request(method, gateway.url + "/health/live")
        assert (response.status_code, response.headers["content-type"]) == (405, PROBLEM), method
        assert response.headers["allow"] == "GET, HEAD"
    assert (await client.get(gateway.url + "/" + "a" * 5000)).status_code == 414
    assert (await client.get(gateway.url + "/?" + "a" * 5000)).status_code == 414


async def test_an_endless_request_line_is_cut_off(gateway: RunningGateway) -> None:
    """A request line that never ends is refused after 16 KiB and a read, not collected."""
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = b"HTTP/1.1 400 by a reset"
    with contextlib.suppress(ConnectionError):
        writer.write(b"GET /")
        for _ in range(64):
            writer.write(b"a" * 65_536)
            await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 400")
    writer.close()


async def test_health_says_live_and_ready(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Ready: NATS, streams and a key are there."""
    live, ready = [await client.get(f"{gateway.url}/health/{name}") for name in ("live", "ready")]
    assert live.json()["status"] == "live"
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "checks": {"nats": True, "streams": True, "keys": True}}
