"""The spool: each message is on this machine's disk before it is sent, and stays until the session is verified.

One file per session, `RETOLD_DATA/spool/<session>.spool`, in the bundle's form without its end record. It survives
this process (the kernel holds what was written) and, once a second, a power loss (fdatasync, off the event loop). A
disk that is full raises an alarm, once, and recording goes on from memory; every message it did not take is counted.
As soon as it has room, what comes is written down again, also if there was not even room for the file at first.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

from contracts.bundle import MAGIC as BUNDLE_MAGIC
from contracts.bundle import BundleError, BundleHeader, BundleMessage, BundleReader, frame

log = structlog.get_logger()

SUFFIX: Final = ".spool"
SYNC_S: Final = 1.0
CLOSED: Final = -1  # no descriptor
WRITER: Final = "retold capture"


class Spool:
    """One session's spool, opened for appending; what a killed process left half-written is cut off.

    Parameters
    ----------
    directory
        Where spools lie.
    session
        Whose it is.

    Attributes
    ----------
    bytes
        Its size.
    failures
        Messages that the disk did not take.
    """

    def __init__(self, directory: Path, session: str) -> None:
        self.path = directory / f"{session}{SUFFIX}"
        self._session = session
        self._file = CLOSED
        self.bytes = self.failures = 0
        self._said = self._dirty = self._over = False
        try:
            self._open()
        except OSError as error:
            self._say_failed(str(error))

    def append(self, subject: str, message_id: str, data: bytes) -> int | None:
        """Write a message down; where it stands, or None if the disk did not take it."""
        try:
            self._open()
            position = self._write(frame(BundleMessage(subject, message_id, data)))
        except OSError as error:
            self.failures += 1
            self._say_failed(str(error))
            return None
        return position

    def read(self, position: int) -> bytes:
        """The data of the message that stands there."""
        with self.path.open("rb") as file:
            return BundleReader(file).message_at(position).data

    def messages(self) -> Iterator[BundleMessage]:
        """Every message, in the order they were written."""
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size:
                yield from BundleReader(file).salvage()

    async def keep_synced(self) -> None:
        """Put what was written on the disk itself, once a second, until cancelled."""
        while True:
            await asyncio.sleep(SYNC_S)
            await self.sync()

    async def sync(self) -> None:
        """Put what was written on the disk itself."""
        if self._dirty and self._file != CLOSED:
            self._dirty = False
            try:
                await asyncio.to_thread(os.fdatasync, self._file)
            except OSError as error:
                log.error("spool_sync_failed", session=self._session, error=str(error))  # noqa: TRY400  # an alarm

    def close(self) -> None:
        """Keep the file, for the next process; harmless if done before. Nothing is written from then on."""
        self._over = True
        if self._file != CLOSED:
            os.close(self._file)
            self._file = CLOSED

    def remove(self) -> None:
        """The session is safe elsewhere, or erased: take its voices off this disk."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _open(self) -> None:
        """Have a file that begins as it should, if it was not there yet."""
        if self._over:
            raise OSError(errno.EBADF, "the spool is closed")
        if self._file == CLOSED:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            self.bytes = self._whole_bytes()
            os.ftruncate(self._file, self.bytes)
        if not self.bytes:
            self._write(BUNDLE_MAGIC + frame(BundleHeader(self._session, time.time_ns(), WRITER)))

    def _write(self, record: bytes) -> int:
        """Where the record stands; OSError, and nothing of it is there, if the disk did not take it."""
        position = self.bytes
        if os.pwrite(self._file, record, position) < len(record):
            os.ftruncate(self._file, position)
            raise OSError(errno.ENOSPC, "the disk took only a part")
        self.bytes += len(record)
        self._dirty = True
        return position

    def _say_failed(self, why: str) -> None:
        if not self._said:
            self._said = True
            log.error("spool_failed", session=self._session, error=why)

    def _whole_bytes(self) -> int:
        """Where the last whole record ends; 0 if there is none."""
        with self.path.open("rb") as file:
            try:
                reader = BundleReader(file)
            except BundleError:
                return 0
            for _ in reader.salvage():
                pass
            return reader.end


def find_spools(directory: Path) -> list[str]:
    """Sessions that have a spool, oldest first."""
    return sorted(path.name.removesuffix(SUFFIX) for path in directory.glob(f"*{SUFFIX}"))
