"""The rendering process: one job each, beside the event loop.

A process of its own keeps beats going while both cores are busy, can be killed at any moment, gives its memory back,
and takes nobody with it if it dies. It reads one assignment from stdin and says lines of JSON on stdout; when stdin
ends, its mixer is gone, and it ends too, with the FFmpeg it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np

from contracts.errors import RetoldError
from contracts.packets import SILENCE_FRAME
from contracts.recipes import Recipe
from mixer.errors import RenderProcessError, RequestError
from mixer.limiter import FRAME_TICKS
from mixer.mastering import sound_of
from mixer.mix import to_pcm
from mixer.opus import decode_packets
from mixer.render import Order, Progress, Rendered, render
from mixer.sound import SoundFold

SAY_EVERY_S: Final = 0.1
NICENESS: Final = 10  # recording goes first
LINE_LIMIT: Final = 16 * 1024 * 1024  # the result of a session with many steps is one line


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does."""

    log: str
    directory: str
    order: Order


class _Progressed(msgspec.Struct, frozen=True, tag="progressed"):
    stage: str
    fraction: float


class _Finished(msgspec.Struct, frozen=True, tag="finished"):
    rendered: Rendered


class _Refused(msgspec.Struct, frozen=True, tag="refused"):
    reason: str


class _Failed(msgspec.Struct, frozen=True, tag="failed"):
    reason: str


_Line: TypeAlias = _Progressed | _Finished | _Refused | _Failed
_lines: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)


async def start_process() -> Process:
    """A rendering process that waits for its assignment."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mixer.process"),
        stdin=PIPE,
        stdout=PIPE,
        limit=LINE_LIMIT,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


async def end_process(process: Process) -> None:
    """Kill it, and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def render_in_process(
    assignment: Assignment, progress: Callable[[str, float], None], process: Process | None = None
) -> Rendered:
    """Render in a process of its own; cancelling kills it.

    Parameters
    ----------
    process
        One that `start_process` started; None = start one. It ends with this.

    Raises
    ------
    RequestError
        If the session does not have what the recipe asks for.
    RenderProcessError
        If the render failed or its process died.
    """
    process = process or await start_process()
    try:
        return await _converse(process, assignment, progress)
    finally:
        await end_process(process)


async def _converse(process: Process, assignment: Assignment, progress: Callable[[str, float], None]) -> Rendered:
    if process.stdin is None or process.stdout is None:
        raise RenderProcessError("the rendering process has no pipes")
    process.stdin.write(msgspec.json.encode(assignment) + b"\n")
    async for text in process.stdout:
        match _lines.decode(text):
            case _Progressed(stage, fraction):
                progress(stage, fraction)
            case _Finished(rendered):
                return rendered
            case _Refused(reason):
                raise RequestError(reason)
            case _Failed(reason):
                raise RenderProcessError(reason)
    raise RenderProcessError(f"the rendering process ended with {await process.wait()}")


def main() -> None:
    """Read one assignment, and work on it."""
    _get_ready()
    line = sys.stdin.buffer.readline()
    if not line:
        return  # the mixer is gone, or needs no more renders
    assignment = msgspec.json.decode(line, type=Assignment)
    threading.Thread(target=_end_with_parent, args=(Path(assignment.directory),), daemon=True).start()
    os.nice(NICENESS)
    _say(_work(assignment))


def _get_ready() -> None:
    """Load what is loaded at its first use, while nobody waits: libopus, numpy's transforms, codecs."""
    with contextlib.suppress(RetoldError):  # who needs libopus will say that it is missing
        decode_packets([SILENCE_FRAME])
    fold = SoundFold(sound_of(Recipe()))
    fold.push({"": np.full((FRAME_TICKS, 1), 0.9, dtype=np.float32)}, FRAME_TICKS)
    to_pcm(fold.flush(), bits=16)


def _work(assignment: Assignment) -> _Line:
    try:
        return _Finished(
            render(Path(assignment.log), assignment.order, Path(assignment.directory), progress=_saying_progress())
        )
    except RequestError as error:
        return _Refused(str(error))
    except (RetoldError, OSError) as error:
        return _Failed(str(error) or type(error).__name__)


def _saying_progress() -> Progress:
    last = 0.0

    def say(stage: str, fraction: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= SAY_EVERY_S:
            last = now
            _say(_Progressed(stage, fraction))

    return say


def _say(line: _Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_parent(directory: Path) -> None:
    """The mixer is gone: nobody else would take the voices in its folder off the disk."""
    while os.read(sys.stdin.fileno(), 1 << 16):  # not through its buffer: that cannot be left at the interpreter's end
        pass
    shutil.rmtree(directory, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
