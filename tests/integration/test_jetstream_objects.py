"""Artifacts come out of the store as they went in, whole or in part, and nothing else ever does."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.artifacts import Artifact
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.erase import delete_session
from contracts.jetstream.objects import (
    DigestError,
    ObjectGoneError,
    StoredArtifact,
    find_artifact,
    list_artifacts,
    put_artifact,
    read_artifact,
)
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.recipes import Recipe
from contracts.streams import OBJECT_CHUNK_BYTES, object_stream_name
from ops.embedded import EmbeddedServer

CHUNK = OBJECT_CHUNK_BYTES
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * 1024 * 1024 + 7)


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def described(session: str, data: bytes, name: str = "a-mix.mp3") -> Artifact:
    return Artifact(
        name=name,
        session=session,
        filename="a.mp3",
        recipe=Recipe(),
        log_end=1,
        engine="1",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        duration_ticks=48_000,
        rendered_unix_ns=1,
    )


async def put(bus: Bus, folder: Path, session: str, data: bytes, name: str = "a-mix.mp3") -> StoredArtifact:
    file = folder / f"{name}-{len(data)}"
    file.write_bytes(data)  # a test may wait for its own disk
    await put_artifact(bus, described(session, data, name), file)
    stored = await find_artifact(bus, session, name)
    assert stored is not None
    return stored


async def read(bus: Bus, stored: StoredArtifact, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join([piece async for piece in read_artifact(bus, stored, start=start, stop=stop)])


async def bytes_in_the_bucket(bus: Bus, session: str) -> int:
    return int((await bus.api(f"STREAM.INFO.{object_stream_name(session)}"))["state"]["bytes"])


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_it_comes_out_on_either_event_loop(tmp_path: Path, loop: Callable[[], asyncio.AbstractEventLoop]):
    """Capture reads clips on uvloop, the others on Python's own."""
    data = content(3 * CHUNK)

    async def roundtrip() -> bytes:
        async with EmbeddedServer(tmp_path / "nats") as server:
            bus = await connect(server.url, name="test")
            await ensure_shared(bus)
            await create_session(bus, session := new_id())
            found = await read(bus, await put(bus, tmp_path, session, data))
            await bus.close()
            return found

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(roundtrip()) == data


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_comes_out_as_it_went_in(bus: Bus, session: str, tmp_path: Path, size: int):
    """Whatever its size; and its description with it."""
    data = content(size)
    stored = await put(bus, tmp_path, session, data)
    assert await read(bus, stored) == data
    assert (stored.artifact, stored.size, stored.sha256) == (
        described(session, data),
        size,
        described(session, data).sha256,
    )
    assert stored.chunks == -(-size // CHUNK)
    pieces = [len(piece) async for piece in read_artifact(bus, stored)]
    assert all(length <= CHUNK for length in pieces)


@pytest.mark.parametrize("size", SIZES)
async def test_any_nats_client_can_read_it(bus: Bus, session: str, tmp_path: Path, size: int):
    """nats-py's own object store finds it, reads it and checks its digest."""
    data = content(size)
    await put(bus, tmp_path, session, data)
    store = await bus.js.object_store(session)
    result = await store.get("a-mix.mp3")
    assert (result.data or b"") == data
    info = await store.get_info("a-mix.mp3")
    assert (info.size, info.chunks) == (size, -(-size // CHUNK))


async def test_every_edge_of_a_range_is_exact(bus: Bus, session: str, tmp_path: Path):
    """Around each border of a chunk, and around both ends."""
    data = content(2 * CHUNK + 10)
    stored = await put(bus, tmp_path, session, data)
    edges = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, len(data) - 1, len(data)]
    for start in edges:
        for stop in [*edges, len(data) + 100, None]:
            assert await read(bus, stored, start, stop) == data[start:stop]
    assert await read(bus, stored, len(data) + 5) == b""


def test_any_range_is_exact(tmp_path: Path):
    """By Hypothesis, of an object whose chunks lie in several runs between those of others."""
    with asyncio.Runner() as runner:
        server = EmbeddedServer(tmp_path / "nats")
        runner.run(server.start())
        bus = runner.run(connect(server.url, name="test"))
        try:
            data = content(7 * CHUNK + 1234, seed=3)
            stored = runner.run(stored_in_pieces(bus, tmp_path, data))

            @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
            @given(st.integers(0, len(data) + 10), st.none() | st.integers(0, len(data) + 10))
            def check(start: int, stop: int | None) -> None:
                assert runner.run(read(bus, stored, start, stop)) == data[start:stop]

            check()
        finally:
            runner.run(bus.close())
            runner.run(server.stop())


async def stored_in_pieces(bus: Bus, folder: Path, data: bytes) -> StoredArtifact:
    await ensure_shared(bus)
    session = new_id()
    await create_session(bus, session)
    others = [put(bus, folder, session, content(6 * CHUNK, seed), name=f"other{seed}") for seed in (1, 2)]
    stored, *_ = await asyncio.gather(put(bus, folder, session, data), *others)
    assert len(stored.runs) > 1
    return stored


async def test_uploads_at_the_same_time_do_not_mix(bus: Bus, session: str, tmp_path: Path):
    """Four files, chunk between chunk: each comes out as itself."""
    files = {f"{seed}.flac": content(9 * CHUNK + seed, seed) for seed in range(4)}
    stored = await asyncio.gather(*(put(bus, tmp_path, session, data, name) for name, data in files.items()))
    assert any(len(one.runs) > 1 for one in stored)
    for one in stored:
        assert await read(bus, one) == files[one.artifact.name]
    assert [one.artifact.name for one in await list_artifacts(bus, session)] == sorted(files)


async def test_readers_at_the_same_time_do_not_mix(bus: Bus, session: str, tmp_path: Path):
    """Ten downloads over one connection."""
    data = content(4 * CHUNK)
    stored = await put(bus, tmp_path, session, data)
    results = await asyncio.gather(*(read(bus, stored, start=number * 1000) for number in range(10)))
    assert results == [data[number * 1000 :] for number in range(10)]


async def test_what_is_there_already_is_left_alone(bus: Bus, session: str, tmp_path: Path):
    """The same file again stores nothing."""
    stored = await put(bus, tmp_path, session, content(CHUNK))
    before = await bytes_in_the_bucket(bus, session)
    assert await put(bus, tmp_path, session, content(CHUNK)) == stored
    assert await bytes_in_the_bucket(bus, session) == before


async def test_a_new_file_replaces_the_old_and_its_chunks(bus: Bus, session: str, tmp_path: Path):
    """The name leads to the new one; a reader of the old one learns that it is gone."""
    old = await put(bus, tmp_path, session, content(3 * CHUNK, 1))
    new = await put(bus, tmp_path, session, content(2 * CHUNK, 2))
    assert await read(bus, new) == content(2 * CHUNK, 2)
    assert await bytes_in_the_bucket(bus, session) < 3 * CHUNK
    with pytest.raises(ObjectGoneError):
        await read(bus, old)


async def test_a_file_that_is_not_what_it_says_is_refused(bus: Bus, session: str, tmp_path: Path):
    """Another size or another digest: nothing of it is left in the bucket."""
    data = content(3 * CHUNK)
    file = tmp_path / "file"
    file.write_bytes(data)
    right = described(session, data)
    for wrong in (msgspec.structs.replace(right, sha256="0" * 64), msgspec.structs.replace(right, bytes=5)):
        with pytest.raises(DigestError):
            await put_artifact(bus, wrong, file)
    assert await list_artifacts(bus, session) == []
    assert await bytes_in_the_bucket(bus, session) == 0


async def test_an_upload_that_is_cancelled_leaves_nothing(bus: Bus, session: str, tmp_path: Path):
    """A mixer that stops in the middle of storing a file does not fill the bucket."""
    file = tmp_path / "file"
    file.write_bytes(content(200 * CHUNK))
    task = asyncio.create_task(put_artifact(bus, described(session, content(200 * CHUNK)), file))
    async with asyncio.timeout(10):
        while await bytes_in_the_bucket(bus, session) < 3 * CHUNK:  # the server sets no event
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bytes_in_the_bucket(bus, session) == 0


@pytest.mark.parametrize("how", ["session", "object"])
async def test_an_object_that_is_deleted_in_mid_read_is_gone(bus: Bus, session: str, tmp_path: Path, how: str):
    """The reader gets ObjectGoneError, not a shorter file that looks whole."""
    stored = await put(bus, tmp_path, session, content(20 * CHUNK))
    pieces = read_artifact(bus, stored)
    await anext(pieces)
    if how == "session":
        await delete_session(bus, session)
    else:
        await (await bus.js.object_store(session)).delete("a-mix.mp3")
    with pytest.raises(ObjectGoneError):
        assert len([piece async for piece in pieces]) < 19


async def test_a_chunk_that_is_lost_is_not_passed_over(bus: Bus, session: str, tmp_path: Path):
    """One chunk missing in the middle: an error, not the bytes of the next one in its place."""
    data = content(6 * CHUNK)
    stored = await put(bus, tmp_path, session, data)
    await bus.js.delete_msg(object_stream_name(session), stored.runs[0][0] + 2)
    with pytest.raises(ObjectGoneError):
        await read(bus, stored)
    with pytest.raises(ObjectGoneError):
        await read(bus, stored, 2 * CHUNK, 2 * CHUNK + 10)
    assert await read(bus, stored, 3 * CHUNK) == data[3 * CHUNK :]


async def test_what_was_deleted_is_not_found(bus: Bus, session: str, tmp_path: Path):
    """By whatever client it was deleted; and an unknown session has no artifacts."""
    await put(bus, tmp_path, session, content(10))
    await (await bus.js.object_store(session)).delete("a-mix.mp3")
    assert await find_artifact(bus, session, "a-mix.mp3") is None
    assert await list_artifacts(bus, session) == []
    assert await find_artifact(bus, session, "never") is None
    assert await list_artifacts(bus, new_id()) == []
    assert await find_artifact(bus, new_id(), "a") is None


async def test_another_clients_object_is_not_taken_for_an_artifact(bus: Bus, session: str):
    """What nats-py puts into the bucket is left out of the list."""
    await (await bus.js.object_store(session)).put("foreign.txt", b"hello")
    assert await list_artifacts(bus, session) == []
