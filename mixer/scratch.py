"""Where a render's files lie until they are in the store: voices, so whoever dies leaves them for the next to remove.

A folder in use is locked by its mixer; the kernel lets go of the lock of a process that was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

PREFIX: Final = "retold-render-"
YOUNG_S: Final = 10.0  # a folder that was just made may not be locked yet


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one render, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(name)
        finally:
            os.close(descriptor)


def remove_leftovers() -> int:
    """Remove what mixers left that were killed; how many folders."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            removed += _remove_if_left(folder)
        except OSError as error:  # another user's, or gone meanwhile
            log.info("leftover_kept", folder=str(folder), why=error.strerror)
    if removed:
        log.info("leftovers_removed", folders=removed)
    return removed


def _remove_if_left(folder: Path) -> bool:
    if time.time() - folder.stat().st_mtime < YOUNG_S:
        return False
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
