"""Running services as processes of their own: started together, started again when one dies, ended in order.

A service that cannot start because of a setting is not started again: its message is shown, and everything ends. Each
has a session of its own, so that Ctrl-C reaches us alone and we end them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

import structlog

from contracts.errors import SettingsError
from contracts.service import EXIT_USAGE

log = structlog.get_logger()

RESTART_WAIT_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
STOP_TIMEOUT_S: Final = 90.0  # capture may still be publishing what it heard
HEALTHY_AFTER_S: Final = 30.0
LAST_LINES: Final = 12
SAID: Final = "retold: "  # what contracts.service writes before an error's message


class Supervisor:
    """The services of one installation.

    Parameters
    ----------
    environ
        Their environment.
    own
        What each has beside it, by service.
    logs
        Folder of a log for each; None = they write where we do.
    stop_timeout_s
        How long one may take to end, seconds, before it is killed.

    Attributes
    ----------
    failures
        How often each service ended by itself since it last ran for a while.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        own: Mapping[str, Mapping[str, str]] | None = None,
        logs: Path | None = None,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self._environ = dict(environ)
        self._own = own or {}
        self._logs = logs
        self._stop_timeout_s = stop_timeout_s
        self._begun: dict[str, int] = {}  # where in its log a service's last start stands, bytes
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.failures: Counter[str] = Counter()

    def start(self, *services: str) -> None:
        """Start services by name, the last part of `retold <name>`."""
        for service in services:
            self._tasks[service] = asyncio.create_task(self._keep(service), name=service)

    async def watch(self) -> None:
        """Return never; raise SettingsError, with its own message, as soon as a service cannot run."""
        done, _ = await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def stop(self, *services: str, by: signal.Signals = signal.SIGINT) -> None:
        """End services, all of them if none is named, and wait for them.

        Parameters
        ----------
        by
            SIGTERM = whoever has something running leaves it to the next one.
        """
        names = services or tuple(self._tasks)
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(self._end(name, by) for name in names))

    def last_words(self, service: str) -> list[str]:
        """The end of what a service wrote to its log since it was started last."""
        if self._logs is None or service not in self._begun:
            return []
        with self._log(service).open("rb") as file:
            file.seek(self._begun[service])
            return file.read().decode(errors="replace").splitlines()[-LAST_LINES:]

    async def _keep(self, service: str) -> None:
        while True:
            started = asyncio.get_running_loop().time()
            code = await self._run(service)
            if code == EXIT_USAGE:
                raise SettingsError([*self._complaints(service), f"{service} cannot run with these settings"])
            if asyncio.get_running_loop().time() - started > HEALTHY_AFTER_S:
                self.failures[service] = 0
            wait_s = RESTART_WAIT_S[min(self.failures[service], len(RESTART_WAIT_S) - 1)]
            self.failures[service] += 1
            log.warning("service_ended", service=service, code=code, restart_in_s=wait_s)
            await asyncio.sleep(wait_s)

    async def _run(self, service: str) -> int:
        with contextlib.ExitStack() as files:
            output: IO[bytes] | None = None
            if self._logs is not None:
                self._logs.mkdir(parents=True, exist_ok=True)
                output = files.enter_context(self._log(service).open("ab"))
                self._begun[service] = output.tell()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ops.cli.main", service, "--supervised"),
                env={**self._environ, **self._own.get(service, {})},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes[service] = process
        return await process.wait()

    async def _end(self, service: str, by: signal.Signals) -> None:
        process = self._processes.pop(service, None)
        if process is None or process.returncode is not None:
            return
        process.send_signal(by)
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                await process.wait()
        except TimeoutError:
            log.warning("service_killed", service=service)
            process.kill()
            await process.wait()

    def _log(self, service: str) -> Path:
        return (self._logs or Path()) / f"{service}.log"

    def _complaints(self, service: str) -> list[str]:
        """What it said to people, not to its log."""
        return [line.removeprefix(SAID) for line in self.last_words(service) if line.startswith(SAID)]
