"""The mixer's composition root."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog

from contracts.errors import SettingsError
from contracts.health import keep_beating
from contracts.jetstream.connection import connect
from contracts.jetstream.jobs import JobQueue
from contracts.jetstream.server import Server
from contracts.jetstream.streams import ensure_shared
from contracts.metrics.endpoint import serve_metrics
from contracts.settings import Settings
from mixer.autorender import AutoRender
from mixer.engine import engine_string
from mixer.errors import FfmpegMissingError, KernelMissingError
from mixer.figures import Tally
from mixer.follower import Followers
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.kernel import kernel
from mixer.making import Engine
from mixer.scratch import remove_leftovers
from mixer.worker import Worker

log = structlog.get_logger()

CANCEL_AGAIN_S: Final = 1.0


async def run(settings: Settings, *, stop: asyncio.Event) -> None:
    """Render jobs until `stop` is set; those under way then go back to the queue.

    Raises
    ------
    UnavailableError
        If there is no NATS.
    SettingsError
        If there is no usable ffmpeg, or the inner loops cannot be compiled.
    """
    try:
        ffmpeg = await asyncio.to_thread(find_ffmpeg, settings.ffmpeg)
        await asyncio.to_thread(kernel)
    except (FfmpegMissingError, KernelMissingError) as error:
        raise SettingsError([str(error)]) from error
    await asyncio.to_thread(remove_leftovers)
    engine = Engine(engine_string(ffmpeg), ffmpeg)
    bus = await connect(Server.of(settings, "mixer"), name="mixer")
    try:
        await ensure_shared(bus)
        tally = Tally()
        followers = Followers(bus, engine, settings.data, most=settings.follow)
        tally.watch(settings, bus, lambda: len(followers))
        async with JobQueue(bus) as queue, serve_metrics(tally.figures, settings):
            log.info("mixer_ready", engine=engine.name, jobs=settings.mixer_jobs)
            tasks = [asyncio.create_task(Worker(bus, queue, engine, tally).run()) for _ in range(settings.mixer_jobs)]
            if settings.follow and settings.auto_render:
                tasks.append(asyncio.create_task(followers.run()))
            if settings.auto_render:
                tasks.append(asyncio.create_task(AutoRender(bus).run()))
            tasks.append(asyncio.create_task(keep_beating(settings.data, "mixer", lambda: bus.connected)))
            await _until(stop, tasks)
    finally:
        await bus.close()


async def _until(stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
    """Wait for `stop`, or for the first task that fails; then end them all."""
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end({stopping, *tasks})
    for task in done - {stopping}:
        task.result()


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel until every task is done: `asyncio.wait_for` of Python 3.11 swallows a cancel that meets its result."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
