"""Artifacts in the object store, one bucket per session, in the layout every NATS client reads (ADR-20).

    $O.<session>.C.<nuid>          the chunks, in order
    $O.<session>.M.<base64 name>   one JSON message: size, digest, and `metadata` with the artifact and its runs

nats-py's own `get` is quadratic in memory and knows no ranges, so reading is ours: `runs` says which stream sequences
hold the chunks, and batched direct gets fetch just those (contracts.jetstream.chunks), two at a time: a slow reader
holds no more than that.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from contracts.artifacts import Artifact
from contracts.errors import RetoldError
from contracts.jetstream.chunks import ChunkDelayedError, ChunkGoneError
from contracts.jetstream.connection import ELECTION_S, RECONNECT_WAIT_S, STREAM_NOT_FOUND, Bus, JetStreamError
from contracts.jetstream.erase import erase_messages
from contracts.jetstream.pull import LogMessage, read_newest, read_stream
from contracts.streams import OBJECT_CHUNK_BYTES, object_stream_name

CHUNKS_IN_FLIGHT: Final = 2
CHUNKS_ON_THE_WAY: Final = 8  # while a file is stored: 1 MiB
DIGEST_PREFIX: Final = "SHA-256="
PUT_TRIES: Final = 3
SENT_S: Final = 2.0


class ObjectGoneError(RetoldError):
    """The file was deleted while it was read."""


class DigestError(RetoldError):
    """The file changed while it was stored; render it again."""


class ChunkOrderError(RetoldError):
    """The server was away while the file was stored, and has its parts in another order; store it again."""


class StoredArtifact(msgspec.Struct, frozen=True):
    """An artifact and where its bytes lie.

    Attributes
    ----------
    runs
        (first stream sequence, count) of the chunks, in order.
    modified_unix_s
        When it was stored, Unix seconds.
    """

    artifact: Artifact
    nuid: str
    size: int
    chunk_bytes: int
    chunks: int
    sha256: str
    modified_unix_s: int
    runs: tuple[tuple[int, int], ...]


class _Metadata(msgspec.Struct, frozen=True):
    retold_artifact: str = ""
    retold_runs: str = "[]"


class _Options(msgspec.Struct, frozen=True):
    max_chunk_size: int = OBJECT_CHUNK_BYTES


class _Meta(msgspec.Struct, frozen=True):
    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    digest: str
    mtime: str = ""
    options: _Options = _Options()
    metadata: _Metadata = _Metadata()
    deleted: bool = False


async def put_artifact(bus: Bus, artifact: Artifact, file: Path) -> None:
    """Store a file as the object `artifact.name`; an identical one that is there already is left alone.

    Raises
    ------
    DigestError
        If the file is not the one the artifact describes.
    """
    existing = await find_artifact(bus, artifact.session, artifact.name)
    if existing is not None and existing.sha256 == artifact.sha256:
        return
    nuid, runs = await _put_again(bus, file, artifact)
    meta = _Meta(
        name=artifact.name,
        bucket=artifact.session,
        nuid=nuid,
        size=artifact.bytes,
        chunks=sum(count for _, count in runs),
        digest=DIGEST_PREFIX + base64.urlsafe_b64encode(bytes.fromhex(artifact.sha256)).decode(),
        mtime=datetime.now(UTC).isoformat(),
        metadata=_Metadata(
            retold_artifact=msgspec.json.encode(artifact).decode(), retold_runs=msgspec.json.encode(runs).decode()
        ),
    )
    await bus.publish(
        _meta_subject(artifact.session, artifact.name), msgspec.json.encode(meta), headers={"Nats-Rollup": "sub"}
    )
    if existing is not None:
        await _purge(bus, artifact.session, _chunk_subject(existing))


async def remove_artifact(bus: Bus, session: str, name: str) -> None:
    """Overwrite an artifact's bytes and forget it; harmless if it is gone."""
    stored = await find_artifact(bus, session, name)
    if stored is not None:
        stream = object_stream_name(session)
        await erase_messages(bus, stream, _meta_subject(session, name))
        await erase_messages(bus, stream, _chunk_subject(stored))


async def find_artifact(bus: Bus, session: str, name: str) -> StoredArtifact | None:
    """An artifact by its object name; None if it, or the session, is not there."""
    try:
        message = await read_newest(bus, object_stream_name(session), _meta_subject(session, name))
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise
    return _stored(message) if message else None


async def list_artifacts(bus: Bus, session: str) -> list[StoredArtifact]:
    """Every artifact of a session, by name; none if there is no such session."""
    found = await _read_meta(bus, session, f"$O.{session}.M.>")
    return sorted(found, key=lambda stored: stored.artifact.name)


async def read_artifact(
    bus: Bus, stored: StoredArtifact, *, start: int = 0, stop: int | None = None
) -> AsyncGenerator[bytes, None]:
    """The bytes from `start` up to `stop` (half-open; None = to the end), in pieces of at most one chunk.

    In a cluster another server goes on where one went away.

    Raises
    ------
    ObjectGoneError
        If the object was deleted meanwhile, or the server did not answer in time.
    """
    position, end = start, stored.size if stop is None else min(stop, stored.size)
    until_s = 0.0
    while position < end:
        try:
            async with aclosing(_read(bus, stored, position, end)) as pieces:
                async for piece in pieces:
                    position += len(piece)
                    until_s = 0.0
                    yield piece
        except ChunkGoneError as error:
            until_s = until_s or time.monotonic() + ELECTION_S
            if time.monotonic() >= until_s or not await _may_come(bus, stored, error):
                raise ObjectGoneError(str(error)) from error
            await asyncio.sleep(RECONNECT_WAIT_S)


