"""Where a vault lies: names to bytes, written whole or not at all. A folder here, S3 in `ops.vault.s3`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Final, Protocol

from contracts.errors import RetoldError, UnavailableError

PART: Final = ".part"
LOCK: Final = ".lock"
READ_BYTES: Final = 1024 * 1024
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OWNER_ONLY: Final = 0o700


class PlaceError(UnavailableError):
    """The place where sessions are kept cannot be reached, or takes no more; try again when it can."""


class NotThereError(RetoldError):
    """Nothing of that name is there."""


class Place(Protocol):
    """Names to bytes. Every method raises PlaceError if the place does not do it."""

    @property
    def where(self) -> str:
        """What people call it: a path, or `s3://bucket/prefix`; nothing secret."""

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Write under a name, in place of what was there; it is there whole and durable, or not at all."""

    def read(self, name: str) -> AsyncGenerator[bytes, None]:
        """The bytes in pieces; NotThereError if there are none."""

    async def list(self, prefix: str) -> dict[str, int]:
        """Names that begin with `prefix/`, and their sizes in bytes."""

    async def delete(self, name: str) -> None:
        """Take it away; harmless if it is not there."""


class Folder:
    """A place on this machine's disk, for its owner alone."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def where(self) -> str:
        """The path."""
        return str(self._root)

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """Beside the name, synced, then renamed: whoever is killed leaves a `.part` that the next one removes."""
        path = self._root / name
        part = path.with_name(f".{secrets.token_hex(4)}{PART}")
        with self._telling():
            path.parent.mkdir(parents=True, exist_ok=True, mode=OWNER_ONLY)
            try:
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    async for chunk in chunks:
                        await asyncio.to_thread(file.write, chunk)
                    await asyncio.to_thread(_sync, file)
                part.rename(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            await asyncio.to_thread(_sync_folder, path.parent)

    async def read(self, name: str) -> AsyncGenerator[bytes, None]:
        """The bytes in pieces."""
        with self._telling():
            try:
                file = (self._root / name).open("rb")
            except FileNotFoundError as error:
                raise NotThereError(f"{self._root / name} is not there") from error
            with file:
                while chunk := await asyncio.to_thread(file.read, READ_BYTES):
                    yield chunk

    async def list(self, prefix: str) -> dict[str, int]:
        """Names and sizes."""
        with self._telling():
            return await asyncio.to_thread(self._list, self._root / prefix)

    def _list(self, folder: Path) -> dict[str, int]:
        found = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                found[str(path.relative_to(self._root))] = path.stat().st_size
        return found

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else writes here meanwhile; what somebody who was killed left half-written is removed.

        Raises
        ------
        PlaceError
            If somebody does already.
        """
        with self._telling():
            self._root.mkdir(parents=True, exist_ok=True, mode=OWNER_ONLY)
            lock = os.open(self._root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise PlaceError(f"{self._root}: another process writes there just now") from error
            for part in self._root.rglob(f".*{PART}"):
                part.unlink(missing_ok=True)
            yield
        finally:
            os.close(lock)

    async def delete(self, name: str) -> None:
        """Unlink it, and its folder if that is empty then."""
        with self._telling():
            path = self._root / name
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors of the disk as PlaceError."""
        try:
            yield
        except OSError as error:
            full = "it is full" if error.errno in FULL else error.strerror or str(error)
            raise PlaceError(f"{self._root}: {full}") from error


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
