"""Files that commands write."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ops.cli.files import FileError, make_folder, write_file


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    """A context that fails leaves the old file, and nothing else."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), write_file(path) as file:
        file.write(b"half" * (1 // 0))
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("file", b"old")]
    with write_file(path) as file:
        file.write(b"new")
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("file", b"new")]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """What is written is the file that it points to."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with write_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_device_stays_and_its_error_is_told() -> None:
    """A full device says so, and is not replaced by a file."""
    with pytest.raises(FileError, match="No space left"), write_file(Path("/dev/full")) as file:
        file.write(b"bytes")
    assert Path("/dev/full").is_char_device()
    with write_file(Path("/dev/null")) as file:
        file.write(b"bytes")
    assert Path("/dev/null").is_char_device()


def test_a_pipe_is_written_straight(tmp_path: Path) -> None:
    """Its reader gets the bytes, and it is a pipe still."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with write_file(pipe) as file:
        file.write(b"bytes")
    reader.join(10)
    assert (read, pipe.is_fifo()) == ([b"bytes"], True)


@pytest.mark.parametrize("name", [".", "missing/file", "file/below", "/proc/file"])
def test_what_cannot_be_a_file_is_told(tmp_path: Path, name: str) -> None:
    """A folder, a missing folder, below a file, in /proc: one sentence each, and nothing is left behind."""
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write"), write_file(tmp_path / name) as file:
        file.write(b"bytes")
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["file", "file/below", "/proc", "/proc/folder", "/dev/null"])
def test_what_cannot_be_a_folder_is_told(tmp_path: Path, name: str) -> None:
    """A file in its place, below a file, /proc, a device: one sentence each."""
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write"):
        make_folder(tmp_path / name)


def test_a_folder_is_made_with_those_above_it_and_is_empty(tmp_path: Path) -> None:
    """The proof that it can be written leaves nothing."""
    make_folder(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())
