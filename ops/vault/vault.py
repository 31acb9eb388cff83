"""A vault: whole sessions in a place, each proved by digests.

    vault.json                                     which vault this is
    installation.json                              of a backup: what belongs to no session
    sessions/<session>/session.json                the manifest, written last: what it does not name is not there
    sessions/<session>/<birth>-<last>.retold       the log as a bundle; a log that went on has another name
    sessions/<session>/files/<sha256>              artifacts

A session is replaced by writing what is new beside what is old, then the manifest, then removing what no manifest
names. Whoever is killed anywhere leaves the session as it was before or as it is after.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

from contracts import wire
from contracts.artifacts import Artifact
from contracts.bundle import BundleHeader, BundleMessage, BundleReader, BundleWriter
from contracts.directory import SessionEntry
from contracts.errors import MalformedError, RetoldError
from contracts.ids import check_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.erase import delete_streams
from contracts.jetstream.objects import StoredArtifact, list_artifacts, put_artifact, read_artifact
from contracts.jetstream.replay import last_sequence, log_birth, replay
from contracts.jetstream.transfer import fill_session
from contracts.recipes import Recipe, encode_recipe
from ops.vault.place import NotThereError, Place, PlaceError

VERSION: Final = 1
MANIFEST: Final = "session.json"
SESSIONS: Final = "sessions"
WRITER: Final = "retold vault"
PIECE_BYTES: Final = 1024 * 1024

Progress = Callable[[float], None]


class DamagedError(MalformedError):
    """What lies in the vault is not what was put there."""


class ShrunkError(RetoldError):
    """The server's log has less than the vault's: its disk lost a part. The vault keeps what it has."""


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the vault."""

    name: str
    bytes: int
    sha256: str


class KeptArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact and the file that holds its bytes."""

    artifact: Artifact
    file: StoredFile


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the vault holds of a session.

    Attributes
    ----------
    birth, last
        When its stream was made, and the sequence of its newest message: another log has others.
    recipes
        Of every artifact there was, so that it can be made again.
    """

    version: int
    session: str
    entry: SessionEntry
    birth: str
    last: int
    messages: int
    log: StoredFile
    written_unix_ns: int
    files: tuple[KeptArtifact, ...] = ()
    recipes: tuple[Recipe, ...] = ()

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return self.log.bytes + sum(kept.file.bytes for kept in self.files)


_manifests = msgspec.json.Decoder(Manifest)


