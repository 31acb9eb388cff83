"""The default recipes of every session that ends, whoever was up when it ended.

No state of its own: the directory says which sessions have ended, the store which files they have; what is missing is
submitted, at start-up, whenever an entry is written, and now and then. A job's id follows from session and recipe, so
what several mixers submit at once is one job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

import structlog

from contracts.artifacts import RenderJob, job_id
from contracts.directory import SessionEntry
from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.directory import list_entries, watch_entries
from contracts.jetstream.jobs import submit_job
from contracts.jetstream.leases import following, is_leased
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.replay import last_sequence
from contracts.recipes import DEFAULT_RECIPES, FOLLOWED, Recipe

log = structlog.get_logger()

SWEEP_S: Final = 60.0  # an entry written while the connection was away is noticed by then
FOLLOWED_S: Final = 1.0
FIRST_S: Final = 20.0  # so long the files of a follower go before all others
REQUESTED_BY: Final = "auto"
_RENDERED: Final = tuple(recipe for recipe in DEFAULT_RECIPES if recipe not in FOLLOWED)


class _Ending:
    """A session that ended a while ago: what is to be rendered of it, besides what a follower makes."""

    def __init__(self, recipes: list[Recipe]) -> None:
        self.recipes = recipes
        self._until_s = time.monotonic() + FIRST_S

    def may_begin(self, *, followed: bool) -> bool:
        """Whether renders would no longer be in a follower's way, who has what people wait for."""
        return bool(self.recipes) and (not followed or time.monotonic() >= self._until_s)


class AutoRender:
    """Submits what is missing; every session is looked at once, unless it changes."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen: dict[str, int] = {}  # when the session had ended, as the directory said
        self._ending: dict[str, _Ending] = {}  # while somebody may still be at their default mix
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        await watch_entries(self._bus, self._notice)
        while True:
            self._changed.clear()
            try:
                await self._sweep()
            except RetoldError as error:
                log.warning("auto_render_failed", reason=str(error))
            await self._wait()

    async def _notice(self, entry: SessionEntry) -> None:
        if entry.ended_unix_ns is not None:
            self._changed.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(FOLLOWED_S if self._ending else SWEEP_S):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _sweep(self) -> None:
        for entry in await list_entries(self._bus):
            if entry.ended_unix_ns is not None and self._seen.get(entry.session) != entry.ended_unix_ns:
                asked = [] if entry.mix is None else [entry.mix.canonical()]
                self._ending[entry.session] = _Ending([*_RENDERED, *asked])
                self._seen[entry.session] = entry.ended_unix_ns
        for session, ending in sorted(self._ending.items()):
            followed = await is_leased(self._bus, following(session))
            if ending.may_begin(followed=followed):
                await self._submit_missing(session, ending.recipes)
                ending.recipes = []
            if not followed:  # whoever follows it is about to store these; if not, its lease ends
                await self._submit_missing(session, FOLLOWED)
                del self._ending[session]

    async def _submit_missing(self, session: str, recipes: Iterable[Recipe]) -> None:
        try:
            log_end = await last_sequence(self._bus, session)  # what was made of a part of the log does not count
        except SessionNotFoundError:
            return
        artifacts = [stored.artifact for stored in await list_artifacts(self._bus, session)]
        made = [artifact.recipe for artifact in artifacts if artifact.log_end == log_end]
        for recipe in recipes:
            if recipe not in made:
                job = RenderJob(id=job_id(session, recipe), session=session, recipe=recipe, requested_by=REQUESTED_BY)
                await submit_job(self._bus, job)
                log.info("auto_render_submitted", session=session, output=recipe.output, format=recipe.format)
