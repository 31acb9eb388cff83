"""A file system of its own, of a few megabytes, that a test fills; it is gone with whoever mounted it."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

MEGABYTE: Final = 1 << 20
# Ends when its standard input does: a test that is killed leaves no file system behind.
KEEPER: Final = 'mount -t tmpfs -o "size=$2,nr_inodes=4k" none "$1" || exit; echo; cat >/dev/null; umount --lazy "$1"'


class SmallDisk:
    """It is mounted; its filler takes what nobody else has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"  # a large file, and many that are empty

    @property
    def free(self) -> int:
        """Bytes."""
        return shutil.disk_usage(self.path).free

    def fill(self, *, files: bool = False) -> None:
        """Leave nothing: no byte; with `files`, no place for another file either."""
        self._filler.mkdir()
        with (self._filler / "large").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(MEGABYTE)):
                pass
        with contextlib.suppress(OSError):
            for number in itertools.count() if files else ():
                (self._filler / str(number)).touch()

    def empty(self) -> None:
        """Give back what `fill` took."""
        shutil.rmtree(self._filler)


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
