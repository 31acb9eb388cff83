"""Running sessions followed: their logs go into a process each, their sound to listeners, their files into the store.

At most so many at a time as the settings say; the rest are rendered when they have ended. A lease keeps two mixers from
following one session. What a follower did lies in its folder under RETOLD_DATA: if its process or its mixer dies, the
next goes on from there, and if the folder is gone, from the beginning. Nothing depends on it: whatever a follower did
not finish is rendered by a job, to the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

import msgspec
import structlog

from contracts.artifacts import RenderStored, job_id
from contracts.consented import Consented
from contracts.directory import SessionEntry
from contracts.errors import MalformedError, RetoldError, UnavailableError
from contracts.events import SessionEnded, decode_fact
from contracts.ids import new_id
from contracts.jetstream.connection import MESSAGE_ID_HEADER, Bus, SessionNotFoundError
from contracts.jetstream.directory import list_entries, watch_entries
from contracts.jetstream.follow import FollowConsumer
from contracts.jetstream.jobs import publish_render_fact
from contracts.jetstream.leases import Lease, LeaseHeldError, following, take_lease
from contracts.jetstream.objects import remove_artifact
from contracts.jetstream.pull import LogMessage
from contracts.jetstream.replay import log_birth, replay
from contracts.jetstream.streams import session_exists
from contracts.recipes import FOLLOWED_MIX, Recipe
from contracts.subjects import facts, live
from mixer.errors import RenderProcessError, RequestError
from mixer.follow_process import (
    LENGTH,
    Failed,
    FollowAssignment,
    Frames,
    Given,
    Grown,
    Reached,
    Refused,
    Resumed,
    Told,
    frame,
)
from mixer.making import Engine
from mixer.rendered import Order
from mixer.store import store_files

log = structlog.get_logger()

FOLDER: Final = "follow"
BIRTH: Final = "birth"  # of the log that a folder is about
SWEEP_S: Final = 10.0
RENEW_S: Final = 3.0  # a lease lasts ten
LIVE_PENDING: Final = 64  # messages from the head: what is further behind is no news to a listener
RETRY_S: Final = 5.0
_told: Final[msgspec.msgpack.Decoder[Told]] = msgspec.msgpack.Decoder(Told)


class Followers:
    """Follows running sessions, up to `most` at a time."""

    def __init__(self, bus: Bus, engine: Engine, data: Path, *, most: int) -> None:
        self._bus, self._engine, self._most = bus, engine, most
        self._folder = data / FOLDER
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many are followed now."""
        return len(self._tasks)

    async def run(self) -> None:
        """Watch until cancelled; then every process ends, and its folder stays."""
        await watch_entries(self._bus, self._notice)
        try:
            while True:
                self._changed.clear()
                try:
                    await self._sweep()
                except RetoldError as error:
                    log.warning("follow_sweep_failed", reason=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_S):
                        await self._changed.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _notice(self, _entry: SessionEntry) -> None:
        self._changed.set()

    async def _sweep(self) -> None:
        entries = {entry.session: entry for entry in await list_entries(self._bus)}
        for session in self._left_behind():
            if session not in entries and not await session_exists(self._bus, session):
                shutil.rmtree(self._folder / session, ignore_errors=True)
        left = self._left_behind()
        for session, entry in entries.items():
            wanted = entry.ended_unix_ns is None or session in left
            if wanted and session not in self._tasks and len(self._tasks) < self._most:
                task = asyncio.create_task(self._follow(session))
                self._tasks[session] = task
                task.add_done_callback(lambda _, session=session: self._forget(session))  # type: ignore[misc]  # a default

    def _left_behind(self) -> set[str]:
        """Sessions of which a follower left something."""
        return {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()

    def _forget(self, session: str) -> None:
        self._tasks.pop(session, None)
        self._changed.set()

    async def _follow(self, session: str) -> None:
        follower = Follower(self._bus, self._engine, self._folder / session, session)
        with structlog.contextvars.bound_contextvars(session=session):
            try:
                await follower.run()
            except LeaseHeldError:
                await asyncio.sleep(RETRY_S)  # another mixer follows it
            except SessionNotFoundError:
                shutil.rmtree(self._folder / session, ignore_errors=True)
                log.info("follow_session_gone")
            except RequestError as error:
                shutil.rmtree(self._folder / session, ignore_errors=True)
                log.info("follow_refused", reason=str(error))
            except (RetoldError, OSError) as error:
                log.warning("follow_failed", reason=str(error) or type(error).__name__)
                await asyncio.sleep(RETRY_S)


class Follower:
    """One session, followed to its end.

    Parameters
    ----------
    folder
        Where its process keeps what it did.
    """

    def __init__(self, bus: Bus, engine: Engine, folder: Path, session: str) -> None:
        self._bus, self._engine, self._folder, self._session = bus, engine, folder, session
        self._pending = 0  # messages behind the one that was given last
        self._consented = Consented()

    async def run(self) -> None:
        """Follow until the session has ended and its files are stored.

        Raises
        ------
        LeaseHeldError
            If another mixer follows it.
        SessionNotFoundError
            If it was deleted.
        RequestError
            If it has no such files.
        RenderProcessError
            If its process died.
        """
        lease = await take_lease(self._bus, following(self._session), new_id())
        renewing = asyncio.create_task(_renew(lease))
        working = asyncio.create_task(self._work())
        try:
            await asyncio.wait({renewing, working}, return_when=asyncio.FIRST_COMPLETED)
            if renewing.done():
                renewing.result()
            await working
        finally:
            for task in (renewing, working):
                task.cancel()
            await asyncio.gather(renewing, working, return_exceptions=True)
            with contextlib.suppress(LeaseHeldError, UnavailableError):
                await lease.release()

    async def _work(self) -> None:
        birth = await log_birth(self._bus, self._session)
        self._keep_only(birth)
        process = await _start()
        try:
            await self._converse(process, birth)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _keep_only(self, birth: str) -> None:
        """What was done for another log of this session, before somebody was taken out of it, is nobody's."""
        told = self._folder / BIRTH
        if self._folder.exists() and (not told.exists() or told.read_text("utf-8") != birth):
            shutil.rmtree(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        told.write_text(birth, "utf-8")

    async def _converse(self, process: Process, birth: str) -> None:
        if process.stdin is None:
            raise RenderProcessError("the following process has no pipes")
        assignment = FollowAssignment(folder=str(self._folder), order=self._order(FOLLOWED_MIX, 0))
        process.stdin.write(msgspec.json.encode(assignment) + b"\n")
        resumed = await _read(process)
        if not isinstance(resumed, Resumed):
            raise RenderProcessError(f"the following process began with {resumed}")
        log.info("follow_began", after=resumed.sequence)
        if resumed.sequence:
            early = replay(self._bus, self._session, last=resumed.sequence, filter_subject=facts(self._session))
            async for message in early:
                self._learn(message)
        async with FollowConsumer(self._bus, self._session, first=resumed.sequence + 1) as consumer:
            feeding = asyncio.create_task(self._feed(process, consumer))
            hearing = asyncio.create_task(self._hear(process, consumer, birth))
            try:
                await asyncio.wait({feeding, hearing}, return_when=asyncio.FIRST_EXCEPTION)
                if feeding.done():
                    feeding.result()
                await hearing
            finally:
                for task in (feeding, hearing):
                    task.cancel()
                await asyncio.gather(feeding, hearing, return_exceptions=True)
            await consumer.delete()

    async def _feed(self, process: Process, consumer: FollowConsumer) -> None:
        """The log into the process, until the session has ended and nothing is behind it."""
        if process.stdin is None:
            raise RenderProcessError("the following process has no pipes")
        ended = False
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended; `_hear` knows why
            async with contextlib.aclosing(consumer.messages()) as messages:
                async for message in messages:
                    ended = self._learn(message) or ended
                    data = self._consented.message(message.subject, message.data)
                    if data is not None:
                        process.stdin.write(frame(Given(message.sequence, message.subject, data)))
                        await process.stdin.drain()
                    self._pending = message.pending
                    if ended and not message.pending:
                        process.stdin.write(frame(Given(0)))
                        return

    def _learn(self, message: LogMessage) -> bool:
        """Take in what a message tells of consent; whether it is the session's end."""
        if message.subject != facts(self._session):
            return False
        try:
            fact = decode_fact(message.data)
        except MalformedError:
            return False
        self._consented.apply(fact)
        return isinstance(fact, SessionEnded)

    async def _hear(self, process: Process, consumer: FollowConsumer, birth: str) -> None:
        while True:
            match await _read(process):
                case Reached(sequence):
                    await consumer.ack(sequence)
                case Frames(number, data):
                    await self._publish(number, data)
                case Grown() as grown:
                    await self._keep(grown, birth)
                    if not grown.more:
                        return
                case Refused(reason):
                    raise RequestError(reason)
                case Failed(reason):
                    raise RenderProcessError(reason)

    async def _publish(self, number: int, data: bytes) -> None:
        """Frames to whoever listens; nobody waits for them, and what is old is no news."""
        if self._pending <= LIVE_PENDING and self._bus.connected:
            headers = {MESSAGE_ID_HEADER: f"{self._session}.{number}"}
            await self._bus.client.publish(live(self._session), data, headers=headers)

    async def _keep(self, grown: Grown, birth: str) -> None:
        if self._consented.everybody:
            await self._store(grown, birth)
        elif not grown.more:
            # who refused, and when, is known for certain only now: a render hears the log again, with all of it
            log.info("follow_left_to_render")

    async def _store(self, grown: Grown, birth: str) -> None:
        started = time.monotonic()
        artifacts = await store_files(self._bus, grown.files, self._order(grown.recipe, grown.log_end))
        if await log_birth(self._bus, self._session) != birth:
            for artifact in artifacts:
                await remove_artifact(self._bus, self._session, artifact.name)
            return
        await publish_render_fact(
            self._bus,
            RenderStored(
                job=job_id(self._session, grown.recipe),
                session=self._session,
                unix_ns=time.time_ns(),
                artifacts=tuple(artifacts),
            ),
        )
        elapsed_s = round(time.monotonic() - started, 3)
        log.info("follow_stored", output=grown.recipe.output, files=len(artifacts), elapsed_s=elapsed_s)

    def _order(self, recipe: Recipe, log_end: int) -> Order:
        return Order(
            session=self._session,
            recipe=recipe,
            log_end=log_end,
            engine=self._engine.name,
            ffmpeg=self._engine.ffmpeg,
        )


async def _renew(lease: Lease) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        with contextlib.suppress(UnavailableError):  # what another did meanwhile, the next time tells
            await lease.renew()


async def _start() -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mixer.follow_process"),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


async def _read(process: Process) -> Told:
    if process.stdout is None:
        raise RenderProcessError("the following process has no pipes")
    try:
        length = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))[0]
        return _told.decode(await process.stdout.readexactly(length))
    except asyncio.IncompleteReadError as error:
        raise RenderProcessError(f"the following process ended with {await process.wait()}") from error
