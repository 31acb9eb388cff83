"""Downloads over real HTTP, from a real object store, by httpx and by curl."""

from __future__ import annotations

import asyncio
import email
import email.policy
import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.artifacts import Artifact
from contracts.jetstream.erase import delete_session
from contracts.recipes import Recipe
from contracts.streams import OBJECT_CHUNK_BYTES
from gateway.downloads import TURN_BYTES
from gateway.edge import SECURITY_HEADERS
from tests.gateway_server import RunningGateway, running_gateway, wait_for_event

pytestmark = pytest.mark.asyncio(loop_scope="module")
SIZE = 3 * TURN_BYTES + 12_345  # several turns, and an end inside a chunk
NAME = 'Sitzung "Ä" — 会議;%_.mp3'
CURL = shutil.which("curl")
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is not installed")
positions = st.integers(0, SIZE + OBJECT_CHUNK_BYTES)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def artifact(gateway: RunningGateway) -> Artifact:
    session = await gateway.session()
    return await gateway.store(session, NAME, random.Random(1).randbytes(SIZE))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


async def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await asyncio.to_thread(subprocess.run, [str(CURL), "-sS", *arguments], capture_output=True, check=False)


async def test_the_whole_file_comes_with_its_headers(
    gateway: RunningGateway, artifact: Artifact, client: httpx.AsyncClient
) -> None:
    """GET: every byte, its length, its digest as a strong tag, its name in both forms, and nothing to be cached."""
    response = await client.get(gateway.link(artifact))
    assert response.status_code == 200
    assert response.content == gateway.data[artifact.name]
    assert response.headers["content-length"] == str(SIZE)
    assert response.headers["etag"] == f'"{hashlib.sha256(response.content).hexdigest()}"'
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-type"] == "audio/mpeg"
    assert parsedate_to_datetime(response.headers["last-modified"]).tzinfo is not None
    disposition = response.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="Sitzung \\"A\\"')
    assert "filename*=UTF-8''" + quote(artifact.filename, safe="") in disposition
    for name, value in SECURITY_HEADERS.items():
        if name != "content-security-policy":
            assert response.headers[name] == value
    assert "'none'" in response.headers["content-security-policy"]
    assert "server" not in response.headers


async def test_head_says_what_get_says(gateway: RunningGateway, artifact: Artifact, client: httpx.AsyncClient) -> None:
    """HEAD: the same status and headers, no body, also for a part asked for (Range is for GET)."""
    link = gateway.link(artifact)
    got, head = await client.get(link), await client.head(link, headers={"Range": "bytes=0-1"})
    assert head.status_code == 200
    assert head.content == b""
    ignored = {"date"}
    assert {k: v for k, v in head.headers.items() if k not in ignored} == {
        k: v for k, v in got.headers.items() if k not in ignored
    }


async def test_inline_plays_instead_of_saving(
    gateway: RunningGateway, artifact: Artifact, client: httpx.AsyncClient
) -> None:
    """`?inline=1` changes the disposition and nothing else."""
    response = await client.head(gateway.link(artifact) + "?inline=1")
    assert response.headers["content-disposition"].startswith("inline; filename=")


async def test_ranges_are_slices(gateway: RunningGateway, artifact: Artifact) -> None:
    """Random single and suffix ranges over HTTP equal slices of the file, or are 416 where the slice is empty."""
    data, link = gateway.data[artifact.name], gateway.link(artifact)
    loop = asyncio.get_running_loop()

    with httpx.Client(timeout=30) as sync:

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(positions, st.none() | st.integers(0, 2 * OBJECT_CHUNK_BYTES), st.booleans())
        def check(first: int, length: int | None, suffix: bool) -> None:  # noqa: FBT001  # drawn by Hypothesis
            if suffix:
                header, expected = f"bytes=-{first}", data[-first:] if first else b""
            elif length is None:
                header, expected = f"bytes={first}-", data[first:]
            else:
                header, expected = f"bytes={first}-{first + length}", data[first : first + length + 1]
            response = sync.get(link, headers={"Range": header})
            if header == "bytes=-0":
                assert response.status_code == 200
            elif not expected:
                assert response.status_code == 416
                assert response.headers["content-range"] == f"bytes */{SIZE}"
            else:
                assert response.status_code == 206
                assert response.content == expected
                start = len(data) - len(expected) if suffix else first
                assert response.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{SIZE}"

        await loop.run_in_executor(None, check)


async def test_several_ranges_come_as_multipart(
    gateway: RunningGateway, artifact: Artifact, client: httpx.AsyncClient
) -> None:
    """Up to five disjoint ranges are read back by a MIME parser, each with its bytes; six get the whole file."""
    data, link = gateway.data[artifact.name], gateway.link(artifact)
    spans = [(0, 9), (OBJECT_CHUNK_BYTES - 5, OBJECT_CHUNK_BYTES + 5), (SIZE - 7, SIZE - 1)]
    asked = "bytes=" + ",".join(f"{a}-{b}" for a, b in spans)
    response = await client.get(link, headers={"Range": asked})
    assert response.status_code == 206
    assert int(response.headers["content-length"]) == len(response.content)
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + response.content, policy=email.policy.HTTP)
    parts = list(message.iter_parts())
    assert [part["content-range"] for part in parts] == [f"bytes {a}-{b}/{SIZE}" for a, b in spans]
    for a, b in spans:
        assert data[a : b + 1] in response.content
    many = "bytes=" + ",".join(f"{n * 10}-{n * 10}" for n in range(6))
    assert (await client.get(link, headers={"Range": many})).status_code == 200


