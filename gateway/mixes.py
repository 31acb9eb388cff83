"""Mixes that visitors ask for: a recipe becomes a job; the gateway follows it, so that a page can say how it goes.

So many at once for a session and no more: whoever has a link can ask, and each costs the mixer's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

import msgspec
import structlog

from contracts.artifacts import (
    AnyRenderFact,
    RenderCancelled,
    RenderFailed,
    RenderJob,
    RenderProgressed,
    RenderStored,
    job_id,
)
from contracts.errors import RetoldError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.jobs import publish_render_fact, submit_job, watch_render
from contracts.recipes import Recipe, encode_recipe
from gateway import problems
from gateway.problems import ProblemError

log = structlog.get_logger()

AT_ONCE: Final = 4  # of one session
FOLLOWED_S: Final = 3600.0
KEPT: Final = 256  # jobs that are remembered, so that their page can still ask


class Mix(msgspec.Struct):
    """A job as it stands.

    Attributes
    ----------
    state
        `queued`, `running`, `stored`, `failed` or `cancelled`.
    files
        Object names of what it made.
    """

    job: str
    session: str
    recipe: Recipe
    state: str = "queued"
    fraction: float = 0.0
    eta_s: float | None = None
    reason: str = ""
    files: tuple[str, ...] = ()

    @property
    def under_way(self) -> bool:
        """Whether it is still being made."""
        return self.state in {"queued", "running"}


class Mixes:
    """The jobs that this gateway asked for.

    Parameters
    ----------
    bus
        The control connection.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._mixes: dict[str, Mix] = {}
        self._wanted: set[str] = set()
        self._following: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self.changes = 0  # counts; who saw so many has missed nothing

    async def want(self, session: str, recipe: Recipe) -> None:
        """Have something made that pages are better with; asked for once, and nobody waits for it."""
        job = job_id(session, recipe)
        if job not in self._wanted:
            self._wanted.add(job)
            await submit_job(self._bus, RenderJob(id=job, session=session, recipe=recipe, requested_by="page"))

    async def ask(self, session: str, recipe: Recipe, *, by: str) -> Mix:
        """Submit a job; one for the same recipe that is still under way is answered instead.

        Raises
        ------
        ProblemError
            If too many are being made for this session.
        """
        mine = [mix for mix in self._mixes.values() if mix.session == session and mix.under_way]
        wanted = encode_recipe(recipe)
        for mix in mine:
            if encode_recipe(mix.recipe) == wanted:
                return mix
        if len(mine) >= AT_ONCE:
            raise ProblemError(problems.TOO_MANY_MIXES)
        mix = Mix(job=new_id(), session=session, recipe=recipe.canonical())
        self._keep(mix)
        try:
            job = RenderJob(id=mix.job, session=session, recipe=mix.recipe, requested_by=by)
            await submit_job(self._bus, job)
        except BaseException:
            del self._mixes[mix.job]
            raise
        await self._tell()
        task = asyncio.create_task(self._follow(mix))
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return mix

    @property
    def under_way(self) -> int:
        """How many are being made."""
        return sum(mix.under_way for mix in self._mixes.values())

    def of(self, session: str) -> list[Mix]:
        """Those of a session, oldest first."""
        return [mix for mix in self._mixes.values() if mix.session == session]

    def find(self, session: str, job: str) -> Mix:
        """One of a session; ProblemError if there is none."""
        mix = self._mixes.get(job)
        if mix is None or mix.session != session:
            raise ProblemError(problems.JOB_NOT_FOUND)
        return mix

    async def cancel(self, mix: Mix) -> None:
        """Have it stopped; one that has ended stays as it is."""
        if mix.under_way:
            fact = RenderCancelled(job=mix.job, session=mix.session, unix_ns=time.time_ns(), by="api")
            await publish_render_fact(self._bus, fact)

    async def changed(self, since: int, *, timeout_s: float) -> None:
        """Return when any of them has gone on since there were so many `changes`, or after `timeout_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self.changes != since)

    def forget(self, session: str) -> None:
        """It was erased."""
        self._mixes = {job: mix for job, mix in self._mixes.items() if mix.session != session}

    async def close(self) -> None:
        """Follow nothing any more; the jobs go on."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

    def _keep(self, mix: Mix) -> None:
        done = [job for job, other in self._mixes.items() if not other.under_way]
        for job in done[: max(0, len(self._mixes) + 1 - KEPT)]:
            del self._mixes[job]
        self._mixes[mix.job] = mix

    async def _follow(self, mix: Mix) -> None:
        try:
            async with (
                asyncio.timeout(FOLLOWED_S),
                contextlib.aclosing(watch_render(self._bus, mix.session, mix.job)) as facts,
            ):
                async for fact in facts:
                    _take(mix, fact)
                    await self._tell()
        except (RetoldError, TimeoutError, OSError) as error:
            log.warning("mix_not_followed", session=mix.session, job=mix.job, why=str(error))
        if mix.under_way:
            mix.state, mix.reason = "failed", "nobody told how it went on"
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self.changes += 1
            self._changed.notify_all()


def _take(mix: Mix, fact: AnyRenderFact) -> None:
    match fact:
        case RenderProgressed():
            mix.state, mix.fraction, mix.eta_s = "running", fact.fraction, fact.eta_s
        case RenderStored():
            mix.state, mix.fraction, mix.eta_s = "stored", 1.0, None
            mix.files = tuple(artifact.name for artifact in fact.artifacts)
        case RenderCancelled():
            mix.state = "cancelled"
        case RenderFailed(retrying=True):
            mix.state = "queued"
        case RenderFailed():
            mix.state, mix.reason = "failed", fact.reason
