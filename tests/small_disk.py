"""A file system of its own, of a few megabytes, that a test fills; it is gone with whoever mounted it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

MEGABYTE: Final = 1 << 20
# Ends when its standard input does: a test that is killed leaves no file system behind.
KEEPER: Final = 'mount -t tmpfs -o "size=$2" none "$1" || exit; echo; cat >/dev/null; umount --lazy "$1"'


class SmallDisk:
    """It is mounted; its filler takes what nobody else has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    @property
    def free(self) -> int:
        """Bytes."""
        return shutil.disk_usage(self.path).free

    def fill(self, *, but: int = 0) -> None:
        """Leave so many bytes; a file that is there already may then grow no further than they go."""
        with self._filler.open("ab") as file:
            while (size := self.free - but) > 0:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)

    def empty(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(path: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """Mount one at a folder, which is made if it is not there; the test is skipped where nobody may mount."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["sh", "-c", KEEPER, "sh", str(path), str(megabytes * MEGABYTE)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            if not keeper.stdout.readline():
                pytest.skip("this user may not mount a file system")
            yield SmallDisk(path)
        finally:
            keeper.stdin.close()
            keeper.wait()
    assert not path.is_mount()
