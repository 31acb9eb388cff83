"""The API as a bot uses it: every route, every scope, and a description that is exact."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from contracts import subjects
from contracts.access import ACCESS, SCOPES, new_access, sign_access
from contracts.artifacts import Artifact, RenderProgressed
from contracts.commands import LiveSession, Noted, Refused, Started, Status, Stopped, encode_reply
from contracts.events import NoteAdded, encode_fact
from contracts.jetstream.jobs import publish_render_fact
from contracts.jetstream.keeping import standing, undelete
from contracts.jetstream.revoked import revoke
from contracts.jetstream.signing import serve_signing
from gateway.api.schema import PREFIX, ROUTES, Route
from gateway.application import create_app
from gateway.services import open_services
from tests.gateway_server import RunningGateway, running_gateway, until
from tests.tokens import REVOKED, World, access_claims, bad_bearers

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROBLEM = "application/problem+json"
GUILD = "1"
# A recipe can be well formed and make no sense (a bit rate of FLAC): that is a 422.
SCHEMATHESIS = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429"]
"""
LIVE = LiveSession(
    session="06ykq3c0001zzzzz",
    guild_id=GUILD,
    channel_id="2",
    elapsed_s=1.0,
    take=1,
    packets={"recorded": 1},
    unacked_batches=0,
    held_packets=0,
    dave_version=1,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        await serve_signing(running.bus, running.settings.data / "keys")
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(gateway: RunningGateway) -> Artifact:
    session = await gateway.session(name="Friday", people={"11": "Ada"})
    note = NoteAdded(id="n", session=session, at_ns=5_000_000_000, unix_ns=1, text="Here", author="Ada")
    await gateway.bus.publish(subjects.facts(session), encode_fact(note), message_id="n")
    return await gateway.store(session, "mix.mp3", os.urandom(200_000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(gateway: RunningGateway, artifact: Artifact) -> World:
    await revoke(gateway.bus, REVOKED)
    return World(gateway, artifact, artifact, artifact)


def token(gateway: RunningGateway, *scope: Any, guild: str = "", lifetime_s: int = 600) -> str:
    now_s = int(time.time()) - (0 if lifetime_s > 0 else 7200)
    claims = new_access(sub="bot", scope=scope, guild=guild, now_s=now_s, lifetime_s=abs(lifetime_s))
    return sign_access(claims, gateway.key)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(gateway: RunningGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose token allows everything."""
    headers = bearer(token(gateway, *SCOPES))
    async with httpx.AsyncClient(base_url=gateway.url + "/api/v1", headers=headers, timeout=30) as client:
        yield client


def path_of(route: Route, session: str) -> str:
    return route.path.format(session=session, name="x", job="x", guild=GUILD, jti="some-link")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_every_route_wants_its_own_scope(
    gateway: RunningGateway, world: World, api: httpx.AsyncClient, artifact: Artifact, route: Route
) -> None:
    """Without a token, with every other scope, or with any token that is not right: refused, each as it should."""
    path = path_of(route, artifact.session)
    right = world.sign(access_claims(world), typ=ACCESS.typ)
    assert (await api.get("/sessions", headers=bearer(right))).status_code == 200
    others = tuple(scope for scope in SCOPES if scope != route.scope)
    refused = {
        "none": ({"Authorization": ""}, 401),
        "basic": ({"Authorization": "Basic YTpi"}, 401),
        "other scopes": (bearer(token(gateway, *others)), 403),
        **{kind: (bearer(bad), 401) for kind, bad in bad_bearers(world).items()},
    }
    for kind, (headers, status) in refused.items():
        answer = await api.request(route.method, path, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), kind
        assert answer.headers["www-authenticate"].startswith("Bearer "), kind
    in_the_address = await api.request(
        route.method, path, headers={"Authorization": ""}, params={"access_token": token(gateway, *SCOPES)}
    )
    assert in_the_address.status_code == 401


async def test_every_route_of_the_api_is_in_the_table(gateway: RunningGateway) -> None:
    """A route that is added comes with its row: whatever is routed below the API's address is tried above."""
    services = open_services(gateway.settings, bus=gateway.bus, now_s=time.time)
    app: Any = create_app(services)
    routed = {
        (route.path.replace(":str}", "}").removeprefix(PREFIX), method.lower())
        for route in app._app.routes
        if route.path.startswith(PREFIX)
        for method in route.methods - {"OPTIONS", "HEAD"}
    }
    assert routed == {(route.path, route.method) for route in ROUTES}


async def test_a_token_of_a_server_sees_that_server_only(
    gateway: RunningGateway, api: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Another server's sessions are not there, and its recordings not to be touched."""
    foreign = await gateway.session(guild_id="99")
    headers = bearer(token(gateway, *SCOPES, guild=GUILD))
    listed = (await api.get("/sessions", headers=headers)).json()["sessions"]
    assert artifact.session in {one["id"] for one in listed}
    assert {one["guild_id"] for one in listed} == {GUILD}
    for suffix in ("", "/artifacts", "/events", "/renders"):
        assert (await api.get(f"/sessions/{foreign}{suffix}", headers=headers)).status_code == 404
    assert (await api.delete(f"/sessions/{foreign}", headers=headers)).status_code == 404
    assert (await api.delete("/recordings/99", headers=headers)).status_code == 403
    start = await api.post("/recordings", headers=headers, json={"guild_id": "99", "channel_id": "2"})
    assert start.status_code == 403


async def test_a_session_is_told_with_its_story(api: httpx.AsyncClient, artifact: Artifact) -> None:
    """Entry, state, notes, files with their digests, facts page by page."""
    told = (await api.get(f"/sessions/{artifact.session}")).json()
    assert (told["state"], told["name"], told["people"]) == ("ready", "Friday", {"11": "Ada"})
    assert told["notes"] == [{"at_s": 5.0, "text": "Here", "author": "Ada"}]
    (file,) = (await api.get(f"/sessions/{artifact.session}/artifacts")).json()["artifacts"]
    assert (file["sha256"], file["filename"]) == (artifact.sha256, "mix.mp3")
    events = (await api.get(f"/sessions/{artifact.session}/events", params={"limit": 1})).json()
    assert [event["type"] for event in events["events"]] == ["note_added.1"]
    assert events["next"] is None


async def test_sessions_come_in_pages(gateway: RunningGateway, api: httpx.AsyncClient) -> None:
    """Newest first, each once, whatever the page's size."""
    await asyncio.gather(*(gateway.session() for _ in range(5)))
    whole = [one["id"] for one in (await api.get("/sessions")).json()["sessions"]]
    assert whole == sorted(whole, reverse=True)
    paged: list[str] = []
    before: dict[str, str] = {}
    while True:
        page = (await api.get("/sessions", params={"limit": "2", **before})).json()
        paged += [one["id"] for one in page["sessions"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert paged == whole


async def test_a_file_comes_with_ranges(gateway: RunningGateway, api: httpx.AsyncClient, artifact: Artifact) -> None:
    """The same download as by a link."""
    url = f"/sessions/{artifact.session}/artifacts/{artifact.name}"
    data = gateway.data[artifact.name]
    assert (await api.get(url)).content == data
    part = await api.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, data[100:200])
    assert (await api.get(url, headers={"If-None-Match": part.headers["etag"]})).status_code == 304
    assert (await api.get(f"{url}?inline=1")).headers["content-disposition"].startswith("inline")
    assert [(await api.get(f"{url}?inline={wrong}")).status_code for wrong in ("", "0", "1&inline=1")] == [400] * 3


async def test_a_job_is_made_followed_and_cancelled(
    gateway: RunningGateway, api: httpx.AsyncClient, artifact: Artifact
) -> None:
    """Asked for twice it is one job; its events say how it goes; cancelled, they end, and it stays so."""
    url = f"/sessions/{artifact.session}/renders"
    recipe = {"output": "mix", "format": "flac", "mute": ["11"]}
    made = await api.post(url, json=recipe)
    again = await api.post(url, json=recipe)
    assert (made.status_code, made.json()["state"]) == (202, "queued")
    job = made.json()["id"]
    assert again.json()["id"] == job
    assert made.headers["location"] == f"/api/v1{url}/{job}"
    said: list[dict[str, Any]] = []

    async def follow() -> None:
        async with api.stream("GET", f"{url}/{job}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    said.append(msgspec.json.decode(line.removeprefix("data: ")))  # noqa: PERF401  # read while it grows

    following = asyncio.create_task(follow())
    fact = RenderProgressed(job=job, session=artifact.session, unix_ns=1, stage="render", fraction=0.25, eta_s=3.0)
    await publish_render_fact(gateway.bus, fact)
    await until(lambda: is_said(said, fraction=0.25, eta_s=3.0, state="running"))
    assert (await api.delete(f"{url}/{job}")).status_code == 204
    await asyncio.wait_for(following, 10)
    assert said[-1]["state"] == "cancelled"
    assert (await api.get(f"{url}/{job}")).json()["state"] == "cancelled"
    assert job in {one["id"] for one in (await api.get(url)).json()["renders"]}


async def is_said(said: list[dict[str, Any]], **fields: Any) -> bool:
    return any(fields.items() <= one.items() for one in said)


async def test_too_many_jobs_of_a_session_wait_their_turn(gateway: RunningGateway, api: httpx.AsyncClient) -> None:
    """The fifth at once is a 429 with Retry-After; another session's is not."""
    session, other = await gateway.session(), await gateway.session()
    answers = [
        await api.post(f"/sessions/{session}/renders", json={"format": "mp3", "vbr_quality": number})
        for number in range(5)
    ]
    assert [answer.status_code for answer in answers] == [202] * 4 + [429]
    assert answers[-1].headers["retry-after"]
    assert (await api.post(f"/sessions/{other}/renders", json={"format": "mp3"})).status_code == 202
    for asked, answer in ((session, one) for one in answers[:4]):
        await api.delete(f"/sessions/{asked}/renders/{answer.json()['id']}")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"format": "exe"}', 400),
        (b'{"colour": 1}', 400),
        (b'{"stop_tick": 120072845656978024417428161263828992}', 400),
        (b'{"stop_tick": 1e300}', 400),
        (b'{"stop_tick": 1.5}', 400),
        (b'{"format": "flac", "stop_tick": 48000.0}', 202),
        (b'{"start_tick": 10, "stop_tick": 5}', 422),
        (b'{"format": "flac", "bitrate_kbps": 128}', 422),
        (b"[" * 5000, 400),
        (b'"' + b"\xff" * 10 + b'"', 400),
        (b"{" + b" " * 70_000 + b"}", 413),
    ],
)
async def test_a_recipe_that_is_none_is_refused(
    api: httpx.AsyncClient, artifact: Artifact, body: bytes, status: int
) -> None:
    """By its form 400, by its sense 422, by its length 413; a whole number may be spelled as a float."""
    url = f"/sessions/{artifact.session}/renders"
    answer = await api.post(url, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == (PROBLEM if status >= 400 else "application/json")
    form = await api.post(url, content=body[:100], headers={"Content-Type": "text/plain"})
    assert form.status_code == 415


async def test_links_are_made_and_withdrawn(
    gateway: RunningGateway, api: httpx.AsyncClient, artifact: Artifact
) -> None:
    """The signer signs for page and file; the link opens; withdrawn by its id it does not."""
    url = f"/sessions/{artifact.session}/links"
    page = (await api.post(url, json={"may": ["remix"], "hours": 1})).json()
    file = (await api.post(url, json={"artifact": artifact.name, "uses": 2})).json()
    local = [link["url"].replace("http://127.0.0.1:8080", gateway.url) for link in (page, file)]
    assert "Make this mix" in (await api.get(local[0], headers={"Accept": "text/html"})).text
    assert (await api.get(local[1])).content == gateway.data[artifact.name]
    assert (await api.delete(f"/links/{page['jti']}")).status_code == 204
    assert (await api.get(local[0])).status_code == 410
    assert (await api.post(url, json={"artifact": "nothing"})).status_code == 404


async def serve_recorder(gateway: RunningGateway) -> tuple[dict[str, Any], dict[str, Any]]:
    """Somebody who answers as capture does: replies by subject, which may be changed, and what was asked last."""
    replies: dict[str, Any] = {
        subjects.START_RECORDING: Started(session=LIVE.session),
        subjects.STATUS: Status(ready=True, sessions=(LIVE,)),
        subjects.ADD_NOTE: Noted(session=LIVE.session, at_s=1.5),
        subjects.STOP_RECORDING: Stopped(session=LIVE.session, duration_s=2, recorded=3, undecryptable=0, lost=0),
    }
    asked: dict[str, Any] = {}
    for subject in tuple(replies):

        async def answer(data: bytes, subject: str = subject) -> bytes:
            asked[subject] = msgspec.json.decode(data)
            return encode_reply(replies[subject])

        await gateway.bus.serve(subject, answer)
    return replies, asked


async def test_recordings_are_started_marked_and_stopped(gateway: RunningGateway, api: httpx.AsyncClient) -> None:
    """The API asks capture in its own words, and says what it answered; a refusal is a 409 with capture's reason."""
    nobody = await api.get("/recordings")
    assert (nobody.status_code, nobody.json()["type"]) == (503, "urn:retold:problem:no-recorder")
    replies, asked = await serve_recorder(gateway)
    started = await api.post("/recordings", json={"guild_id": GUILD, "channel_id": "2", "name": "Friday"})
    assert (started.status_code, started.json()) == (201, {"session": LIVE.session})
    assert asked[subjects.START_RECORDING] == {"guild_id": GUILD, "channel_id": "2", "name": "Friday"}
    listed = (await api.get("/recordings")).json()
    assert [one["session"] for one in listed["recordings"]] == [LIVE.session]
    noted = await api.post(f"/recordings/{GUILD}/notes", json={"text": "Now", "ago_s": 3})
    assert (noted.status_code, noted.json()["at_s"]) == (201, 1.5)
    assert asked[subjects.ADD_NOTE]["author"] == "bot"
    assert (await api.delete(f"/recordings/{GUILD}")).json()["recorded"] == 3
    replies[subjects.STOP_RECORDING] = Refused(code="not_recording", message="Nothing is recorded there.")
    refused = await api.delete(f"/recordings/{GUILD}")
    assert refused.status_code == 409
    assert refused.json()["detail"] == "not_recording: Nothing is recorded there."


async def test_deleting_takes_away(gateway: RunningGateway, api: httpx.AsyncClient) -> None:
    """Nobody sees it any more, though it can be brought back; a running one is a 409; the second time it is a 404."""
    session = await gateway.session()
    live = await gateway.session(ended_unix_ns=None, duration_ns=None)
    assert (await api.delete(f"/sessions/{live}")).status_code == 409
    assert (await api.delete(f"/sessions/{session}")).status_code == 204
    assert await standing(gateway.bus, session) == "deleted"
    assert (await api.get(f"/sessions/{session}")).status_code == 404
    assert session not in [one["id"] for one in (await api.get("/sessions")).json()["sessions"]]
    assert (await api.delete(f"/sessions/{session}")).status_code == 404
    await undelete(gateway.bus, session)
    assert (await api.get(f"/sessions/{session}")).status_code == 200


@pytest.mark.alone  # with a machine that is busy, an answer of the bus comes too late, and is a 503
@pytest.mark.usefixtures("artifact")
@pytest.mark.parametrize("examples", [6, pytest.param(100, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
async def test_the_description_is_exact(gateway: RunningGateway, examples: int) -> None:
    """Schemathesis finds no answer that the description does not foretell, whatever it sends."""
    await serve_recorder(gateway)
    configuration = gateway.folder / "schemathesis.toml"
    configuration.write_text(SCHEMATHESIS)
    arguments = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration), "run"),
        f"{gateway.url}/api/openapi.json",
        *("--header", f"Authorization: Bearer {token(gateway, 'read', 'render', 'link', 'note', 'record')}"),
        *(
            "--checks",
            "all",
            "--max-examples",
            str(examples),
            "--seed",
            "1",
            "--no-color",
            "--phases",
            "examples,coverage,fuzzing",
        ),
        *("--exclude-path-regex", "job}/events$", "--request-timeout", "10", "--suppress-health-check", "all"),
    ]
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()[-8000:]
