"""A service is well as long as it says so."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts import health
from contracts.health import STALE_S, keep_beating, last_beat_age_s
from tests.small_disk import small_disk

DEADLINE_S = 10.0


def check(data: Path) -> int:
    """The exit code of what a container's health check runs."""
    command = [sys.executable, "-m", "contracts.health", "mixer"]
    return subprocess.run(command, env=os.environ | {"RETOLD_DATA": str(data)}, check=False, timeout=30).returncode


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_service_is_well_while_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Well, not well, well again, ended: the age tells each of them."""
    monkeypatch.setattr(health, "BEAT_S", 0.01)
    well = True
    beating = asyncio.create_task(keep_beating(tmp_path, "mixer", lambda: well))
    await until(lambda: last_beat_age_s(tmp_path, "mixer") is not None)
    well = False
    await until(lambda: last_beat_age_s(tmp_path, "mixer") is None)
    well = True
    await until(lambda: last_beat_age_s(tmp_path, "mixer") is not None)
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating
    assert last_beat_age_s(tmp_path, "mixer") is None


async def test_a_disk_that_takes_no_beat_does_not_end_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It looks unwell, and works on; when there is room it is well."""
    monkeypatch.setattr(health, "BEAT_S", 0.01)
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        disk.fill(files=True)
        beating = asyncio.create_task(keep_beating(disk.path, "mixer", lambda: True))
        await asyncio.sleep(0.1)
        assert not beating.done()
        assert last_beat_age_s(disk.path, "mixer") is None
        disk.empty()
        await until(lambda: last_beat_age_s(disk.path, "mixer") is not None)
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating


def test_the_check_fails_when_there_is_no_beat_or_an_old_one(tmp_path: Path):
    """A service that hangs stops beating, which is all that can be seen of it."""
    beat = tmp_path / "health" / "mixer"
    assert check(tmp_path) == 1
    beat.parent.mkdir()
    beat.touch()
    assert check(tmp_path) == 0
    old_s = time.time() - 2 * STALE_S
    os.utime(beat, (old_s, old_s))
    assert check(tmp_path) == 1
