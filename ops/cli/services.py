"""`retold capture|mixer|gateway|keeper|metrics` run one service; `retold up` runs them all."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import threading
from typing import Final

from contracts.service import EXIT_FAILED, REQUIRED, Stop, serve, stop_on_signals
from contracts.settings import Settings
from ops.running import find_settings

PARENT_CHECK_S: Final = 1.0
ORPHAN_TIMEOUT_S: Final = 5.0  # nats-server ends with the parent, so nobody may be there to take the rest
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
    """Add the services."""
    for name, purpose in SERVICES.items():
        service = commands.add_parser(name, help=f"run one service: {purpose}")
        service.add_argument("--supervised", action="store_true", help="end when the process that started it is gone")
        service.set_defaults(run=_run_service, service=name)


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
