"""`retold up` runs everything on one machine; `retold capture|mixer|gateway|keeper` run one service."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import os
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import msgspec
import structlog

from contracts.errors import RetoldError
from contracts.keys import load_signing_key
from contracts.log import configure
from contracts.service import EXIT_DONE, EXIT_FAILED, REQUIRED, Stop, serve, stop_on_signals
from contracts.settings import Settings, load_settings
from gateway.listener import PortTakenError, listen
from ops.cli.files import make_folder
from ops.cli.output import say
from ops.embedded import EmbeddedServer
from ops.race import beside
from ops.running import Running, find_running, find_settings
from ops.supervisor import STOP_TIMEOUT_S, Supervisor

log = structlog.get_logger()

PARENT_CHECK_S: Final = 1.0
ORPHAN_TIMEOUT_S: Final = 5.0  # nats-server ends with the parent, so nobody may be there to take the rest
SERVER_WAIT_S: Final = 0.5
SERVICES: Final = {
    "capture": "join voice channels and write down what is said",
    "mixer": "render sessions",
    "gateway": "serve pages and downloads on signed links",
    "keeper": "let sessions go by age and space, and keep the archive",
    "metrics": "serve figures of JetStream, sessions and the disk for Prometheus",
}
MODULES: Final = {"keeper": "ops.keeper", "metrics": "ops.exporter"}  # the others are packages, each with its app
METRICS_PORTS: Final = ("capture", "mixer", "metrics", "keeper")  # from RETOLD_METRICS_PORT on; the gateway has its own


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `up` and the services."""
    up = commands.add_parser("up", help="run everything on this machine, with an embedded nats-server")
    up.set_defaults(run=_up)
    for name, purpose in SERVICES.items():
        service = commands.add_parser(name, help=f"run one service: {purpose}")
        service.add_argument("--supervised", action="store_true", help="end when the process that started it is gone")
        service.set_defaults(run=_run_service, service=name)


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
        """Start the server again whenever it ends.

        Raises
        ------
        SettingsError
            When a service cannot run.
        UnavailableError
            When the server does not come up again.
        """
        await beside(self._keep_server(), self.supervisor.watch())

    async def _keep_server(self) -> None:
        """On the same ports with the same data, so that everybody finds it again."""
        while True:
            code = await self._server.wait()
            log.warning("nats_ended", code=code, restart_in_s=SERVER_WAIT_S)
            await asyncio.sleep(SERVER_WAIT_S)
            await self._server.start()
            log.warning("nats_restarted")


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


def able_services(settings: Settings) -> list[str]:
    """The services that have what they cannot do without."""
    return [name for name in SERVICES if all(getattr(settings, field) for field in REQUIRED.get(name, ()))]


def metrics_ports(first: int) -> dict[str, dict[str, str]]:
    """The setting of each process that serves figures on a port of its own; nothing if there is no first port."""
    numbered = enumerate(METRICS_PORTS, start=first)
    return {service: {"RETOLD_METRICS_PORT": str(port)} for port, service in numbered} if first else {}


async def _run_service(arguments: argparse.Namespace) -> int:
    settings = find_settings(os.environ, required=REQUIRED.get(arguments.service, ()))
    module = importlib.import_module(MODULES.get(arguments.service, f"{arguments.service}.app"))
    stop = stop_on_signals()
    orphaned = asyncio.create_task(_stop_when_orphaned(stop)) if arguments.supervised else None
    code = await serve(arguments.service, module.run, settings, stop=stop)
    if orphaned is not None:
        orphaned.cancel()
    return code


async def _stop_when_orphaned(stop: Stop) -> None:
    """A supervisor that was killed cannot end its services; each notices by its parent's id."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # no event tells of a parent's end
        await asyncio.sleep(PARENT_CHECK_S)
    stop.leave()  # nobody wanted it to end
    last_resort = threading.Timer(ORPHAN_TIMEOUT_S, os._exit, (EXIT_FAILED,))  # what was heard is in the spool
    last_resort.daemon = True
    last_resort.start()
