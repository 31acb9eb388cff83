"""`retold up` runs everything on one machine, with an embedded nats-server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from contracts.errors import RetoldError, UnavailableError
from contracts.keys import load_signing_key
from contracts.log import configure
from contracts.service import EXIT_DONE, EXIT_FAILED, stop_on_signals
from contracts.settings import Settings, load_settings
from gateway.listener import PortTakenError, listen
from ops.cli.files import make_folder
from ops.cli.output import say
from ops.cli.services import SERVICES, able_services, metrics_ports
from ops.embedded import EmbeddedServer
from ops.monitor import Monitor
from ops.race import beside
from ops.running import Running, find_running
from ops.supervisor import STOP_TIMEOUT_S, Supervisor
from ops.thaw import can_thaw

log = structlog.get_logger()

SERVER_WAIT_S: Final = 0.5
THAW_S: Final = 2.0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `up`."""
    up = commands.add_parser("up", help="run everything on this machine, with an embedded nats-server")
    up.set_defaults(run=_up)


class Installation:
    """An embedded server and the services around it, as `up` and `demo` run them.

    Parameters
    ----------
    logs, stop_timeout_s
        As `Supervisor` has them.
    encrypted
        As `EmbeddedServer` has it.

    Attributes
    ----------
    settings
        What the services run with.
    hand_over
        Whether recordings that run at the end are left to the next start.
    """

    def __init__(
        self,
        settings: Settings,
        environ: dict[str, str],
        *,
        logs: Path | None = None,
        stop_timeout_s: float = STOP_TIMEOUT_S,
        encrypted: bool = True,
    ) -> None:
        self._environ = environ
        self._server = EmbeddedServer(settings.data / "nats", encrypted=encrypted)
        self._logs = logs
        self._stop_timeout_s = stop_timeout_s
        self.settings = settings
        self.hand_over = False
        self.supervisor = Supervisor({})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Settings]:
        """Start the server; the services are started by `start`; all of it is ended on exit.

        Raises
        ------
        FileError, SettingsError, PortTakenError
            If the data folder or the gateway's address cannot be had.
        UnavailableError
            If nats-server does not come up.
        """
        make_folder(self.settings.data)
        listen(self.settings.gateway_host, self.settings.gateway_port).close()
        load_signing_key(self.settings.data / "keys")
        async with self._server:
            self.settings = msgspec.structs.replace(self.settings, nats_url=self._server.address)
            environ = {
                **self._environ,
                "RETOLD_DATA": str(self.settings.data.resolve()),
                "RETOLD_NATS_URL": self._server.address,
                "RETOLD_PUBLIC_URL": self.settings.public_url,
                "RETOLD_GATEWAY_PORT": str(self.settings.gateway_port),
                "RETOLD_NATS_MONITOR_URL": self._server.monitor_url,
            }
            own = metrics_ports(self.settings.metrics_port)
            self.supervisor = Supervisor(environ, own=own, logs=self._logs, stop_timeout_s=self._stop_timeout_s)
            running = Running(
                pid=os.getpid(),
                data=str(self.settings.data.resolve()),
                nats_url=self._server.address,
                monitor_url=self._server.monitor_url,
                public_url=self.settings.public_url,
            )
            running.announce()
            try:
                yield self.settings
            finally:
                by = signal.SIGTERM if self.hand_over else signal.SIGINT
                await self.supervisor.stop("capture", by=by)  # first: the others finish what it recorded
                await self.supervisor.stop()
                running.withdraw()

    def start(self, *services: str) -> None:
        """Start services; all of them if none is named, `metrics` if there is a port for it."""
        every = [name for name in SERVICES if name != "metrics" or self.settings.metrics_port]
        self.supervisor.start(*(services or every))

    async def watch(self) -> None:
        """Start the server again whenever it ends, and whenever it writes no more though there is room.

        Raises
        ------
        SettingsError
            When a service cannot run.
        """
        await beside(self._keep_server(), beside(self._thaw_server(), self.supervisor.watch()))

    async def _keep_server(self) -> None:
        """On the same ports with the same data, so that everybody finds it again."""
        while True:
            code = await self._server.wait()
            log.warning("nats_ended", code=code, restart_in_s=SERVER_WAIT_S)
            await asyncio.sleep(SERVER_WAIT_S)
            try:
                await self._server.start()
            except (OSError, UnavailableError) as error:  # a disk that is full: capture goes on, and so do we
                log.error("nats_not_restarted", reason=str(error))  # noqa: TRY400  # an alarm
                await asyncio.sleep(THAW_S)
            else:
                log.warning("nats_restarted")

    async def _thaw_server(self) -> None:
        """A server whose disk was full writes on after a restart only."""
        frozen: tuple[str, ...] = ()
        async with Monitor(self._server.monitor_url) as monitor:
            while True:
                await asyncio.sleep(THAW_S)
                with contextlib.suppress(UnavailableError):  # it is being started
                    before, frozen = frozen, await monitor.frozen_streams()
                    if frozen and not before:
                        log.error(
                            "nats_frozen", streams=frozen, mend="free space on its disk; the rest comes by itself"
                        )
                    if await can_thaw(monitor, self._server.store):
                        log.warning("nats_thaws", streams=frozen)
                        await self._server.interrupt()


async def _up(_arguments: argparse.Namespace) -> int:
    settings = load_settings(os.environ)
    if (other := find_running({"RETOLD_DATA": str(settings.data)}, settings)) is not None:
        say(f"retold: an installation runs in {settings.data} already, as process {other.pid}")
        return EXIT_FAILED
    configure(settings.log_level, service="up")
    stop = stop_on_signals()
    installation = Installation(settings, dict(os.environ))
    try:
        async with installation.running():
            installation.start(*able_services(settings))
            say(f"Retold runs; pages and downloads are at {settings.public_url}. Ctrl-C ends it.")
            if not settings.discord_token:
                say("Without RETOLD_DISCORD_TOKEN it does not record: there is no capture; all else is as usual.")
            await beside(stop.wait(), installation.watch())
            installation.hand_over = stop.hand_over
            say(
                "Ending; recordings that run go on at the next start, if it comes within 15 minutes."
                if stop.hand_over
                else "Ending; recordings that run are finished first."
            )
    except PortTakenError as error:
        raise RetoldError(str(error)) from error
    return EXIT_DONE