async def test_conditions_are_kept(gateway: RunningGateway, artifact: Artifact, client: httpx.AsyncClient) -> None:
    """304 for what the client has, 412 for what it no longer has, If-Range whole or part."""
    link = gateway.link(artifact)
    first = await client.head(link)
    tag, date = first.headers["etag"], first.headers["last-modified"]

    async def status(method: str = "GET", **headers: str) -> int:
        wire = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await client.request(method, link, headers=wire)).status_code

    assert await status(if_none_match=tag) == 304
    assert await status("HEAD", if_modified_since=date) == 304
    assert await status(if_match='"other"') == 412
    assert await status(if_match=tag) == 200
    assert await status(range="bytes=0-9", if_range=tag) == 206
    assert await status(range="bytes=0-9", if_range=date) == 206
    assert await status(range="bytes=0-9", if_range='"other"') == 200
    cached = await client.get(link, headers={"If-None-Match": tag})
    assert cached.content == b""
    assert cached.headers["etag"] == tag


@needs_curl
async def test_curl_resumes_where_it_stopped(gateway: RunningGateway, artifact: Artifact, tmp_path: Path) -> None:
    """`curl -C -` completes a partial file to the last byte, `-r` cuts a piece out, `-OJ` takes the name."""
    data, link = gateway.data[artifact.name], gateway.link(artifact)
    part = tmp_path / "part.mp3"
    part.write_bytes(data[: SIZE // 3])
    assert (await curl("-C", "-", "-o", str(part), link)).returncode == 0
    assert part.read_bytes() == data
    assert (await curl("-r", "100-299", link)).stdout == data[100:300]
    assert (await curl("-r", "-50", link)).stdout == data[-50:]
    saved = await curl("--output-dir", str(tmp_path), "-OJ", "-w", "%{filename_effective}", link)
    assert digest_of(Path(saved.stdout.decode())) == artifact.sha256
    head = await curl("-I", link)
    assert f"content-length: {SIZE}".encode() in head.stdout.lower()


@pytest.mark.skipif(shutil.which("aria2c") is None, reason="aria2c is not installed")
async def test_aria2_fetches_by_four_connections(gateway: RunningGateway, artifact: Artifact, tmp_path: Path) -> None:
    """Four ranges at once make the same file."""
    arguments = ["aria2c", "-x4", "-s4", "-k1M", "--file-allocation=none", "-q", "-d", str(tmp_path), "-o", "file"]
    arguments.append(gateway.link(artifact))
    done = await asyncio.to_thread(subprocess.run, arguments, check=False)
    assert done.returncode == 0
    assert (tmp_path / "file").read_bytes() == gateway.data[artifact.name]


async def test_twenty_downloads_at_once_are_whole(
    gateway: RunningGateway, artifact: Artifact, client: httpx.AsyncClient
) -> None:
    """Twenty parallel downloads, each byte-exact."""
    link, digest = gateway.link(artifact), artifact.sha256

    async def fetch() -> str:
        async with client.stream("GET", link) as response:
            hasher = hashlib.sha256()
            async for chunk in response.aiter_raw():
                hasher.update(chunk)
            return hasher.hexdigest()

    assert await asyncio.gather(*(fetch() for _ in range(20))) == [digest] * 20


async def test_an_empty_file_is_a_file(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Zero bytes: 200 with length 0, and no range of it."""
    session = await gateway.session()
    empty = await gateway.store(session, "empty.wav", b"", recipe=Recipe(format="wav"))
    response = await client.get(gateway.link(empty))
    assert (response.status_code, response.content) == (200, b"")
    assert (await client.get(gateway.link(empty), headers={"Range": "bytes=0-"})).status_code == 416


async def test_a_vanished_object_cuts_the_connection(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """Deleting a session in mid-download leaves the client with less than Content-Length, and it knows."""
    session = await gateway.session()
    data = os.urandom(40 * 1024 * 1024)
    artifact = await gateway.store(session, "big.wav", data, recipe=Recipe(format="wav"))
    received = []

    async def delete_in_the_middle() -> None:
        async with client.stream("GET", gateway.link(artifact)) as response:
            assert response.headers["content-length"] == str(len(data))
            async for chunk in response.aiter_raw():
                if not received:
                    await delete_session(gateway.bus, session)
                received.append(len(chunk))

    with pytest.raises(httpx.RemoteProtocolError):
        await delete_in_the_middle()
    assert 0 < sum(received) < len(data)


async def test_a_client_that_leaves_ends_the_reading(gateway: RunningGateway, client: httpx.AsyncClient) -> None:
    """After a client hangs up, the gateway stops long before the end, and its log says how far it came."""
    session = await gateway.session()
    size = 64 * 1024 * 1024
    artifact = await gateway.store(session, "left.wav", os.urandom(size), recipe=Recipe(format="wav"))
    async with client.stream("GET", gateway.link(artifact)) as response:
        await anext(response.aiter_raw())
    line = await wait_for_event(gateway.log_file, "request", object=artifact.name)
    assert line["sent_bytes"] < size
