"""Jobs from the work queue: replay, render, store, tell.

A job is acknowledged only after its files and the fact of them are durable. Files are named by recipe, log and engine,
so a job that is given out twice finds what the first made. Whose fault a failure is decides whether it is retried.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import structlog

from contracts.artifacts import Artifact, RenderFailed, RenderJob, RenderProgressed, RenderStored
from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.jobs import (
    CancelledJobError,
    Delivery,
    JobQueue,
    publish_render_fact,
    unless_cancelled,
)
from contracts.jetstream.keeping import bring_back
from contracts.jetstream.objects import list_artifacts, remove_artifact
from contracts.jetstream.replay import last_sequence, log_birth
from contracts.recipes import render_name
from mixer.errors import RequestError
from mixer.figures import Outcome, Tally
from mixer.making import REPLAY_SHARE, Engine, Tell, make_files, order_of
from mixer.process import end_process, start_process
from mixer.rendered import Order, Rendered
from mixer.scratch import scratch
from mixer.store import store_files

log = structlog.get_logger()

TAKE_TIMEOUT_S: Final = 5.0
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
BEAT_S: Final = 10.0  # a third of the queue's ack wait
TELL_EVERY_S: Final = 0.25
HAND_OVER_S: Final = 1.0  # by then this mixer asks for no jobs any more
RETRY_DELAYS_S: Final = (1.0, 5.0, 15.0, 30.0)
FETCH_S: Final = 600.0  # so long a job waits for its session to come back from the archive, then it is tried again
STORE_SHARE: Final = 0.05


class LogRewrittenError(RetoldError):
    """The session's log was written anew while it was being rendered."""


