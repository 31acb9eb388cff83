"""Asking for renders and following them: what the command line, the demo and Discord's commands share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeAlias

from contracts.artifacts import AnyRenderFact, RenderCancelled, RenderFailed, RenderJob, RenderProgressed, RenderStored
from contracts.errors import RetoldError, UnavailableError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.jobs import mixers_are_at_it, publish_render_fact, submit_job, watch_render
from contracts.recipes import Recipe

SILENT_S: Final = 60.0  # a mixer tells its progress more often
BUSY_S: Final = 600.0  # but jobs may lie before this one

Progress: TypeAlias = Callable[[float], None]


class RenderFailedError(RetoldError):
    """The mixer could not make it."""


async def render(bus: Bus, session: str, recipe: Recipe, *, by: str, progress: Progress) -> RenderStored:
    """Ask for a render and wait for its files; what is in the store already is not made again.

    Whoever stops waiting cancels it.

    Parameters
    ----------
    progress
        Called with the fraction done, 0 to 1.

    Raises
    ------
    RenderFailedError
        With the mixer's reason.
    UnavailableError
        If no mixer takes the job.
    """
    job = RenderJob(id=new_id(), session=session, recipe=recipe.canonical(), requested_by=by)
    await submit_job(bus, job)
    try:
        return await follow(bus, session, job.id, progress=progress)
    except asyncio.CancelledError:
        cancelled = RenderCancelled(job=job.id, session=session, unix_ns=time.time_ns(), by=by)
        with contextlib.suppress(RetoldError):
            await asyncio.shield(publish_render_fact(bus, cancelled))
        raise


async def follow(bus: Bus, session: str, job: str, *, progress: Progress) -> RenderStored:
    """Wait for the files of a job; parameters and errors as `render`."""
    async with contextlib.aclosing(watch_render(bus, session, job)) as facts:
        while True:
            fact = await _next(bus, facts)
            match fact:
                case RenderStored():
                    progress(1.0)
                    return fact
                case RenderCancelled():
                    raise RenderFailedError("it was cancelled")
                case RenderFailed(retrying=False):
                    raise RenderFailedError(fact.reason)
                case RenderProgressed():
                    progress(fact.fraction)
                case _:
                    pass


async def _next(bus: Bus, facts: AsyncIterator[AnyRenderFact]) -> AnyRenderFact:
    """What is told next of a job; UnavailableError if there is no mixer that could."""
    waited_s = 0.0
    coming = asyncio.ensure_future(anext(facts))
    try:
        while not (await asyncio.wait({coming}, timeout=SILENT_S))[0]:
            waited_s += SILENT_S
            if waited_s >= BUSY_S or not await mixers_are_at_it(bus):
                raise UnavailableError(
                    f"no mixer said anything for {waited_s:g} s: does one run? The job stays in the queue"
                )
        return coming.result()
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
