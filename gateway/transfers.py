"""What is being sent just now, and the ends that cut it: a link withdrawn, a key retired, a session erased.

A link is checked when a request comes; a long download would outlive it. So every response that takes time is kept
here with what it was allowed by, and is cut as soon as that ends. The bus tells of it at once; after an outage of the
bus, when something may have been missed, everything is checked anew. What ended between the check of a link and the
beginning of its transfer is remembered, so that it does not slip through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from contracts.directory import SessionEntry
from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import watch_deletions, watch_entries, watch_erasures
from contracts.jetstream.keeping import standing
from contracts.jetstream.revoked import is_revoked, watch_revocations
from contracts.keys import PublicKeys
from gateway import problems
from gateway.problems import ProblemError

log = structlog.get_logger()

KEYS_EVERY_S: Final = 0.5
ENDED_KEPT: Final = 4096  # ids of links and sessions: what was allowed a moment before they ended has long begun


class Transfer:
    """A response that takes time.

    Attributes
    ----------
    was_cut
        Whether it was ended from here: the cancellation that its task sees is then ours.
    """

    def __init__(self, *, jti: str, kid: str, session: str, endless: bool) -> None:
        self.jti, self.kid, self.session, self.endless = jti, kid, session, endless
        self.was_cut = False
        self._task = asyncio.current_task()

    def cut(self) -> None:
        """End it now."""
        self.was_cut = True
        if self._task is not None:
            self._task.cancel()


class Transfers:
    """Every response under way, and what follows when a link, a key or a session ends.

    Parameters
    ----------
    bus
        The control connection.
    keys
        The public keys as they are now.
    """

    def __init__(self, bus: Bus, keys: Callable[[], PublicKeys]) -> None:
        self._bus = bus
        self._keys = keys
        self._running: set[Transfer] = set()
        self._missed = asyncio.Event()
        self.on_revoked: list[Callable[[str], None]] = []  # what else has to let go of a link, by its id
        self.on_retired: list[Callable[[str], None]] = []  # ... of a key
        self.on_closed: list[Callable[[str], None]] = []  # ... of a session: it is deleted, and may be brought back
        self.on_erased: list[Callable[[str], None]] = []  # ... of a session, for good
        self.on_changed: list[Callable[[str], None]] = []  # somebody joined, it ended, or somebody was taken out of it
        self.on_missed: list[Callable[[], None]] = []  # any of these may have happened unheard
        self._ended: OrderedDict[str, None] = OrderedDict()  # links and sessions, by id
        self._known: set[str] = set()  # keys that were there when we looked last

    def __len__(self) -> int:
        return len(self._running)

    @contextlib.contextmanager
    def running(self, *, jti: str, kid: str, session: str, endless: bool = False) -> Iterator[None]:
        """Keep the current task as a transfer; if it is cut, the block simply ends, wherever it is.

        Parameters
        ----------
        endless
            It has no end of its own, so it is not waited for when the gateway stops.

        Raises
        ------
        ProblemError
            If what allowed it has ended meanwhile.
        """
        self.check(jti=jti, session=session)
        transfer = Transfer(jti=jti, kid=kid, session=session, endless=endless)
        self._running.add(transfer)
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not transfer.was_cut or task is None:
                raise
            task.uncancel()
            log.info("transfer_cut", session=session, jti=jti)
        finally:
            self._running.discard(transfer)

    def check(self, *, jti: str, session: str) -> None:
        """ProblemError if the link was withdrawn, or the session erased, since the request was let in."""
        if jti in self._ended:
            raise ProblemError(problems.LINK_REVOKED)
        if session in self._ended:
            raise ProblemError(problems.SESSION_GONE)

    def stop_endless(self) -> None:
        """End what has no end: the gateway stops, and whoever listens comes back to the next one."""
        self._cut(lambda transfer: transfer.endless)

    async def watch(self) -> None:
        """Cut what has lost its permission, until cancelled."""
        await watch_revocations(self._bus, self._revoked)
        await watch_erasures(self._bus, self._erased)
        await watch_deletions(self._bus, self._deleted)
        await watch_entries(self._bus, self._changed)
        self._bus.on_reconnect.add(self._missed.set)
        while True:
            self._look_at_keys()
            if self._missed.is_set():
                await self._check_all()
            await asyncio.sleep(KEYS_EVERY_S)

    def _look_at_keys(self) -> None:
        known = set(self._keys())
        for kid in self._known - known:
            for let_go in self.on_retired:
                let_go(kid)
        self._known = known
        self._cut(lambda transfer: transfer.kid not in known)

    async def _revoked(self, jti: str) -> None:
        self._remember(jti)
        self._cut(lambda transfer: transfer.jti == jti)
        for let_go in self.on_revoked:
            let_go(jti)

    async def _erased(self, session: str) -> None:
        self._close(session)
        for let_go in self.on_erased:
            let_go(session)

    async def _deleted(self, entry: SessionEntry) -> None:
        self._close(entry.session)

    def _close(self, session: str) -> None:
        self._remember(session)
        self._cut(lambda transfer: transfer.session == session)
        for let_go in self.on_closed:
            let_go(session)

    async def _changed(self, entry: SessionEntry) -> None:
        self._ended.pop(entry.session, None)  # it was brought back
        for let_go in self.on_changed:
            let_go(entry.session)

    def _remember(self, ended: str) -> None:
        self._ended[ended] = None
        while len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def _cut(self, ended: Callable[[Transfer], bool]) -> None:
        for transfer in [transfer for transfer in self._running if ended(transfer)]:
            transfer.cut()

    async def _check_all(self) -> None:
        """After an outage; if it fails, the next round tries again."""
        self._missed.clear()
        for let_go in self.on_missed:
            let_go()
        try:
            for jti in {transfer.jti for transfer in self._running}:
                if await is_revoked(self._bus, jti):
                    await self._revoked(jti)
            for session in {transfer.session for transfer in self._running}:
                match await standing(self._bus, session):
                    case "deleted":
                        self._close(session)
                    case "gone":
                        await self._erased(session)
        except RetoldError as error:
            log.warning("transfers_unchecked", why=str(error))
            self._missed.set()
