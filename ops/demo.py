"""The demo: the whole path on this machine, without a Discord account.

A loopback Discord whose people speak real recordings; the real bot records them, end-to-end encrypted, into JetStream;
the mixer renders; and the files come back through the installation's own signed links.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
from rich.progress import Progress

from contracts.artifacts import Artifact, job_id
from contracts.commands import StartRecording, Stopped, StopRecording
from contracts.directory import SessionEntry
from contracts.errors import RetoldError, UnavailableError
from contracts.jetstream.asking import ask_status, start_recording, stop_recording
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import get_entry
from contracts.jetstream.lag import stream_lags
from contracts.jetstream.rendering import follow
from contracts.jetstream.server import Server
from contracts.linker import Linker
from contracts.recipes import DEFAULT_RECIPES, Recipe
from contracts.settings import Settings
from contracts.streams import JOBS, RENDER_CONSUMER
from ops.cli.mix import describe
from ops.cli.output import progress_bar
from ops.cli.renders import download
from ops.cli.up import Installation
from ops.loopback.plan import CallPlan
from ops.loopback.server import LoopbackDiscord
from ops.race import beside
from ops.supervisor import Supervisor

GUILD_ID: Final = 100_000_000_000_000_001
CHANNEL_ID: Final = 100_000_000_000_000_002
READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 4.0  # for one service: who interrupts a demo does not wait for its recording
TRIES: Final = 3
NEEDED: Final = ("capture", "mixer", "gateway")
POLL_S: Final = 0.05
DOWNLOAD_TIMEOUT_S: Final = 60.0


class Demo:
    """One demo: `running` starts everything, `perform` makes the call and its files.

    Parameters
    ----------
    settings
        With a data folder and a gateway port of its own.
    environ
        For the services; the loopback's addresses are added.
    plan
        Who says what when.
    dave
        Whether the call is end-to-end encrypted.
    out
        Where the files go; it is there.

    Attributes
    ----------
    delivered
        Whether all is done, and it only goes on serving.
    """

    def __init__(self, *, settings: Settings, environ: dict[str, str], plan: CallPlan, dave: bool, out: Path) -> None:
        self._environ = environ
        self._plan = plan
        self._out = out
        self._discord = LoopbackDiscord(
            plan=plan, guild_id=GUILD_ID, channel_id=CHANNEL_ID, dave=dave, directory=settings.data / "loopback"
        )
        self._timings = Timings()
        self._installation: Installation | None = None
        self.settings = settings
        self.delivered = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Bus]:
        """Everything runs, and is ended on exit.

        Raises
        ------
        SettingsError, UnavailableError
            If something does not come up; with the last words of the service that did not.
        """
        (self.settings.data / "loopback").mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            with self._timings.step("start"), progress_bar() as bar:
                task = bar.add_task("start everything, and a Discord on loopback", total=None)
                await stack.enter_async_context(self._discord)
                environ = {**self._environ, **self._discord.environ}
                installation = Installation(
                    self.settings, environ, logs=self.settings.data / "logs", stop_timeout_s=STOP_TIMEOUT_S
                )
                self.settings = await stack.enter_async_context(installation.running())
                installation.start(*NEEDED)
                bus = await connect(Server.of(self.settings, "operator"), name="demo")
                stack.push_async_callback(bus.close)
                await beside(installation.watch(), self._until_ready(bus, installation.supervisor))
                bar.update(task, total=1, completed=1)
            self._installation = installation
            yield bus

    async def perform(self, bus: Bus) -> dict[str, Any]:
        """Record the call, render it, and download the files; what `--json` prints."""
        stopped = await self._record(bus)
        artifacts = await self._render(bus, stopped.session)
        result = await self._deliver(bus, stopped, artifacts)
        self.delivered = True
        return result

    async def watch(self) -> None:
        """Return never while `running`; errors as `Installation.watch`."""
        if self._installation is not None:
            await self._installation.watch()

    async def _until_ready(self, bus: Bus, supervisor: Supervisor) -> None:
        """Wait for every service, but for none that ended TRIES times."""
        give_up = time.monotonic() + READY_TIMEOUT_S
        while away := await self._away(bus):
            if time.monotonic() > give_up or any(supervisor.failures[service] >= TRIES for service in away):
                last = "\n".join(line for service in away for line in supervisor.last_words(service))
                raise UnavailableError(f"{' and '.join(away)} did not come up, and said last:\n{last}")
            await asyncio.sleep(POLL_S)

    async def _away(self, bus: Bus) -> list[str]:
        ready = {
            "capture": await capture_ready(bus),
            "mixer": await mixer_ready(bus),
            "gateway": await gateway_ready(self.settings.public_url),
        }
        return [service for service, is_ready in ready.items() if not is_ready]

    async def _record(self, bus: Bus) -> Stopped:
        with self._timings.step("join"):
            await start_recording(
                bus, StartRecording(guild_id=str(GUILD_ID), channel_id=str(CHANNEL_ID), name="Retold demo")
            )
            await self._discord.wait_for_bot(timeout_s=READY_TIMEOUT_S)
        with self._timings.step("talk"), progress_bar() as bar:
            task = bar.add_task("people talk, the bot records", total=self._plan.seconds)
            await self._discord.talk(progress=lambda elapsed_s, _all: bar.update(task, completed=elapsed_s))
        with self._timings.step("stop"):
            return await stop_recording(bus, StopRecording(guild_id=str(GUILD_ID)))

    async def _render(self, bus: Bus, session: str) -> list[Artifact]:
        """The default files, which the mixer makes by itself; peaks and report are for the page, not for people."""
        recipes = [recipe for recipe in DEFAULT_RECIPES if recipe.format not in {"dat", "json"}]
        with self._timings.step("render"), progress_bar() as bar:
            stored = await asyncio.gather(*(_follow(bus, session, recipe, bar) for recipe in recipes))
        return [artifact for artifacts in stored for artifact in artifacts]

    async def _deliver(self, bus: Bus, stopped: Stopped, artifacts: list[Artifact]) -> dict[str, Any]:
        entry = await get_entry(bus, stopped.session)
        if entry is None:
            raise RetoldError(f"session {stopped.session} is not in the directory")
        linker = Linker(self.settings, may=("remix",))
        rows = describe(tuple(artifacts), linker)
        with self._timings.step("download"), progress_bar() as bar:
            task = bar.add_task("download through signed links", total=len(rows))
            async with httpx.AsyncClient(timeout=DOWNLOAD_TIMEOUT_S) as client:
                for artifact, row in zip(artifacts, rows, strict=True):
                    await download(client, str(row["url"]), artifact, self._out / artifact.filename)
                    bar.advance(task)
        return {
            "session": stopped.session,
            "page_url": linker.page(stopped.session),
            "plan": self._plan_on_session_clock(entry),
            "packets": {
                "sent": sum(1 for _ in self._discord.journal.owed()),
                "recorded": stopped.recorded,
                "undecryptable": stopped.undecryptable,
                "lost": stopped.lost,
            },
            "artifacts": rows,
            "timings_s": self._timings.total(),
        }

    def _plan_on_session_clock(self, entry: SessionEntry) -> list[dict[str, Any]]:
        """Who spoke from when to when, as it was sent, in seconds on the session clock."""
        zero_s = entry.started_unix_ns / 1e9
        spoke = self._discord.journal.spoke_unix_s
        return [
            {
                "user_id": str(person.user_id),
                "name": person.name,
                "spoke": [
                    [round(start - zero_s, 3), round(stop - zero_s, 3)]
                    for start, stop in spoke.get(str(person.user_id), [])
                ],
            }
            for person in self._plan.people
        ]


class Timings:
    """Wall-clock seconds of each step."""

    def __init__(self) -> None:
        self._steps: dict[str, float] = {}
        self._begun = time.monotonic()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a step."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._steps[name] = round(time.monotonic() - begun, 3)

    def total(self) -> dict[str, float]:
        """Every step and `total`."""
        return {**self._steps, "total": round(time.monotonic() - self._begun, 3)}


async def capture_ready(bus: Bus) -> bool:
    """Whether capture answers and is in Discord."""
    try:
        return (await ask_status(bus)).ready
    except RetoldError:
        return False


async def mixer_ready(bus: Bus) -> bool:
    """Whether a mixer waits for jobs."""
    jobs = [stream for stream in await stream_lags(bus) if stream.stream == JOBS.name]
    return any(consumer.name == RENDER_CONSUMER and consumer.waiting for one in jobs for consumer in one.consumers)


async def gateway_ready(public_url: str) -> bool:
    """Whether the gateway says that it is ready."""
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{public_url}/health/ready")).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


async def _follow(bus: Bus, session: str, recipe: Recipe, bar: Progress) -> tuple[Artifact, ...]:
    task = bar.add_task(f"render {recipe.output} {recipe.format}", total=1.0)
    job = job_id(session, recipe)
    return (await follow(bus, session, job, progress=lambda done: bar.update(task, completed=done))).artifacts