class Vault:
    """Sessions in a place.

    Parameters
    ----------
    scratch
        Folder for what is on its way back from a place that is not this machine's disk.
    """

    def __init__(self, place: Place, scratch: Path) -> None:
        self.place = place
        self._scratch = scratch

    async def sessions(self) -> list[str]:
        """Every session that the vault holds whole, oldest first."""
        names = await self.place.list(SESSIONS)
        return sorted(name.split("/")[1] for name in names if name.endswith(f"/{MANIFEST}"))

    async def touched(self) -> list[str]:
        """Every session of which the vault holds anything, whole or half-written."""
        return sorted({name.split("/")[1] for name in await self.place.list(SESSIONS)})

    async def manifest(self, session: str) -> Manifest | None:
        """What it holds of a session; None if it does not hold it whole.

        Raises
        ------
        DamagedError
            If the manifest cannot be read.
        """
        try:
            data = b"".join([chunk async for chunk in self.place.read(_name(session, MANIFEST))])
        except NotThereError:
            return None
        manifest = wire.decode(_manifests, data, f"the manifest of session {session}", error=DamagedError)
        own = f"{SESSIONS}/{session}/"
        names = [manifest.log.name, *(kept.file.name for kept in manifest.files)]
        if manifest.session != session or any(not name.startswith(own) or ".." in name for name in names):
            raise DamagedError(f"the manifest of session {session} names what is not its own")
        return manifest

    async def keep(
        self, bus: Bus, entry: SessionEntry, *, with_files: bool, progress: Progress = lambda _done: None
    ) -> Manifest:
        """Write a session as it is now; what is there unchanged is not written again.

        Raises
        ------
        SessionNotFoundError
            If its log is not on the server.
        ShrunkError
            If the vault holds more of it, and nobody was taken out of it since.
        PlaceError, UnavailableError
            If the place or the server did not do it; the vault holds what it held.
        """
        session = entry.session
        birth, last = await log_birth(bus, session), await last_sequence(bus, session)
        artifacts = await list_artifacts(bus, session)
        there = await self.place.list(f"{SESSIONS}/{session}")
        before = await self._readable(session)
        log = before.log if before and (before.birth, before.last) == (birth, last) else None
        messages = before.messages if before and log else 0
        if log is None or there.get(log.name) != log.bytes:
            mark = hashlib.sha256(birth.encode()).hexdigest()[:12]
            counted = _Counted(bus, session, last, progress)
            log = await self._put(_name(session, f"{mark}-{last}.retold"), counted.chunks())
            messages = counted.messages
        alike = before is not None and before.entry.forgotten == entry.forgotten  # nobody was taken out of it since
        if before is not None and alike and messages < before.messages:
            if log.name != before.log.name:
                await self.place.delete(log.name)
            said = f"the log of session {session} has {messages} messages of the {before.messages} that the backup has"
            raise ShrunkError(f"{said}; the backup keeps them: retold restore WHERE --replace {session}")
        files = [await self._put_artifact(bus, stored, there) for stored in artifacts] if with_files else []
        manifest = Manifest(
            version=VERSION,
            session=session,
            entry=entry,
            birth=birth,
            last=last,
            messages=messages,
            log=log,
            written_unix_ns=time.time_ns(),
            files=tuple(files),
            recipes=tuple({encode_recipe(s.artifact.recipe): s.artifact.recipe for s in artifacts}.values()),
        )
        if before is not None and msgspec.structs.replace(manifest, written_unix_ns=before.written_unix_ns) == before:
            manifest = before
        else:
            await self.place.write(_name(session, MANIFEST), _once(msgspec.json.encode(manifest)))
        named = {_name(session, MANIFEST), log.name, *(kept.file.name for kept in files)}
        for name in there.keys() - named:
            await self.place.delete(name)
        return manifest

    async def verify(self, manifest: Manifest, *, progress: Progress = lambda _done: None) -> None:
        """Read everything of a session back, and compare.

        Raises
        ------
        DamagedError
            If anything is missing or other than it was.
        """
        done = 0
        for file in (manifest.log, *(kept.file for kept in manifest.files)):
            digest, size = hashlib.sha256(), 0
            try:
                async for chunk in self.place.read(file.name):
                    digest.update(chunk)
                    size += len(chunk)
                    progress((done + size) / max(manifest.bytes, 1))
            except NotThereError as error:
                raise DamagedError(f"{self.place.where}/{file.name} is missing") from error
            if (size, digest.hexdigest()) != (file.bytes, file.sha256):
                raise DamagedError(f"{self.place.where}/{file.name} is damaged: it is not what was put there")
            done += size

    async def bring(
        self, bus: Bus, manifest: Manifest, *, with_files: bool = True, progress: Progress = lambda _done: None
    ) -> None:
        """Put a session's log and artifacts on the server; the directory is left as it is.

        Raises
        ------
        DamagedError, BundleError
            If what lies here is damaged: nothing of it is on the server then.
        PlaceError, UnavailableError
            If place or server went away; nothing of it is on the server then either.
        """
        files = manifest.files if with_files else ()
        whole = max(manifest.log.bytes + sum(kept.file.bytes for kept in files), 1)
        await self._bring_log(bus, manifest, lambda part: progress(part * manifest.log.bytes / whole))
        done = manifest.log.bytes
        try:
            for kept in files:
                async with self._at_hand(kept.file, lambda _part: None) as path:
                    await put_artifact(bus, kept.artifact, path)
                done += kept.file.bytes
                progress(done / whole)
        except BaseException:
            await delete_streams(bus, manifest.session)
            raise

    async def _bring_log(self, bus: Bus, manifest: Manifest, progress: Progress) -> None:
        """One half of the way is to this machine, the other to the server."""
        async with self._at_hand(manifest.log, lambda part: progress(part / 2)) as path:
            with path.open("rb") as file:
                await fill_session(
                    bus,
                    manifest.session,
                    BundleReader(file),
                    progress=lambda count: progress(0.5 + count / max(manifest.messages, 1) / 2),
                )

    async def messages(self, manifest: Manifest) -> AsyncGenerator[BundleMessage, None]:
        """A session's log, proved before the first message; raises as `bring`."""
        async with self._at_hand(manifest.log, lambda _part: None) as path:
            with path.open("rb") as file:
                for message in BundleReader(file).messages():
                    yield message

    async def erase(self, session: str) -> bool:
        """Take everything of a session away, whole or half-written; whether there was anything."""
        names = await self.place.list(f"{SESSIONS}/{check_id(session)}")
        for name in names:
            await self.place.delete(name)
        return bool(names)

    async def _readable(self, session: str) -> Manifest | None:
        """As `manifest`; one that is damaged counts for nothing, since it is about to be replaced."""
        try:
            return await self.manifest(session)
        except DamagedError:
            return None

    async def _put_artifact(self, bus: Bus, stored: StoredArtifact, there: dict[str, int]) -> KeptArtifact:
        name = _name(stored.artifact.session, f"files/{stored.sha256}")
        file = StoredFile(name=name, bytes=stored.size, sha256=stored.sha256)
        if there.get(name) != stored.size and await self._put(name, read_artifact(bus, stored)) != file:
            raise DamagedError(f"{stored.artifact.filename} of session {stored.artifact.session} is damaged")
        return KeptArtifact(artifact=stored.artifact, file=file)

    async def _put(self, name: str, chunks: AsyncGenerator[bytes, None]) -> StoredFile:
        digest, size = hashlib.sha256(), 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            async with aclosing(chunks) as pieces:
                async for chunk in pieces:
                    digest.update(chunk)
                    size += len(chunk)
                    yield chunk

        await self.place.write(name, counted())
        return StoredFile(name=name, bytes=size, sha256=digest.hexdigest())

    @contextlib.asynccontextmanager
    async def _at_hand(self, file: StoredFile, progress: Progress) -> AsyncIterator[Path]:
        """A copy of a file on this machine's disk, proved."""
        self._scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._scratch / f"{file.sha256[:16]}.part"
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("wb") as copy:
                try:
                    async for chunk in self.place.read(file.name):
                        digest.update(chunk)
                        size += len(chunk)
                        await asyncio.to_thread(copy.write, chunk)
                        progress(size / max(file.bytes, 1))
                except NotThereError as error:
                    raise DamagedError(f"{self.place.where}/{file.name} is missing") from error
            if (size, digest.hexdigest()) != (file.bytes, file.sha256):
                raise DamagedError(f"{self.place.where}/{file.name} is damaged: it is not what was put there")
            yield path
        except OSError as error:
            raise PlaceError(f"{self._scratch}: {error.strerror or error}") from error
        finally:
            path.unlink(missing_ok=True)


class _Counted:
    """A session's log as a bundle, in pieces, its messages counted."""

    def __init__(self, bus: Bus, session: str, last: int, progress: Progress) -> None:
        self._bus, self._session, self._last, self._progress = bus, session, last, progress
        self.messages = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bundle up to the message `last`."""
        buffer = io.BytesIO()
        writer = BundleWriter(buffer, BundleHeader(self._session, time.time_ns(), WRITER))
        if self._last:
            async for message in replay(self._bus, self._session, last=self._last):
                writer.write(BundleMessage(message.subject, message.message_id, message.data))
                if buffer.tell() >= PIECE_BYTES:
                    self._progress(message.sequence / self._last)
                    yield _take(buffer)
        writer.close()
        self.messages = writer.messages
        yield _take(buffer)


def _take(buffer: io.BytesIO) -> bytes:
    content = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return content


def _name(session: str, name: str) -> str:
    return f"{SESSIONS}/{check_id(session)}/{name}"


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
