"""Which shards this capture has. Each shard has a lease; who holds it serves the shard's servers, alone.

Captures show that they live by a lease of their own, and so each knows how many shards are its share. What nobody
holds is taken by whoever has less than its share: at the start, and when a capture died. Who has more gives up a shard
in which nothing is recorded.

Everybody hears every renewal. Who could not renew its own leases lately takes none of others': they could not either,
and live.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from typing import Final

import structlog

from capture.home import Home
from capture.resume import settle_left
from capture.shard import Shard
from contracts.commands import Status
from contracts.errors import RetoldError, UnavailableError
from contracts.jetstream.connection import Bus
from contracts.jetstream.leases import Lease, LeaseHeldError, renewals, take_lease
from contracts.settings import Settings
from contracts.streams import LEASE_S

log = structlog.get_logger()

PRESENCE: Final = "capture."
LOOK_S: Final = 0.25
RENEW_S: Final = 1.5  # of a lease of LEASE_S
TRY_S: Final = 0.25  # between two tries at one shard: the server lets a lease go up to 0.3 s late
SETTLE_S: Final = 30.0  # between two looks at spools of sessions that went on elsewhere


class Shards:
    """The shards of one capture process."""

    def __init__(self, bus: Bus, settings: Settings, home: Home) -> None:
        self._bus = bus
        self._settings = settings
        self._home = home
        self._mine: dict[int, Shard] = {}
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._seen_s: dict[str, float] = {}  # when a lease of somebody else was renewed last
        self._tried_s: dict[int, float] = {}
        self._troubled_s = float("-inf")
        name = hashlib.sha256(home.owner.encode()).hexdigest()[:16]
        self._presence_key = f"{PRESENCE}{name}-{settings.shards}"
        self._presence: Lease | None = None
        self._closing = self._looked = self._differing = False

    @property
    def is_well(self) -> bool:
        """Whether everything that is here works; a capture that waits for its turn is well."""
        return (
            self._bus.connected
            and self._looked
            and not self._differing
            and all(shard.is_well for shard in self._mine.values())
        )

    def present(self) -> Status:
        """How everything goes here just now."""
        every = [shard.control.present() for shard in self._mine.values()]
        return Status(
            ready=all(each.ready for each in every), sessions=tuple(live for each in every for live in each.sessions)
        )

    async def run(self) -> None:
        """Take, keep and give up shards, until `close`.

        Raises
        ------
        RetoldError
            If a shard ended by itself, as that did.
        """
        await renewals(self._bus, self._hear)
        keeping = asyncio.create_task(self._keep())
        settling = asyncio.create_task(self._settle())
        try:
            while True:
                if not self._closing:
                    await self._look()
                await self._wait()
        finally:
            keeping.cancel()
            settling.cancel()
            await asyncio.gather(keeping, settling, return_exceptions=True)

    async def close(self, *, hand_over: bool = False) -> None:
        """End every shard, which others may have at once, and every recording; or leave those to the others, too."""
        self._closing = True
        for shard in self._mine.values():
            (shard.hand_over if hand_over else shard.stop)()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)
        leases = [shard.lease for shard in self._mine.values()] + ([self._presence] if self._presence else [])
        self._mine, self._presence = {}, None
        for lease in leases if self._bus.connected else []:
            with contextlib.suppress(RetoldError):
                await lease.release()

    async def _wait(self) -> None:
        """For the next look, or until a shard ends by itself."""
        done: set[asyncio.Task[None]] = set()
        if self._runs and not self._closing:
            done, _ = await asyncio.wait(self._runs.values(), timeout=LOOK_S)
        else:
            await asyncio.sleep(LOOK_S)
        for number in [number for number, run in self._runs.items() if run in done and not self._closing]:
            run, shard = self._runs.pop(number), self._mine.pop(number)
            run.result()
            with contextlib.suppress(RetoldError):
                await shard.lease.release()

    async def _hear(self, key: str, owner: str) -> None:
        if owner != self._home.owner:
            if owner:
                self._seen_s[key] = time.monotonic()
            else:
                self._seen_s.pop(key, None)

    def _lives(self, key: str) -> bool:
        return time.monotonic() - self._seen_s.get(key, float("-inf")) < LEASE_S

    @property
    def _share(self) -> int:
        """How many shards one capture has, if all have equally many."""
        return -(-self._settings.shards // (1 + len(self._others())))

    def _others(self) -> list[str]:
        """The presence of each other capture that lives."""
        return [key for key in self._seen_s if key.startswith(PRESENCE) and self._lives(key)]

    def _differs(self) -> bool:
        """Whether another capture divides the servers otherwise: then some would be served twice."""
        counts = {int(key.rpartition("-")[2]) for key in self._others()} - {self._settings.shards}
        if counts and not self._differing:
            log.error("shards_differ", ours=self._settings.shards, others=sorted(counts), setting="RETOLD_SHARDS")
        self._differing = bool(counts)
        return self._differing

    async def _look(self) -> None:
        """Take at most one shard, or give up one."""
        if self._presence is None:
            return
        self._looked = True
        if self._differs():
            return
        now_s, share = time.monotonic(), self._share
        if len(self._mine) > share:
            idle = next((shard for shard in self._mine.values() if shard.is_idle), None)
            if idle is not None:
                log.info("shard_given_up", shard=idle.number)
                idle.stop()
            return
        for number in range(self._settings.shards):
            if len(self._mine) >= share:
                return
            if number in self._mine or now_s - self._tried_s.get(number, float("-inf")) < TRY_S:
                continue
            if not self._lives(key_of(number)) and not self._is_troubled(number):
                self._tried_s[number] = now_s
                if await self._take(number):
                    return

    def _is_troubled(self, number: int) -> bool:
        """Whether a lease may be missing only because nobody could renew any."""
        return key_of(number) in self._seen_s and time.monotonic() - self._troubled_s < LEASE_S

    async def _take(self, number: int) -> bool:
        try:
            lease = await take_lease(self._bus, key_of(number), self._home.owner)
        except LeaseHeldError as error:
            self._seen_s.setdefault(key_of(number), time.monotonic() - LEASE_S + TRY_S)
            log.debug("shard_held", shard=number, reason=str(error))
            return False
        except UnavailableError as error:
            self._trouble(error)
            return False
        log.info("shard_taken", shard=number, of=self._settings.shards, after=key_of(number) in self._seen_s)
        shard = self._mine[number] = Shard(self._bus, self._settings, self._home, number, lease)
        self._runs[number] = asyncio.create_task(shard.run(), name=f"shard {number}")
        return True

    async def _keep(self) -> None:
        """Renew what we have."""
        while True:
            try:
                if self._presence is not None:
                    await self._presence.renew()
                elif not self._closing:
                    self._presence = await take_lease(self._bus, self._presence_key, self._home.owner)
            except RetoldError as error:
                self._trouble(error)
            await asyncio.gather(*(self._renew(shard) for shard in tuple(self._mine.values())))
            await asyncio.sleep(RENEW_S)

    async def _renew(self, shard: Shard) -> None:
        try:
            await shard.lease.renew()
        except LeaseHeldError:
            log.error("shard_lost", shard=shard.number)  # noqa: TRY400  # an alarm, no bug
            shard.abandon()
        except UnavailableError as error:
            self._trouble(error)

    def _trouble(self, error: RetoldError) -> None:
        self._troubled_s = time.monotonic()
        log.warning("shards_not_renewed", reason=str(error))

    async def _settle(self) -> None:
        """Look after spools of sessions that another capture went on with."""
        while True:
            if self._looked:
                try:
                    await settle_left(self._bus, self._home, self._is_here)
                except RetoldError as error:
                    log.info("spools_wait", reason=str(error))
            await asyncio.sleep(SETTLE_S if self._looked else LOOK_S)

    def _is_here(self, session: str) -> bool:
        return any(shard.control.has(session) for shard in self._mine.values())


def key_of(number: int) -> str:
    """The lease of a shard."""
    return f"shard.{number}"
