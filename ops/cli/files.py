"""Files that commands write: whole or not there, in folders that are proved before the work begins.

A regular file is written beside its place and moved there when it is whole; stdout, a device or a pipe has no
"beside" and takes the bytes as they come.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from contracts.errors import RetoldError

STDOUT: Final = {"-", "/dev/stdout"}
DESCRIPTOR: Final = re.compile(r"/(dev/(stderr|fd/\d+)|proc/(self|\d+)/fd/\d+)")


class FileError(RetoldError):
    """A file or folder cannot be written."""

    def __init__(self, path: Path | str, error: OSError) -> None:
        super().__init__(f"cannot write {path}: {error.strerror or error}")


def to_stdout(path: Path) -> bool:
    """Whether a path means our own output."""
    return str(path) in STDOUT


@contextlib.contextmanager
def write_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write; when the context fails, nothing of it is left and what stood there stays.

    Raises
    ------
    FileError
        If it cannot be written; a reader of our stdout that went away stays a BrokenPipeError.
    """
    try:
        if to_stdout(path):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif _is_special(path):
            with os.fdopen(os.open(path, os.O_WRONLY), "wb") as file:
                yield cast("BinaryIO", file)
        else:
            with _beside(path.resolve()) as file:
                yield file
    except OSError as error:
        if to_stdout(path):
            drop_stdout()
            if isinstance(error, BrokenPipeError):
                raise
        raise FileError(path, error) from error


def drop_stdout() -> None:
    """Let nothing more be written to an output that takes nothing, at our end neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_folder(path: Path) -> None:
    """Make a folder if it is not there, and prove that files can be written in it.

    Raises
    ------
    FileError
        If they cannot.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / _part()
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise FileError(path, error) from error


def _is_special(path: Path) -> bool:
    """Whether something other than a file stands there: a device, a pipe, an open descriptor."""
    if DESCRIPTOR.fullmatch(str(path)):
        return True
    if path.is_dir():
        raise IsADirectoryError(0, "it is a folder; name a file in it")
    return path.exists() and not path.is_file()


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    partial = path.with_name(_part())
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _part() -> str:
    return f".{secrets.token_hex(4)}.part"
