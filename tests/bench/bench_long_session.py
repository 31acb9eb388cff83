"""A long evening: six hours, 25 people, two of whom talk at a time. A render's memory, and the time of a clip."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from contracts.artifacts import RenderJob, RenderStored
from contracts.clock import TICKS_PER_SECOND
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.jobs import submit_job, watch_render
from contracts.jetstream.streams import ensure_shared
from contracts.jetstream.transfer import import_session
from contracts.recipes import FOLLOWED_MIX, Recipe
from contracts.settings import Settings
from mixer import app
from mixer.engine import engine_string
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.process import Assignment
from mixer.render import Order
from ops.embedded import EmbeddedServer

HOURS = 6
SPEAKERS = 25
ACTIVITY = float(os.environ.get("BENCH_ACTIVITY", "0.08"))  # 0.35 on request
MOST_MIB = 200.0
MOST_CLIP_S = 1.0
CLIP_S = 30
ROOT = Path(__file__).parents[2]
BUILD = """
import asyncio, sys
from pathlib import Path
from mixer.logfile import write_log
from tests.builders import Network, build_session, replay_of
built = build_session(float(sys.argv[2]) * 3600, int(sys.argv[3]), float(sys.argv[4]), 1,
                      network=Network(jitter_ms=5, loss=0.01, skew_ppm=50), speech=True)
asyncio.run(write_log(Path(sys.argv[1]), built.session, replay_of(built.messages)))
print(built.session)
"""


def rows() -> Iterator[dict[str, str | float]]:
    """One row per figure: {"name", "value", "unit", "floor", "ratio"}; the floor is the goal."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session = _build(folder / "log")
        for recipe, what in (
            (FOLLOWED_MIX, "MP3 mix"),
            (Recipe(output="mix", format="mp3", alignment="hindsight"), "MP3 mix, hindsight"),
            (Recipe(output="tracks", format="opus"), "Opus tracks"),
        ):
            mib, wall_s = _render(folder, session, recipe)
            yield _row(f"{what}, memory", mib, "MiB", MOST_MIB)
            yield _row(f"{what}, speed", HOURS * 3600 / wall_s, "x real time", 1.0)
        yield _row(f"a clip of {CLIP_S} s", asyncio.run(_clip_s(folder, session)), "s", MOST_CLIP_S)


def _build(log: Path) -> str:
    """The session, by a process of its own: it takes a gigabyte."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(log), str(HOURS), str(SPEAKERS), str(ACTIVITY)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.strip()


def _render(folder: Path, session: str, recipe: Recipe) -> tuple[float, float]:
    """The rendering process' largest resident size, MiB, and its wall time, seconds."""
    ffmpeg = find_ffmpeg()
    order = Order(session=session, recipe=recipe, log_end=1, engine=engine_string(ffmpeg), ffmpeg=ffmpeg)
    target = folder / "out"
    target.mkdir(exist_ok=True)
    work = msgspec.json.encode(Assignment(log=str(folder / "log"), directory=str(target), order=order))
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "mixer.process"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(work + b"\n")
    process.stdin.flush()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    for path in target.iterdir():
        path.unlink()
    return usage.ru_maxrss / 1024, time.monotonic() - began


async def _clip_s(folder: Path, session: str) -> float:
    """From a job on the queue to its file in the store: the fastest of three clips."""
    async with EmbeddedServer(folder / "nats") as server:
        bus = await connect(server.url, name="bench")
        await ensure_shared(bus)
        with (folder / "log").open("rb") as file:
            await import_session(bus, file)
        stop = asyncio.Event()
        settings = Settings(data=folder / "data", nats_url=server.url, follow=0, auto_render=False)
        running = asyncio.create_task(app.run(settings, stop=stop))
        await asyncio.sleep(2)  # the mixer is up, and idle
        seconds = [await _clip(bus, session, hour) for hour in (2, 3, 4)]
        stop.set()
        await running
        await bus.close()
    return min(seconds)


async def _clip(bus: Bus, session: str, hour: int) -> float:
    start = hour * 3600 * TICKS_PER_SECOND
    recipe = Recipe(output="mix", format="mp3", start_tick=start, stop_tick=start + CLIP_S * TICKS_PER_SECOND)
    job = RenderJob(id=new_id(), session=session, recipe=recipe)
    began = time.monotonic()
    await submit_job(bus, job)
    facts = [fact async for fact in watch_render(bus, session, job.id)]
    took = time.monotonic() - began
    assert isinstance(facts[-1], RenderStored)
    await asyncio.sleep(1)  # the next rendering process gets ready
    return took


def _row(name: str, value: float, unit: str, floor: float) -> dict[str, str | float]:
    name = f"mixer, {HOURS} h x {SPEAKERS}: {name}"
    return {"name": name, "value": value, "unit": unit, "floor": floor, "ratio": value / floor}
