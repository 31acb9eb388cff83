"""The keeper: the one process that lets sessions go, moves them to the archive, and brings them back.

It alone needs the right to delete streams of its own accord, and the keys of S3. Of several one holds the lease
`keeper` and works; another takes over when it is gone. It has no state: every look begins at the directory, so whatever
one that died left half-done, the next one finishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import msgspec
import structlog

from contracts.directory import Keeping, SessionEntry
from contracts.errors import RetoldError
from contracts.health import keep_beating
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import (
    bury_if,
    change_keeping,
    read_directory,
    watch_deletions,
    watch_entries,
    watch_erasures,
)
from contracts.jetstream.guilds import list_guilds
from contracts.jetstream.keeping import withdraw
from contracts.jetstream.leases import Lease, LeaseHeldError, holding
from contracts.jetstream.server import Server
from contracts.jetstream.sizes import session_bytes
from contracts.jetstream.streams import ensure_shared
from contracts.keeping import ARCHIVE_AWAY, KEEPER
from contracts.metrics import declared
from contracts.metrics.endpoint import serving
from contracts.metrics.figures import Figures, Reading, connection_readings
from contracts.settings import Settings
from contracts.tasks import end_tasks
from ops.archive import archive_session, tidy_archive
from ops.erasure import erase_everywhere, finish_erasures, prune_all
from ops.fetching import Fetches
from ops.retention import (
    NS,
    Archive,
    Delete,
    Erase,
    Held,
    Policy,
    Spare,
    Step,
    Warn,
    judge,
    next_moment_ns,
    read_policy,
)
from ops.scrub import Scrub
from ops.vault.place import PlaceError
from ops.vault.registry import fetching_folder, open_archive

log = structlog.get_logger()

SWEEP_S: Final = 60.0
SETTLE_S: Final = 0.2  # entries are written several at a time
TAKE_OVER_S: Final = 3.0
SHOW_S: Final = 0.5
STEPS: Final = ("warn", "spare", "delete", "erase", "archive")
TIDY_S: Final = 3600.0  # backups and archive are looked through, whatever was heard


async def run(settings: Settings, *, stop: asyncio.Event) -> None:
    """Keep until `stop` is set.

    Raises
    ------
    UnavailableError
        If there is no NATS.
    SettingsError
        If what the settings say of S3 cannot be.
    """
    open_archive(settings)
    bus = await connect(Server.of(settings, "keeper"), name="keeper")
    try:
        await ensure_shared(bus)
        beating = asyncio.create_task(keep_beating(settings.data, "keeper", lambda: bus.connected))
        keeper = Keeper(bus, settings)
        figures = Figures()
        figures.read(connection_readings(bus, {"data": settings.data}))
        figures.read(keeper.readings)
        keeping = asyncio.create_task(serving(figures, settings, keeper.run()))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = keeping.done()
            await end_tasks(beating, stopping, *(() if ended else (keeping,)))
        if ended:
            keeping.result()
    finally:
        await bus.close()


class Keeper:
    """Looks at every session now and then, and whenever an entry is written.

    Parameters
    ----------
    now_ns
        The clock, Unix nanoseconds.
    """

    def __init__(self, bus: Bus, settings: Settings, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._bus = bus
        self._settings = settings
        self._now_ns = now_ns
        self._archive = open_archive(settings)
        self._fetches = Fetches(bus, self._archive, lambda: self._archive_is(away=True))
        self._look = asyncio.Event()
        self._tidied_s: float | None = None
        self._next_ns: int | None = None
        self.sweeps = 0
        self.archive_away = False
        self._steps = Counter[str]()
        self._archive_failures = 0
        self._scrub = Scrub(bus)

    def readings(self) -> Iterator[Reading]:
        """What it did so far."""
        for step in STEPS:
            yield Reading(declared.KEEPER_STEPS, self._steps[step], (step,))
        yield Reading(declared.ARCHIVE_FAILURES, self._archive_failures)
        yield Reading(declared.SESSIONS_DAMAGED, self._scrub.damaged)

    async def run(self) -> None:
        """Keep whenever nobody else does, until cancelled."""
        await watch_entries(self._bus, self._notice)
        await watch_deletions(self._bus, self._notice)
        await watch_erasures(self._bus, self._tidy_soon)
        self._bus.on_reconnect.add(self._look.set)
        owner = f"keeper-{new_id()}"
        while True:
            try:
                async with holding(self._bus, KEEPER, owner) as lease:
                    log.info("keeper_keeps", owner=owner)
                    await self._keep(lease)
            except LeaseHeldError:
                pass
            except RetoldError as error:
                log.warning("keeper_waits", reason=str(error))
            await asyncio.sleep(TAKE_OVER_S)

    async def _notice(self, entry: SessionEntry) -> None:
        if entry.forgotten:
            await self._tidy_soon(entry.session)
        self._look.set()

    async def _tidy_soon(self, _session: str) -> None:
        """A session was erased, or somebody was taken out of it, by whomever: archive and backups follow."""
        self._tidied_s = None
        self._look.set()

    async def _keep(self, lease: Lease) -> None:
        """Sweep as long as the lease is ours."""
        await asyncio.to_thread(shutil.rmtree, fetching_folder(self._settings), ignore_errors=True)
        self._tidied_s = None
        async with self._fetches.serving(), self._showing():
            while lease.held:
                self._look.clear()
                try:
                    await self.sweep(lease)
                except RetoldError as error:
                    log.warning("sweep_failed", reason=str(error))
                await self._wait(lease)
        log.warning("keeper_lost_its_lease")

    @contextlib.asynccontextmanager
    async def _showing(self) -> AsyncIterator[None]:
        """Show meanwhile whether the archive is away, to whoever watches the leases."""
        showing = asyncio.create_task(self._show())
        try:
            yield
        finally:
            await end_tasks(showing)

    async def _show(self) -> None:
        owner = f"archive-{new_id()}"
        while True:
            with contextlib.suppress(RetoldError):
                if self.archive_away:
                    async with holding(self._bus, ARCHIVE_AWAY, owner):
                        while self.archive_away:  # noqa: ASYNC110  # half a second late is early
                            await asyncio.sleep(SHOW_S)
            await asyncio.sleep(SHOW_S)

    def _archive_is(self, *, away: bool) -> None:
        self.archive_away = away
        if away:
            self._tidied_s = None  # the next look tries again

    async def _wait(self, lease: Lease) -> None:
        until_next_s = SWEEP_S if self._next_ns is None else (self._next_ns - self._now_ns()) / NS
        deadline_s = time.monotonic() + min(SWEEP_S, max(until_next_s, SETTLE_S))
        while lease.held and time.monotonic() < deadline_s:
            try:
                async with asyncio.timeout(min(1.0, deadline_s - time.monotonic())):
                    await self._look.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SETTLE_S)
            return

    async def sweep(self, lease: Lease) -> list[Step]:
        """Look at every session once, and do what has to be done; what was done."""
        entries, erased = await read_directory(self._bus)
        await finish_erasures(self._bus, erased)
        sizes = await session_bytes(self._bus) if self._settings.quota_gb else Counter[str]()
        guilds = {guild.guild_id: guild.keep_days for guild in await list_guilds(self._bus)}
        policy = read_policy(self._settings, guilds)
        held = [Held(entry, sizes[entry.session]) for entry in entries]
        self._next_ns = next_moment_ns(held, policy)
        steps = judge(held, policy, self._now_ns())
        if lease.held:
            await self._tidy({entry.session: entry for entry in entries}, erased)
        done = await self._do_all(steps, policy, lease)
        if lease.held:
            await self._scrub.step(entries, now_ns=self._now_ns())
        self.sweeps += 1
        return done

    async def _do_all(self, steps: list[Step], policy: Policy, lease: Lease) -> list[Step]:
        """What was done; moving to the archive takes its time: it comes last, and waits when something else comes."""
        done: list[Step] = []
        archive_away = False
        for step in sorted(steps, key=lambda step: isinstance(step, Archive)):
            late = isinstance(step, Archive) and (archive_away or self._look.is_set())
            if not lease.held or late:
                continue
            try:
                await self._do(step, policy)
                done.append(step)
                self._steps[type(step).__name__.lower()] += 1
            except LeaseHeldError:  # somebody works on it just now: later
                continue
            except PlaceError as error:
                archive_away = True
                self._archive_is(away=True)
                self._archive_failures += 1
                log.error("archive_unavailable", session=step.session, reason=str(error))  # noqa: TRY400  # an alarm
            except RetoldError as error:
                log.warning("session_not_kept", session=step.session, step=type(step).__name__, reason=str(error))
        return done

    async def _do(self, step: Step, policy: Policy) -> None:
        match step:
            case Warn():
                await change_keeping(self._bus, step.session, lambda old: _going(old, step))
                log.warning("session_going", session=step.session, why=step.why, going_unix_ns=step.going_unix_ns)
            case Spare():
                await change_keeping(self._bus, step.session, _spared)
            case Delete():
                if policy.grace_s > 0:
                    await withdraw(self._bus, step.session, by=step.why, grace_s=policy.grace_s)
                else:
                    await self._erase(step.session)
                log.warning("session_deleted", session=step.session, by=step.why)
            case Erase():
                if await self._bury(step.session, policy):
                    await self._erase(step.session)
            case Archive():
                if self._archive is not None:
                    await archive_session(self._bus, self._archive, step.session)

    async def _bury(self, session: str, policy: Policy) -> bool:
        """Mark it as erased, unless somebody has brought it back."""
        now_ns = self._now_ns()

        def is_over(entry: SessionEntry) -> bool:
            deleted_ns = entry.keeping.deleted_unix_ns
            return deleted_ns is not None and now_ns - deleted_ns >= policy.grace_s * NS

        return await bury_if(self._bus, session, is_over)

    async def _erase(self, session: str) -> None:
        reached = await erase_everywhere(self._bus, session, self._settings)
        log.info("session_erased", session=session, erased=reached.erased, left=reached.left)

    async def _tidy(self, entries: dict[str, SessionEntry], erased: set[str]) -> None:
        """What archive and backups should not hold goes: after an erasure that could not reach them, or a death."""
        if self._tidied_s is not None and time.monotonic() - self._tidied_s < TIDY_S:
            return
        self._tidied_s = time.monotonic()
        try:
            if self._archive is not None:
                await tidy_archive(self._bus, self._archive, entries, erased)
                self._archive_is(away=False)
            await prune_all(self._bus, self._settings, entries, erased)
        except PlaceError as error:
            self._archive_is(away=True)
            self._tidied_s = None
            self._archive_failures += 1
            log.error("archive_unavailable", reason=str(error))  # noqa: TRY400  # an alarm


def _going(keeping: Keeping, step: Warn) -> Keeping:
    return msgspec.structs.replace(keeping, going_unix_ns=step.going_unix_ns, going_why=step.why, told=False)


def _spared(keeping: Keeping) -> Keeping:
    return msgspec.structs.replace(keeping, going_unix_ns=None, going_why="", told=False)
