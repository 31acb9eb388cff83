"""What may go wrong with renders: mixers that die or stand side by side, full disks, people who change their mind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from contracts.artifacts import RenderCancelled, RenderFailed, RenderJob, RenderProgressed, RenderStored
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.jobs import publish_render_fact, submit_job, watch_render
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.rendering import render
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.recipes import Recipe
from contracts.settings import Settings
from mixer import app
from ops.embedded import EmbeddedServer
from tests.builders import Built, build_session

pytestmark = pytest.mark.long
DEADLINE_S = 60.0
ROOT = Path(__file__).parents[2]
IMPATIENT = """
import contracts.jetstream.jobs, mixer.worker, runpy
contracts.jetstream.jobs.ACK_WAIT_S, mixer.worker.BEAT_S = 2, 0.5
runpy.run_module("mixer", run_name="__main__")
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[Bus]:
    connected = await connect(server.url, name="test")
    await ensure_shared(connected)
    yield connected
    await connected.close()


@contextlib.asynccontextmanager
async def mixing(server: EmbeddedServer, data: Path) -> AsyncIterator[None]:
    """A mixer that runs as in production."""
    stop = asyncio.Event()
    settings = Settings(data=data, nats_url=server.url, auto_render=False, mixer_jobs=1)
    running = asyncio.create_task(app.run(settings, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def publish(bus: Bus, built: Built) -> None:
    await create_session(bus, built.session)
    for message in built.messages:
        await bus.publish(message.subject, message.data, message_id=message.message_id)


async def outcome(bus: Bus, job: RenderJob) -> list:
    """Every fact that a job tells, to its end."""
    async with asyncio.timeout(DEADLINE_S):
        return [fact async for fact in watch_render(bus, job.session, job.id)]


async def until_rendering(bus: Bus, job: RenderJob) -> None:
    async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(watch_render(bus, job.session, job.id)) as facts:
        async for fact in facts:
            if isinstance(fact, RenderProgressed) and fact.stage == "render":
                return


async def test_a_job_of_a_mixer_killed_with_9_is_finished_by_another_once(
    server: EmbeddedServer, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("contracts.jetstream.jobs.ACK_WAIT_S", 2)
    monkeypatch.setattr("mixer.worker.BEAT_S", 0.5)
    built = build_session(600.0, 2, seed=9, activity=0.8)
    await publish(bus, built)
    job = RenderJob(id=new_id(), session=built.session, recipe=Recipe(format="flac"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(scratch),
        "RETOLD_NATS_URL": server.url,
        "RETOLD_DATA": str(tmp_path / "one"),
        "RETOLD_AUTO_RENDER": "false",
    }
    victim = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", IMPATIENT), env=environ, stdout=asyncio.subprocess.DEVNULL
    )
    await submit_job(bus, job)
    await until_rendering(bus, job)
    victim.send_signal(signal.SIGKILL)
    await victim.wait()
    async with mixing(server, tmp_path / "two"):
        facts = await outcome(bus, job)
    assert isinstance(facts[-1], RenderStored)
    assert len(await list_artifacts(bus, built.session)) == 1
    pending = await bus.api("STREAM.INFO.JOBS")
    assert pending["state"]["messages"] == 0
    async with asyncio.timeout(DEADLINE_S):
        while any(path.name.startswith("retold-render-") and any(path.iterdir()) for path in scratch.iterdir()):
            await asyncio.sleep(0.05)  # the dead mixer's process takes the voices off the disk


async def test_mixers_side_by_side_share_the_queue_and_make_each_file_once(
    server: EmbeddedServer, bus: Bus, tmp_path: Path
):
    built = build_session(30.0, 2, seed=10, activity=0.5)
    await publish(bus, built)
    recipes = [Recipe(format=kind, bitrate_kbps=rate) for kind, rate in (("mp3", 64), ("mp3", 96), ("flac", None))]
    jobs = [RenderJob(id=new_id(), session=built.session, recipe=recipe) for recipe in recipes]
    async with mixing(server, tmp_path / "one"), mixing(server, tmp_path / "two"):
        for job in jobs:
            await submit_job(bus, job)
        ends = await asyncio.gather(*(outcome(bus, job) for job in jobs))
    assert all(isinstance(facts[-1], RenderStored) and not facts[-1].cached for facts in ends)
    assert len(await list_artifacts(bus, built.session)) == len(jobs)


async def test_a_render_that_nobody_wants_any_more_is_ended(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    """The next job is done by the same mixer, which holds nothing of the first."""
    built = build_session(600.0, 2, seed=11, activity=0.8)
    await publish(bus, built)
    jobs = [
        RenderJob(id=new_id(), session=built.session, recipe=Recipe(format=kind, stop_tick=stop))
        for kind, stop in (("mp3", None), ("flac", 48_000))
    ]
    async with mixing(server, tmp_path / "data"):
        await submit_job(bus, jobs[0])
        await until_rendering(bus, jobs[0])
        await publish_render_fact(bus, RenderCancelled(job=jobs[0].id, session=built.session, unix_ns=0))
        await submit_job(bus, jobs[1])
        assert isinstance((await outcome(bus, jobs[1]))[-1], RenderStored)
        assert isinstance((await outcome(bus, jobs[0]))[-1], RenderCancelled)
    assert [stored.artifact.recipe.format for stored in await list_artifacts(bus, built.session)] == ["flac"]


async def test_who_stops_waiting_for_a_render_cancels_it(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    """Ctrl-C of `retold mix`: the mixer does not work for nobody."""
    built = build_session(600.0, 2, seed=14, activity=0.8)
    await publish(bus, built)
    begun = asyncio.Event()
    async with mixing(server, tmp_path / "data"):
        asking = asyncio.create_task(
            render(bus, built.session, Recipe(), by="cli", progress=lambda done: begun.set() if done > 0.1 else None)
        )
        async with asyncio.timeout(DEADLINE_S):
            await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(DEADLINE_S):
            while (await bus.api("STREAM.INFO.JOBS"))["state"]["messages"]:
                await asyncio.sleep(0.05)
    assert await list_artifacts(bus, built.session) == []


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process, or of one that it starts, may grow beyond 300 kB: as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_disk")
async def test_a_full_disk_is_told_and_costs_no_other_job(
    server: EmbeddedServer, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The words say what is full; what fits is rendered by the same mixer; nothing is left in the folder."""
    monkeypatch.setattr("mixer.worker.RETRY_DELAYS_S", (0.05,))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    long, short = build_session(600.0, 2, seed=12, activity=0.8), build_session(3.0, 1, seed=13, activity=0.8)
    for built in (long, short):
        await publish(bus, built)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    async with mixing(server, tmp_path / "data"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        jobs = [RenderJob(id=new_id(), session=built.session, recipe=Recipe(format="flac")) for built in (long, short)]
        for job in jobs:
            await submit_job(bus, job)
        failed, stored = [(await outcome(bus, job))[-1] for job in jobs]
        assert isinstance(failed, RenderFailed)
        assert "disk is full" in failed.reason
        assert str(tmp_path / "scratch") in failed.reason
        assert isinstance(stored, RenderStored)
    assert list((tmp_path / "scratch").iterdir()) == []
