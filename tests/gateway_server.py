"""A gateway as it runs in production, with sessions and artifacts in it: for tests and benches.

A process of its own, through its composition root, on a real nats-server; its log goes to a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from contracts.artifacts import Artifact
from contracts.directory import SessionEntry
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import put_entry
from contracts.jetstream.objects import put_artifact
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.keys import PrivateKey, load_signing_key
from contracts.links import download_path, new_claims, page_path, sign_link
from contracts.recipes import Recipe
from contracts.settings import Settings
from ops.embedded import EmbeddedServer, free_port

DEADLINE_S: Final = 40.0
STOP_S: Final = 20.0
MAIN: Final = """
import asyncio, os, signal
from contracts.settings import load_settings
from gateway.app import run

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run(load_settings(os.environ), stop=stop)

asyncio.run(main())
"""
TICKS = 48_000 * 90
START_NS = 1_790_000_000 * 1_000_000_000


@dataclass
class RunningGateway:
    """Where it is, and what a test needs to prepare and to judge."""

    url: str
    bus: Bus
    key: PrivateKey
    settings: Settings
    folder: Path
    process: asyncio.subprocess.Process
    server: EmbeddedServer
    data: dict[str, bytes] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def log_file(self) -> Path:
        """Everything it logged."""
        return self.folder / "gateway.log"

    def token(
        self, *, session: str, action: Any = "download", obj: str = "", lifetime_s: int = 600, may: Any = ()
    ) -> str:
        """A good token, or one that has expired long ago if the lifetime is negative."""
        now_s = int(time.time()) - (0 if lifetime_s > 0 else 7200)
        claims = new_claims(
            sub="tests", session=session, action=action, obj=obj, now_s=now_s, lifetime_s=abs(lifetime_s), may=may
        )
        return sign_link(claims, self.key)

    def link(self, artifact: Artifact) -> str:
        """A good download link."""
        return self.url + download_path(self.token(session=artifact.session, obj=artifact.name), artifact.filename)

    def page(self, session: str) -> str:
        """A good page link."""
        return self.url + page_path(self.token(session=session, action="page"))

    async def store(self, session: str, filename: str, data: bytes, **fields: Any) -> Artifact:
        """Put bytes into the store as an artifact."""
        recipe = fields.pop("recipe", Recipe(output="mix", format="mp3"))
        digest = hashlib.sha256(data).hexdigest()
        name = f"{digest[:16]}-{fields.get('user_id') or 'mix'}.{recipe.format}"
        artifact = Artifact(
            name=name,
            session=session,
            filename=filename,
            recipe=recipe,
            log_end=1,
            engine="test",
            sha256=digest,
            bytes=len(data),
            duration_ticks=TICKS,
            rendered_unix_ns=fields.pop("rendered_unix_ns", START_NS),
            **fields,
        )
        path = self.folder / digest
        await asyncio.to_thread(path.write_bytes, data)
        await put_artifact(self.bus, artifact, path)
        self.data[name] = data
        return artifact

    async def session(self, **fields: Any) -> str:
        """A session of its own, ended unless `ended_unix_ns=None`."""
        session = new_id()
        await create_session(self.bus, session)
        entry: dict[str, Any] = {
            "session": session,
            "guild_id": "1",
            "guild_name": "The Guild",
            "channel_id": "2",
            "channel_name": "General",
            "started_unix_ns": START_NS,
            "ended_unix_ns": START_NS + 90 * 1_000_000_000,
            "duration_ns": 90 * 1_000_000_000,
        }
        await put_entry(self.bus, SessionEntry(**(entry | fields)))
        return session


@contextlib.asynccontextmanager
async def running_gateway(folder: Path, **more: str) -> AsyncIterator[RunningGateway]:
    """A gateway on a free port, with `more` in its environment; it has to stop in order when asked to."""
    async with EmbeddedServer(folder / "nats", port=free_port()) as server:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        settings = Settings(data=folder / "data", nats_url=server.url)
        key = load_signing_key(settings.data / "keys")
        environ = {
            "RETOLD_DATA": str(settings.data),
            "RETOLD_NATS_URL": server.url,
            "RETOLD_GATEWAY_PORT": "0",
        }
        log_file = folder / "gateway.log"
        with log_file.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", MAIN, env=os.environ | environ | more, stdout=out, stderr=out
            )
        try:
            started = await wait_for_event(log_file, "gateway_listening", process)
            yield RunningGateway(started["address"], bus, key, settings, folder, process, server)
        finally:
            if process.returncode is None:
                process.terminate()
            code = await asyncio.wait_for(process.wait(), STOP_S)
            await bus.close()
    assert code == 0, read_text(log_file)


async def wait_for_event(
    log_file: Path, event: str, process: asyncio.subprocess.Process | None = None, **fields: object
) -> dict[str, Any]:
    """The first line of the log with this event and these fields, within DEADLINE_S seconds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for line in read_log(log_file):
                if {"event": event, **fields}.items() <= line.items():
                    return line
            if process is not None and process.returncode is not None:
                raise RuntimeError(read_text(log_file))
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return as soon as the condition holds; TimeoutError after DEADLINE_S seconds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


def read_log(log_file: Path) -> list[dict[str, Any]]:
    """Every whole line of the log."""
    lines = read_text(log_file).splitlines(keepends=True)
    return [msgspec.json.decode(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def read_text(file: Path) -> str:
    """All of a file."""
    return file.read_text()
