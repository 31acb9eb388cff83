"""An alert is read in Discord: the real Prometheus and Alertmanager on the shipped files, and a webhook on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ops.embedded import free_port
from tests.live_rooms import eventually
from tests.prometheus import DEPLOY, needs_prometheus, prometheus

SHIPPED = DEPLOY / "alertmanager"
PROGRAM = shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")  # as Debian calls it
AMTOOL = shutil.which("amtool")
JOBS = ("capture", "mixer", "metrics", "keeper", "gateway")
TOLD_S = 40.0  # the alert's own wait, 5 s of Alertmanager's, and a busy machine
OVER_S = 90.0  # Prometheus' five minutes of silence do not count: it says itself what is over

needs_alertmanager = pytest.mark.skipif(
    PROGRAM is None, reason="Alertmanager is not installed (Debian: prometheus-alertmanager)"
)


@pytest.mark.skipif(AMTOOL is None, reason="amtool is not installed (Debian: prometheus-alertmanager)")
def test_amtool_accepts_the_configuration(tmp_path: Path):
    """As it is shipped; one that is wrong somewhere is refused."""
    accepted = subprocess.run([str(AMTOOL), "check-config", str(SHIPPED / "alertmanager.yml")], check=False)
    assert accepted.returncode == 0
    wrong = tmp_path / "alertmanager.yml"
    wrong.write_text((SHIPPED / "alertmanager.yml").read_text().replace("receiver: discord", "receiver: nobody"))
    assert subprocess.run([str(AMTOOL), "check-config", str(wrong)], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("webhook", ["", "https://discord.com/|e touch /tmp/x", "https://a\nb"])
def test_without_an_address_it_does_not_start(tmp_path: Path, webhook: str):
    """And says which setting is wrong."""
    environ = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "ALERT_WEBHOOK": webhook}
    command = ["sh", str(SHIPPED / "start.sh")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 2
    assert "ALERT_WEBHOOK" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@needs_prometheus
@needs_alertmanager
async def test_an_alert_is_told_in_discord_and_that_it_is_over(tmp_path: Path):
    """Nobody records: that is told with what to do, and what only follows from it is not; then it is over."""
    ports = {job: free_port() for job in JOBS}
    async with contextlib.AsyncExitStack() as stack:
        for job in set(JOBS) - {"capture"}:
            await stack.enter_async_context(serving(ports[job], figures))
        channel = Channel()
        hook = free_port()
        await stack.enter_async_context(serving(hook, channel.receive))
        address = await stack.enter_async_context(
            alertmanager(tmp_path, f"http://127.0.0.1:{hook}/api/webhooks/1/token")
        )
        targets = {job: f"127.0.0.1:{port}" for job, port in ports.items()}
        await stack.enter_async_context(prometheus(tmp_path / "prometheus", targets, alertmanager=address))
        await eventually(lambda: channel.says("critical: RetoldCaptureAway"), seconds=TOLD_S, what="it is told")
        told = channel.says("critical: RetoldCaptureAway")
        assert told["description"].startswith("Nobody records.\n")
        assert "retold doctor" in told["description"]
        await asyncio.sleep(15.0)  # by then RetoldProcessDown fires
        assert not channel.says("warning: RetoldProcessDown")
        await stack.enter_async_context(serving(ports["capture"], figures))
        await eventually(lambda: channel.says("over: RetoldCaptureAway"), seconds=OVER_S, what="it is told to be over")


class Channel:
    """What was posted by its webhook."""

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []

    async def receive(self, request: web.Request) -> web.Response:
        """As Discord answers."""
        assert request.path == "/api/webhooks/1/token"
        assert request.content_type == "application/json"
        (embed,) = (await request.json())["embeds"]
        self.posted.append(embed)
        return web.Response(status=204)

    def says(self, title: str) -> dict[str, Any]:
        """The newest with this title."""
        return next((embed for embed in reversed(self.posted) if embed["title"] == title), {})


async def figures(_request: web.Request) -> web.Response:
    """Of a service that is well."""
    return web.Response(text="retold_nats_connected 1\n")


@contextlib.asynccontextmanager
async def serving(port: int, handler: Any) -> AsyncIterator[None]:
    """A server on loopback that answers everything in one way."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def alertmanager(folder: Path, webhook: str) -> AsyncIterator[str]:
    """One by the shipped script; its address."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "alertmanager").symlink_to(str(PROGRAM))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "alertmanager.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("sh", str(SHIPPED / "start.sh"), f"--storage.path={folder / 'alerts'}", "--cluster.listen-address="),
            f"--web.listen-address={address}",
            env={"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(folder), "ALERT_WEBHOOK": webhook},
            stdout=log,
            stderr=log,
        )
    try:
        yield address
    finally:
        process.terminate()
        await process.wait()
