"""What a killed mixer left on the disk goes; what another one works on stays."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from mixer.scratch import PREFIX, YOUNG_S, remove_leftovers, scratch


def test_leftovers_go_and_what_is_in_use_or_new_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By a lock that dies with its process, whatever the time; a folder that was just made may not have it yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, young, foreign = tmp_path / f"{PREFIX}left", tmp_path / f"{PREFIX}young", tmp_path / "of-others"
    for folder in (left, young, foreign):
        folder.mkdir()
        (folder / "log").write_bytes(b"voices")
    with scratch() as used:
        (used / "log").write_bytes(b"voices")
        for folder in (left, foreign, used):
            os.utime(folder, (0, young.stat().st_mtime - 2 * YOUNG_S))
        assert remove_leftovers() == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([young.name, foreign.name, used.name])
    assert not used.exists()
