"""A zip whose bytes follow from what is in it: nothing compressed (sound is), one date, no owners, Zip64 where needed.

Files are taken one after the other and may be deleted when they are in, so that never more than one stands beside it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

EARLIEST: Final = (1980, 1, 1, 0, 0, 0)  # of the format
CHUNK: Final = 1024 * 1024
_PLAIN_FILE: Final = 0o100644 << 16
_UNIX: Final = 3


class Archive:
    """A zip that is being written to a file or a pipe; a context."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the directory."""
        self._zip.close()

    def add(self, name: str, data: bytes) -> None:
        """A small file."""
        self._zip.writestr(_entry(name), data)

    def move(self, name: str, path: Path) -> None:
        """A file from the disk, deleted when it is in."""
        with path.open("rb") as source, self._zip.open(_entry(name), "w", force_zip64=True) as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
        path.unlink()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EARLIEST)
    entry.external_attr, entry.create_system = _PLAIN_FILE, _UNIX
    return entry
