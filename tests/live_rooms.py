"""Rooms that talk while everything runs as processes: capture, mixer, gateway, exporter; the crowd on a loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contracts.commands import StartRecording
from contracts.jetstream.asking import start_recording
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.streams import ensure_shared
from contracts.tasks import end_tasks
from ops.cli.services import METRICS_PORTS, metrics_ports
from ops.embedded import EmbeddedServer, free_port
from ops.load import _Crowd, _crowd, _each, _until_ready
from ops.loopback.crowd import CrowdSpec
from ops.supervisor import Supervisor
from tests.processes import free_ports

TALK_S = 100_000.0  # until the crowd is ended


@dataclass
class LiveRooms:
    """A running installation with rooms in it."""

    server: EmbeddedServer
    bus: Bus
    supervisor: Supervisor
    crowd: _Crowd
    environ: dict[str, str]
    ports: dict[str, int]
    sessions: list[str] = field(default_factory=list)
    talking: asyncio.Task[Any] | None = None

    async def record(self) -> None:
        """Record every room, and let everybody talk from now on."""

        async def start(room: tuple[str, str]) -> None:
            guild_id, channel_id = room
            started = await start_recording(self.bus, StartRecording(guild_id=guild_id, channel_id=channel_id))
            self.sessions.append(started.session)

        await _each(self.crowd.rooms, start)
        await self.crowd.ask({"settle": True})
        self.talking = asyncio.create_task(self.crowd.ask({"talk": TALK_S}))

    @property
    def targets(self) -> dict[str, str]:
        """Address of each process that has `/metrics`, by service."""
        return {service: f"127.0.0.1:{port}" for service, port in self.ports.items()}


@contextlib.asynccontextmanager
async def live_rooms(folder: Path, *, rooms: int, speakers: float = 1.0, **settings: str) -> AsyncIterator[LiveRooms]:
    """Everything started, nobody recorded yet; `settings` are more RETOLD_* of the services."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer(folder / "nats"))
        bus = await connect(server.url, name="test")
        stack.push_async_callback(bus.close)
        await ensure_shared(bus)
        crowd = await stack.enter_async_context(_crowd(CrowdSpec(rooms=rooms, speakers=speakers)))
        first = free_ports(len(METRICS_PORTS))
        ports = {name: int(own["RETOLD_METRICS_PORT"]) for name, own in metrics_ports(first).items()}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
        environ = {
            **plain,
            **crowd.environ,
            "RETOLD_NATS_URL": server.url,
            "RETOLD_NATS_MONITOR_URL": server.monitor_url,
            "RETOLD_DATA": str(folder),
            "RETOLD_GATEWAY_PORT": str(gateway := free_port()),
            "XDG_RUNTIME_DIR": str(folder),
            **settings,
        }
        ports["gateway"] = gateway
        supervisor = Supervisor(environ, own=metrics_ports(first), logs=folder / "logs", stop_timeout_s=5)
        supervisor.start("capture", "mixer", "gateway", "metrics", "keeper")
        stack.push_async_callback(supervisor.stop)
        await _until_ready(bus)
        running = LiveRooms(server, bus, supervisor, crowd, environ, ports)
        try:
            yield running
        finally:
            await end_tasks(running.talking)


async def eventually(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """What the condition (or the coroutine that it returns) says as soon as that is true; AssertionError if never."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        found = await found if asyncio.iscoroutine(found) else found
        if found:
            return found
        assert asyncio.get_running_loop().time() < deadline, f"{what}, within {seconds} s"
        await asyncio.sleep(0.1)
