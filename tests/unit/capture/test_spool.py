"""The spool keeps what was written through a kill, a half-written end and a full disk."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capture.home import Home, HomeTakenError
from capture.spool import Spool, find_spools
from contracts.ids import new_id
from tests.small_disk import small_disk

SESSION = new_id()


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow past `size` bytes: a disk that is full, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def kept(spool: Spool) -> list[tuple[str, str, bytes]]:
    return [(message.subject, message.message_id, message.data) for message in spool.messages()]


def test_what_was_written_is_there_for_the_next_process(tmp_path: Path):
    """Nothing is closed in order by a kill; another process reads the same messages, and appends to them."""
    first = Spool(tmp_path, SESSION)
    positions = [first.append("s", str(number), b"x" * number) for number in range(5)]
    second = Spool(tmp_path, SESSION)
    assert second.append("s", "5", b"more") is not None
    assert kept(second) == [("s", str(number), b"x" * number) for number in range(5)] + [("s", "5", b"more")]
    assert [second.read(position) for position in positions if position is not None] == [b"x" * n for n in range(5)]
    assert find_spools(tmp_path) == [SESSION]
    second.remove()
    assert find_spools(tmp_path) == []
    first.close()


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_a_half_written_end_is_cut_off(tmp_path: Path, cut: int):
    """A power loss in mid-record costs that record, and the next is written behind the last whole one."""
    spool = Spool(tmp_path, SESSION)
    spool.append("s", "0", b"whole" * 10)
    spool.append("s", "1", b"broken" * 10)
    spool.close()
    content = spool.path.read_bytes()
    spool.path.write_bytes(content[:-cut])
    again = Spool(tmp_path, SESSION)
    again.append("s", "2", b"next")
    assert [message_id for _, message_id, _ in kept(again)] == ["0", "2"]
    again.close()


def test_a_full_disk_is_counted_and_costs_nothing_written_before_or_after(tmp_path: Path):
    """While the disk is full nothing is half-written; when there is room again, writing goes on."""
    spool = Spool(tmp_path, SESSION)
    spool.append("s", "before", b"x" * 100)
    with disk_of(spool.bytes + 50):
        assert spool.append("s", "full", b"y" * 1000) is None
        assert spool.append("s", "full again", b"y" * 1000) is None
    assert spool.failures == 2
    assert spool.append("s", "after", b"z") is not None
    assert [message_id for _, message_id, _ in kept(spool)] == ["before", "after"]
    spool.close()


def test_a_spool_that_begins_on_a_full_disk_can_be_read(tmp_path: Path):
    """There was no room for its first line, or for the file at all: the first message that fits has one before it."""
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        folders = [disk.path / "no line", disk.path / "no file"]
        for folder in folders:
            folder.mkdir()
        (folders[0] / f"{SESSION}.spool").touch()
        disk.fill(files=True)
        spools = [Spool(folder, SESSION) for folder in folders]
        for spool in spools:
            assert spool.append("s", "lost", b"x") is None
            assert (spool.failures, spool.bytes, kept(spool)) == (1, 0, [])
        disk.empty()
        for spool in spools:
            assert spool.append("s", "kept", b"x") is not None
            again = Spool(spool.path.parent, SESSION)
            assert kept(again) == [("s", "kept", b"x")]
            again.close()
            spool.remove()
            assert spool.append("s", "late", b"x") is None, "what was erased does not come back"
            assert not spool.path.exists()


def test_one_process_has_the_folder_and_keeps_its_name(tmp_path: Path):
    """A second is refused; after the first has gone, the next has the same name, and so the same leases."""
    home = Home(tmp_path)
    with pytest.raises(HomeTakenError, match="another capture"):
        Home(tmp_path)
    home.close()
    again = Home(tmp_path)
    assert again.owner == home.owner
    again.close()
