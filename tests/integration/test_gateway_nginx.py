"""Behind the shipped nginx: the same bytes from disk, the same refusals, and nobody who says nothing stays."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from contracts.artifacts import Artifact
from contracts.jetstream.erase import delete_session
from contracts.jetstream.revoked import revoke
from contracts.links import download_path, new_claims, sign_link
from contracts.recipes import Recipe
from gateway.clients import read_client, read_networks
from gateway.edge import SECURITY_HEADERS
from tests.gateway_server import RunningGateway, read_log, running_gateway, until, wait_for_event
from tests.nginx import RunningNginx, needs_nginx, running_nginx

pytestmark = [pytest.mark.asyncio(loop_scope="module"), needs_nginx, pytest.mark.long]
SIZE = 24 * 1024 * 1024 + 777
HALF_OPEN = 200
CUT_S = 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    more = {
        "RETOLD_TRUSTED_PROXIES": "127.0.0.1",
        "RETOLD_CACHE": str(folder / "cache"),
        "RETOLD_DISCORD_CLIENT_ID": "1",
        "RETOLD_DISCORD_CLIENT_SECRET": "none",
    }
    async with running_gateway(folder, **more) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nginx(gateway: RunningGateway) -> AsyncIterator[RunningNginx]:
    here = gateway.url.removeprefix("http://")
    folder = gateway.folder / "nginx"
    async with running_nginx(
        folder, gateway=here, cache=gateway.folder / "cache", client_header_timeout="2s"
    ) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(nginx: RunningNginx) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=nginx.url, verify=nginx.trust, timeout=30) as client:
        yield client


async def stored(gateway: RunningGateway, size: int = SIZE) -> Artifact:
    data = random.Random(size).randbytes(size)
    return await gateway.store(await gateway.session(), "big.wav", data, recipe=Recipe(format="wav"))


def path_to(gateway: RunningGateway, artifact: Artifact, **fields: Any) -> tuple[str, str]:
    """The path of a link, and its id."""
    claims = new_claims(
        sub="1",
        session=artifact.session,
        action="download",
        obj=artifact.name,
        now_s=int(time.time()),
        lifetime_s=600,
        **fields,
    )
    return download_path(sign_link(claims, gateway.key), artifact.filename), claims.jti


def cached(gateway: RunningGateway, artifact: Artifact) -> list[Path]:
    return [path for path in (gateway.folder / "cache" / artifact.session).glob("*") if path.suffix != ".part"]


async def warm(gateway: RunningGateway, client: httpx.AsyncClient, artifact: Artifact) -> httpx.Response:
    """Ask twice, until the file is on disk; the first answer."""
    path, _ = path_to(gateway, artifact)
    first = await client.get(path)
    await client.get(path, headers={"Range": "bytes=0-0"})

    async def is_there() -> bool:
        return bool(cached(gateway, artifact))

    await until(is_there)
    return first


async def test_the_disk_gives_the_same_as_the_stream(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Body, tag, name, type, headers, ranges and conditions are the same; the gateway itself sends nothing any more."""
    artifact = await stored(gateway)
    data = gateway.data[artifact.name]
    first = await warm(gateway, client, artifact)
    path, jti = path_to(gateway, artifact)
    again = await client.get(path)
    assert hashlib.sha256(again.content).hexdigest() == artifact.sha256
    line = await wait_for_event(gateway.log_file, "request", jti=jti)
    assert "sent_bytes" not in line
    for name in ("etag", "content-type", "content-disposition", "content-length", "last-modified", *SECURITY_HEADERS):
        if name not in {"cross-origin-opener-policy", "permissions-policy"}:
            assert again.headers[name] == first.headers[name], name
    assert again.headers["strict-transport-security"]
    chance = random.Random(1)
    for _ in range(60):
        start = chance.randrange(SIZE)
        stop = min(SIZE, start + chance.choice([1, 1000, 300_000]))
        part = await client.get(path, headers={"Range": f"bytes={start}-{stop - 1}", "If-Range": again.headers["etag"]})
        assert (part.status_code, part.content) == (206, data[start:stop])
    assert (await client.get(path, headers={"Range": "bytes=-7"})).content == data[-7:]
    assert (await client.get(path, headers={"Range": f"bytes={SIZE}-"})).status_code == 416
    other = await client.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'})
    assert other.status_code == 200
    assert (await client.get(path, headers={"If-None-Match": again.headers["etag"]})).status_code == 304
    assert (await client.get(path, headers={"If-Match": '"other"'})).status_code == 412
    assert (await client.get(path, headers={"If-Match": again.headers["etag"]})).status_code == 200


