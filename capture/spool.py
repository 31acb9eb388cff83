"""The spool: each message is on this machine's disk before it is sent, and stays until the session is verified.

One file per session, `RETOLD_DATA/spool/<session>.spool`, in the bundle's form without its end record. It survives
this process (the kernel holds what was written) and, once a second, a power loss (fdatasync, off the event loop). A
disk that is full raises an alarm, once, and recording goes on from memory; every message it did not take is counted.
"""

from __future__ import annotations

import asyncio
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

    Raises
    ------
    OSError
        If the file cannot be opened at all.
    """

    def __init__(self, directory: Path, session: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{session}{SUFFIX}"
        self._session = session
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        self.bytes = self._whole_bytes()
        self.failures = 0
        self._dirty = False
        os.ftruncate(self._file, self.bytes)
        if not self.bytes:
            self._write(BUNDLE_MAGIC + frame(BundleHeader(session, time.time_ns(), WRITER)))

    def append(self, subject: str, message_id: str, data: bytes) -> int | None:
        """Write a message down; where it stands, or None if the disk did not take it."""
        position = self.bytes
        return position if self._write(frame(BundleMessage(subject, message_id, data))) else None

    def read(self, position: int) -> bytes:
        """The data of the message that stands there."""
        with self.path.open("rb") as file:
            return BundleReader(file).message_at(position).data

    def messages(self) -> Iterator[BundleMessage]:
        """Every message, in the order they were written."""
        with self.path.open("rb") as file:
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
        """Keep the file, for the next process; harmless if done before."""
        if self._file != CLOSED:
            os.close(self._file)
            self._file = CLOSED

    def remove(self) -> None:
        """The session is safe elsewhere, or erased: take its voices off this disk."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _write(self, record: bytes) -> bool:
        try:
            written = os.pwrite(self._file, record, self.bytes)
        except OSError as error:
            return self._failed(str(error))
        if written < len(record):
            os.ftruncate(self._file, self.bytes)
            return self._failed("the disk took only a part")
        self.bytes += len(record)
        self._dirty = True
        return True

    def _failed(self, why: str) -> bool:
        self.failures += 1
        if self.failures == 1:
            log.error("spool_failed", session=self._session, error=why)
        return False

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
