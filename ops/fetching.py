"""Bringing sessions back from the archive, for whoever asks: the mixer, the gateway, the command line."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import structlog

from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import look_up
from contracts.jetstream.streams import session_exists
from contracts.keeping import FETCH, Fetching, decode_fetch
from contracts.tasks import end_tasks
from ops.archive import fetch_session
from ops.vault.place import PlaceError
from ops.vault.vault import Vault

log = structlog.get_logger()

AT_ONCE: Final = 2
RETRY_S: Final = 5.0
NO_ARCHIVE: Final = "the keeper has no archive: set RETOLD_S3_BUCKET for it"


class _Fetch:
    """One session on its way; `reason` says why it did not come, if it did not."""

    def __init__(self) -> None:
        self.fraction = 0.0
        self.reason = ""
        self.failed_s = 0.0
        self.task: asyncio.Task[None] | None = None


class Fetches:
    """Sessions that are being brought back.

    Parameters
    ----------
    archive
        None: there is none, and whoever asks is told so.
    away
        Called when it could not be reached.
    """

    def __init__(self, bus: Bus, archive: Vault | None, away: Callable[[], None]) -> None:
        self._away = away
        self._bus = bus
        self._archive = archive
        self._fetches: dict[str, _Fetch] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer meanwhile; what is under way at the end is begun anew by whoever keeps next."""
        stop = await self._bus.serve(FETCH, self._answer)
        try:
            yield
        finally:
            with contextlib.suppress(RetoldError):
                await stop()
            await end_tasks(*(fetch.task for fetch in self._fetches.values()))
            self._fetches.clear()

    async def _answer(self, data: bytes) -> bytes:
        try:
            return msgspec.json.encode(await self.look(decode_fetch(data).session))
        except RetoldError as error:
            return msgspec.json.encode(Fetching(state="waiting", reason=str(error)))

    async def look(self, session: str) -> Fetching:
        """How it goes; it is begun if it is not under way."""
        entry, erased = await look_up(self._bus, session)
        if erased or entry is None or entry.keeping.archived is None:  # a deleted one may be wanted: to forget somebody
            exists = not erased and await session_exists(self._bus, session)
            return Fetching(state="here" if exists else "gone", fraction=1.0)
        if self._archive is None:
            return Fetching(state="waiting", reason=NO_ARCHIVE)
        fetch = self._fetches.setdefault(session, _Fetch())
        if fetch.task is None and time.monotonic() - fetch.failed_s >= RETRY_S:
            fetch.task = asyncio.create_task(self._fetch(self._archive, session, fetch))
        if fetch.task is None:
            return Fetching(state="waiting", reason=fetch.reason)
        return Fetching(state="fetching", fraction=fetch.fraction, reason=fetch.reason)

    async def _fetch(self, archive: Vault, session: str, fetch: _Fetch) -> None:
        def tell(done: float) -> None:
            fetch.fraction = done

        try:
            async with self._places:
                await fetch_session(self._bus, archive, session, progress=tell)
            self._fetches.pop(session, None)
        except RetoldError as error:
            if isinstance(error, PlaceError):
                self._away()
            fetch.reason, fetch.failed_s = str(error), time.monotonic()
            log.error("session_not_fetched", session=session, reason=str(error))  # noqa: TRY400  # an alarm
        finally:
            fetch.task, fetch.fraction = None, 0.0