@pytest.mark.parametrize("tool", ["curl", "wget", "aria2c"])
async def test_clients_resume_from_the_disk(
    gateway: RunningGateway, client: httpx.AsyncClient, nginx: RunningNginx, tmp_path: Path, tool: str
) -> None:
    """Curl -C -, wget -c and aria2 -x4 complete what the stream began."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    artifact = await stored(gateway)
    await warm(gateway, client, artifact)
    file = tmp_path / "big.wav"
    url = nginx.url + path_to(gateway, artifact)[0]
    ca = str(nginx.certificate)
    commands = {
        "curl": ["curl", "-sS", "--cacert", ca, "-C", "-", "-o", str(file), url],
        "wget": ["wget", "-q", f"--ca-certificate={ca}", "-c", "-O", str(file), url],
        "aria2c": [
            "aria2c",
            "-q",
            f"--ca-certificate={ca}",
            "-x4",
            "-s4",
            "-k1M",
            "-d",
            str(tmp_path),
            "-o",
            file.name,
            url,
        ],
    }
    if tool != "aria2c":
        file.write_bytes(gateway.data[artifact.name][: SIZE // 3])
    done = await asyncio.to_thread(subprocess.run, commands[tool], check=False)
    assert done.returncode == 0
    assert hashlib.sha256(file.read_bytes()).hexdigest() == artifact.sha256


@pytest.mark.parametrize("end", ["revoke", "erase"])
async def test_what_ends_a_link_ends_it_at_nginx_too(
    gateway: RunningGateway, client: httpx.AsyncClient, end: str
) -> None:
    """In the middle of a transfer that nginx makes by itself: the file is gone from disk, and the client cut off."""
    artifact = await stored(gateway, SIZE + (1 if end == "revoke" else 2))
    await warm(gateway, client, artifact)
    path, jti = path_to(gateway, artifact)
    received: list[int] = []

    async def end_in_the_middle() -> None:
        async with client.stream("GET", path) as response:
            async for chunk in response.aiter_raw(65_536):
                if not received:
                    began = time.monotonic()
                    await (
                        revoke(gateway.bus, jti) if end == "revoke" else delete_session(gateway.bus, artifact.session)
                    )
                    while cached(gateway, artifact):
                        assert time.monotonic() - began < CUT_S
                        await asyncio.sleep(0.01)
                received.append(len(chunk))

    with pytest.raises(httpx.RemoteProtocolError):
        await end_in_the_middle()
    assert 0 < sum(received) < SIZE
    assert (await client.get(path)).status_code == 410


async def test_the_cache_cannot_be_reached_by_itself(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Neither by its address, nor by traversal, nor by a header of the client's."""
    artifact = await stored(gateway)
    await warm(gateway, client, artifact)
    (file,) = cached(gateway, artifact)
    inside = f"/_cache/{artifact.session}/{file.name}"
    for path in (
        inside,
        "/_cache/",
        f"/assets/..{inside}",
        f"//_cache/{artifact.session}/{file.name}",
        "/_cache/../nats.conf",
    ):
        assert (await client.get(path)).status_code in {404, 400}, path
    asked = await client.get("/health/live", headers={"X-Accel-Redirect": inside})
    assert asked.json()["status"] == "live"
    assert "x-accel-redirect" not in asked.headers


async def test_a_client_cannot_say_who_it_is(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Its X-Real-IP is replaced: a link for one stays with one, whatever the header says."""
    artifact = await stored(gateway, 1000)
    path, _ = path_to(gateway, artifact, uses=1)
    for number in range(3):
        answer = await client.get(path, headers={"X-Real-IP": f"10.0.0.{number}", "Accept": "*/*"})
        assert answer.status_code == 200
    trusted = read_networks("127.0.0.1, 10.1.0.0/16")
    told = {"x-real-ip": "203.0.113.7"}
    assert read_client("127.0.0.1", told, trusted).address == "203.0.113.7"
    assert read_client("10.1.2.3", told, trusted).address == "203.0.113.7"
    assert read_client("192.0.2.1", told, trusted).address == "192.0.2.1"
    assert read_client("127.0.0.1", {"x-real-ip": "nonsense"}, trusted).address == "127.0.0.1"


async def test_the_longest_way_back_from_signing_in_fits(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """A link with a long foreign name goes into the head of the answer twice over, and nginx passes it on."""
    name = "ж" * 320 + ".wav"
    artifact = await gateway.store(await gateway.session(), name, b"x", recipe=Recipe(format="wav"))
    path, _ = path_to(gateway, artifact, who="300000000000000001", uses=1)
    answer = await client.get(f"{path}?signin=1")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("https://discord.com/oauth2/authorize?")


async def test_half_open_connections_are_harmless(
    gateway: RunningGateway, nginx: RunningNginx, client: httpx.AsyncClient
) -> None:
    """Two hundred that begin a request and never end it: others are served, the gateway sees none, all are let go."""
    host, port = "localhost", int(nginx.url.rpartition(":")[2])
    idle = [await asyncio.open_connection(host, port, ssl=nginx.trust) for _ in range(HALF_OPEN // 2)]
    for _, writer in idle:
        writer.write(b"GET /s/x HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
    plain = int(nginx.plain_url.rpartition(":")[2])
    idle += [await asyncio.open_connection("127.0.0.1", plain) for _ in range(HALF_OPEN // 2)]
    before = len(read_log(gateway.log_file))
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=nginx.url, verify=nginx.trust, limits=limits) as other:
        served = [await other.get("/health/live") for _ in range(5)]
    assert {answer.status_code for answer in served} <= {200, 429}
    ended = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in idle), return_exceptions=True), 20)
    assert len(ended) == HALF_OPEN
    assert len(read_log(gateway.log_file)) - before <= len(served)
    for _, writer in idle:
        writer.close()
    assert (await client.get("/health/live")).status_code == 200


async def test_plain_http_leads_to_tls_and_logs_hold_no_token(
    gateway: RunningGateway, nginx: RunningNginx, client: httpx.AsyncClient
) -> None:
    """A redirect, and not a token in any of nginx's logs."""
    artifact = await stored(gateway, 1000)
    path, _ = path_to(gateway, artifact)
    async with httpx.AsyncClient() as plain:
        answer = await plain.get(nginx.plain_url + path)
    assert (answer.status_code, answer.headers["location"]) == (301, f"https://localhost{path}")
    await client.get(path)
    await client.get(path + "x" * 5000)
    for file in ("retold.log", "retold.error.log"):
        assert "eyJ" not in (nginx.folder / file).read_text(), file