class Worker:
    """Takes jobs one after another; several of them share a queue."""

    def __init__(self, bus: Bus, queue: JobQueue, engine: Engine, tally: Tally) -> None:
        self._bus = bus
        self._queue = queue
        self._engine = engine
        self._tally = tally
        self._spare: Process | None = None  # a rendering process that is ready: imports cost more than a short clip

    async def run(self) -> None:
        """Work until cancelled; a job under way then goes back to the queue at once."""
        try:
            while True:
                self._spare = self._spare or await start_process()
                if (delivery := await self._queue.take(timeout_s=TAKE_TIMEOUT_S)) is not None:
                    await self._handle(delivery)
        finally:
            if self._spare is not None:
                await end_process(self._spare)

    async def _handle(self, delivery: Delivery) -> None:
        job = delivery.job
        started = time.monotonic()
        outcome: Outcome = "retried"
        self._tally.began(attempt=delivery.attempt)
        with structlog.contextvars.bound_contextvars(session=job.session, job=job.id, attempt=delivery.attempt):
            beating = asyncio.create_task(_beat(delivery))
            try:
                stored = await unless_cancelled(self._bus, job, self._make(job, started))
                await publish_render_fact(self._bus, stored)
                await delivery.done()
                outcome = "found" if stored.cached else "stored"
                log.info(
                    "render_stored",
                    output=job.recipe.output,
                    format=job.recipe.format,
                    files=len(stored.artifacts),
                    cached=stored.cached,
                    elapsed_s=round(stored.elapsed_s, 3),
                )
            except asyncio.CancelledError:
                outcome = "returned"
                await asyncio.shield(delivery.retry(HAND_OVER_S))
                raise
            except CancelledJobError:
                outcome = "cancelled"
                log.info("render_cancelled")
                await delivery.done()
            except (RequestError, SessionNotFoundError) as error:
                outcome = "given_up"
                await self._fail(delivery, str(error), retry=False)
            except Exception as error:  # the top of the worker's loop: whatever it was, the next job must go on
                log.exception("render_crashed")
                outcome = "given_up" if delivery.last_attempt else "retried"
                await self._fail(delivery, _say(error), retry=not delivery.last_attempt)
            finally:
                beating.cancel()
                self._tally.ended(outcome, elapsed_s=time.monotonic() - started)

    async def _fail(self, delivery: Delivery, reason: str, *, retry: bool) -> None:
        job = delivery.job
        log.warning("render_failed", reason=reason, retrying=retry)
        await publish_render_fact(
            self._bus,
            RenderFailed(job=job.id, session=job.session, unix_ns=time.time_ns(), reason=reason, retrying=retry),
        )
        if retry:
            await delivery.retry(RETRY_DELAYS_S[min(delivery.attempt, len(RETRY_DELAYS_S)) - 1])
        else:
            await delivery.give_up()

    async def _make(self, job: RenderJob, started: float) -> RenderStored:
        await self._fetch(job, started)
        log_end = await last_sequence(self._bus, job.session)
        cached = await self._find(job, log_end)
        artifacts = cached or await self._render(job, log_end, started)
        return RenderStored(
            job=job.id,
            session=job.session,
            unix_ns=time.time_ns(),
            artifacts=tuple(artifacts),
            cached=bool(cached),
            elapsed_s=time.monotonic() - started,
        )

    async def _fetch(self, job: RenderJob, started: float) -> None:
        """Have the session brought back, if it is in the archive."""
        async with _telling(self._bus, job, started) as tell:
            await bring_back(
                self._bus, job.session, progress=lambda part: tell("fetch", REPLAY_SHARE * part), patience_s=FETCH_S
            )

    async def _find(self, job: RenderJob, log_end: int) -> list[Artifact]:
        """The recipe's files, if the store has all of them."""
        name = render_name(job.recipe, log_end=log_end, engine=self._engine.name)
        found = [stored.artifact for stored in await list_artifacts(self._bus, job.session)]
        mine = [artifact for artifact in found if artifact.name.startswith(f"{name}-")]
        return mine if mine and len(mine) == mine[0].files else []

    async def _render(self, job: RenderJob, log_end: int, started: float) -> list[Artifact]:
        order = order_of(job.session, job.recipe, log_end=log_end, engine=self._engine)
        with scratch() as directory:
            async with _telling(self._bus, job, started) as tell:
                birth = await log_birth(self._bus, job.session)
                rendered = await make_files(
                    self._bus,
                    order,
                    directory,
                    lambda stage, fraction: tell(stage, (1 - STORE_SHARE) * fraction),
                    self._take_spare(),
                )
                artifacts = await self._store(order, rendered, tell)
                await self._check_birth(job, birth, artifacts)
                return artifacts

    async def _check_birth(self, job: RenderJob, birth: str, artifacts: list[Artifact]) -> None:
        """What was made of a log that somebody has been taken out of since must not stay; it is made again."""
        if await log_birth(self._bus, job.session) != birth:
            for artifact in artifacts:
                await remove_artifact(self._bus, job.session, artifact.name)
            raise LogRewrittenError

    def _take_spare(self) -> Process | None:
        """The process that is ready; None if it died meanwhile."""
        spare, self._spare = self._spare, None
        return spare if spare is not None and spare.returncode is None else None

    async def _store(self, order: Order, rendered: Rendered, tell: Tell) -> list[Artifact]:
        artifacts = await store_files(
            self._bus, rendered.files, order, told=lambda part: tell("store", 1 - STORE_SHARE * (1 - part))
        )
        for speaker in rendered.speakers:
            log.info("speaker_rendered", **msgspec.to_builtins(msgspec.structs.replace(speaker, name="")))
        return artifacts


def _say(error: Exception) -> str:
    said = str(error) or type(error).__name__
    if (isinstance(error, OSError) and error.errno in FULL) or os.strerror(errno.ENOSPC) in said:  # FFmpeg's words, too
        return f"the mixer's disk is full: {tempfile.gettempdir()} (TMPDIR) takes no more; {said}"
    return said


async def _beat(delivery: Delivery) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        await delivery.beat()


@contextlib.asynccontextmanager
async def _telling(bus: Bus, job: RenderJob, started: float) -> AsyncIterator[Callable[[str, float], None]]:
    """A function that tells how far the job is, at most every TELL_EVERY_S; what comes between is overwritten."""
    latest: list[tuple[str, float]] = []
    changed = asyncio.Event()

    def tell(stage: str, fraction: float) -> None:
        latest[:] = [(stage, fraction)]
        changed.set()

    async def publish() -> None:
        while True:
            await changed.wait()
            changed.clear()
            await publish_render_fact(bus, _progressed(job, *latest[0], time.monotonic() - started))
            await asyncio.sleep(TELL_EVERY_S)

    telling = asyncio.create_task(publish())
    try:
        yield tell
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling


def _progressed(job: RenderJob, stage: str, fraction: float, elapsed_s: float) -> RenderProgressed:
    eta_s = elapsed_s * (1 - fraction) / fraction if fraction > REPLAY_SHARE else None
    return RenderProgressed(
        job=job.id, session=job.session, unix_ns=time.time_ns(), stage=stage, fraction=round(fraction, 4), eta_s=eta_s
    )
