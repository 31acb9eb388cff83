"""The rendering process: it does what it is told, and nobody is left behind when it ends."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from contracts.clock import TICKS_PER_SECOND
from contracts.recipes import Recipe
from mixer.engine import engine_string
from mixer.errors import RenderProcessError, RequestError
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.logfile import write_log
from mixer.process import Assignment, render_in_process
from mixer.render import Order
from tests.builders import build_session, replay_of

DEADLINE_S = 20.0
SECONDS = 600.0


async def assignment(directory: Path, recipe: Recipe, *, seconds: float = SECONDS) -> Assignment:
    """A render of a session with two people; ten minutes take seconds, long enough to interrupt."""
    built = build_session(seconds, 2, 0.8, 1)
    await write_log(directory / "log", built.session, replay_of(built.messages))
    ffmpeg = find_ffmpeg()
    order = Order(
        session=built.session,
        recipe=recipe,
        log_end=len(built.messages),
        engine=engine_string(ffmpeg),
        ffmpeg=ffmpeg,
    )
    return Assignment(log=str(directory / "log"), directory=str(directory), order=order)


def working_in(directory: Path) -> list[int]:
    """Processes that have the directory on their command line: FFmpeg, above all."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(directory).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


async def test_a_render_reports_progress_that_only_grows(tmp_path: Path):
    told: list[float] = []
    rendered = await render_in_process(
        await assignment(tmp_path, Recipe(format="flac")), lambda _, part: told.append(part)
    )
    assert rendered.files[0].duration_ticks == SECONDS * TICKS_PER_SECOND
    assert told == sorted(told)
    assert 0 < told[-1] <= 1


async def test_a_cancelled_render_leaves_no_process(tmp_path: Path):
    rendering_began = asyncio.Event()

    def progress(stage: str, _: float) -> None:
        if stage == "render":
            rendering_began.set()

    task = asyncio.create_task(render_in_process(await assignment(tmp_path, Recipe(format="flac")), progress))
    async with asyncio.timeout(DEADLINE_S):
        await rendering_began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(wait_until, lambda: not working_in(tmp_path))


def test_a_process_whose_mixer_dies_ends_with_its_ffmpeg_and_leaves_no_voice(tmp_path: Path):
    """A mixer killed with -9 says nothing; its end of the pipe is what closes. Its folder of voices goes, too."""
    work = msgspec.json.encode(asyncio.run(assignment(tmp_path, Recipe(format="flac"), seconds=1800.0)))
    process = subprocess.Popen(
        [sys.executable, "-m", "mixer.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        process.stdin.write(work + b"\n")
        process.stdin.flush()
        wait_until(lambda: bool(working_in(tmp_path)))
        process.stdin.close()
        process.wait(timeout=DEADLINE_S)
    wait_until(lambda: not working_in(tmp_path))
    assert not tmp_path.exists()


async def test_whose_fault_it_was_comes_through(tmp_path: Path):
    whole = await assignment(tmp_path, Recipe(people=("7",)), seconds=10.0)
    with pytest.raises(RequestError, match="not in this session"):
        await render_in_process(whole, lambda *_: None)
    lost = msgspec.structs.replace(whole, log=str(tmp_path / "gone"))
    with pytest.raises(RenderProcessError, match="gone"):
        await render_in_process(lost, lambda *_: None)