async def _may_come(bus: Bus, stored: StoredArtifact, error: ChunkGoneError) -> bool:
    """Whether another server may have it: one that was away does not have yet what came meanwhile."""
    if not bus.clustered or isinstance(error, ChunkDelayedError):
        return bus.clustered
    found = await find_artifact(bus, stored.artifact.session, stored.artifact.name)
    return found is not None and found.nuid == stored.nuid


async def _read(bus: Bus, stored: StoredArtifact, start: int, end: int) -> AsyncGenerator[bytes, None]:
    first, last = start // stored.chunk_bytes, (end - 1) // stored.chunk_bytes
    stream, subject = object_stream_name(stored.artifact.session), _chunk_subject(stored)
    position = first * stored.chunk_bytes
    for sequence, count in _requests(stored.runs, first, last + 1):
        async with aclosing(bus.chunks.fetch(stream, subject, sequence, count)) as chunks:
            async for data in chunks:
                low, high = max(start - position, 0), min(end - position, len(data))
                yield data if high - low == len(data) else data[low:high]
                position += len(data)
    if position < end:
        raise ChunkGoneError


def _requests(runs: tuple[tuple[int, int], ...], first: int, stop: int) -> list[tuple[int, int]]:
    """(stream sequence, count) of the direct gets that fetch chunks `first` up to `stop`, in order."""
    requests: list[tuple[int, int]] = []
    index = 0
    for sequence, count in runs:
        low, high = max(first, index), min(stop, index + count)
        requests += [
            (sequence + chunk - index, min(CHUNKS_IN_FLIGHT, high - chunk))
            for chunk in range(low, high, CHUNKS_IN_FLIGHT)
        ]
        index += count
    return requests


async def _purge(bus: Bus, session: str, subject: str) -> None:
    await bus.api(f"STREAM.PURGE.{object_stream_name(session)}", {"filter": subject})


async def _put_again(bus: Bus, file: Path, artifact: Artifact) -> tuple[str, list[tuple[int, int]]]:
    """Store the chunks, anew if the server was away in between; the object's id, and where they stand."""
    for last in (*[False] * (PUT_TRIES - 1), True):
        nuid = secrets.token_hex(11)
        subject = f"$O.{artifact.session}.C.{nuid}"
        try:
            return nuid, await _put_chunks(bus, subject, file, artifact)
        except BaseException as error:
            await _purge(bus, artifact.session, subject)  # no object will ever name these chunks
            if last or not isinstance(error, ChunkOrderError):
                raise
    raise AssertionError


async def _put_chunks(bus: Bus, subject: str, file: Path, artifact: Artifact) -> list[tuple[int, int]]:
    """Store the chunks, some on the way at a time; where they stand."""
    digest = hashlib.sha256()
    size = 0
    runs: list[tuple[int, int]] = []
    sending: deque[asyncio.Task[int]] = deque()

    def read() -> bytes:
        chunk = source.read(OBJECT_CHUNK_BYTES)
        digest.update(chunk)
        return chunk

    try:
        with file.open("rb") as source:
            while chunk := await asyncio.to_thread(read):
                sending.append(asyncio.create_task(bus.publish(subject, chunk, message_id=f"{subject}.{size}")))
                size += len(chunk)
                if len(sending) >= CHUNKS_ON_THE_WAY:
                    _extend(runs, await sending.popleft())
        while sending:
            _extend(runs, await sending.popleft())
    finally:
        if sending:
            await asyncio.wait(sending, timeout=SENT_S)  # what is under way would come behind a purge
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
    if (size, digest.hexdigest()) != (artifact.bytes, artifact.sha256):
        raise DigestError
    return runs


def _extend(runs: list[tuple[int, int]], sequence: int) -> None:
    if runs and sequence == runs[-1][0] + runs[-1][1]:
        runs[-1] = (runs[-1][0], runs[-1][1] + 1)
    elif runs and sequence < runs[-1][0] + runs[-1][1]:
        raise ChunkOrderError  # one was sent again, behind those that came after it
    else:
        runs.append((sequence, 1))


async def _read_meta(bus: Bus, session: str, subject: str) -> list[StoredArtifact]:
    try:
        messages = [
            message
            async for message in read_stream(
                bus, object_stream_name(session), filter_subject=subject, last_per_subject=True
            )
        ]
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return []
        raise
    return [stored for message in messages if (stored := _stored(message)) is not None]


def _stored(message: LogMessage) -> StoredArtifact | None:
    meta = msgspec.json.decode(message.data, type=_Meta)
    if meta.deleted or not meta.metadata.retold_artifact:
        return None
    artifact = msgspec.json.decode(meta.metadata.retold_artifact, type=Artifact)
    return StoredArtifact(
        artifact=artifact,
        nuid=meta.nuid,
        size=meta.size,
        chunk_bytes=meta.options.max_chunk_size,
        chunks=meta.chunks,
        sha256=base64.urlsafe_b64decode(meta.digest.removeprefix(DIGEST_PREFIX)).hex(),
        modified_unix_s=int(datetime.fromisoformat(meta.mtime).timestamp()),
        runs=msgspec.json.decode(meta.metadata.retold_runs, type=tuple[tuple[int, int], ...]),
    )


def _chunk_subject(stored: StoredArtifact) -> str:
    return f"$O.{stored.artifact.session}.C.{stored.nuid}"


def _meta_subject(session: str, name: str) -> str:
    return f"$O.{session}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
