"""A real Prometheus on the shipped configuration, with targets on loopback; and the shipped dashboard's questions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from ops.embedded import free_port

DEPLOY: Final = Path(__file__).parent.parent / "ops" / "deploy"
DASHBOARD: Final = DEPLOY / "grafana" / "dashboards" / "retold.json"
RATE_INTERVAL: Final = "15s"  # what Grafana puts for $__rate_interval: four scrapes and more

needs_prometheus: Final = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"
)


class Prometheus:
    """A running one."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """What an instant query returns."""
        answer = await self._client.get("/api/v1/query", params={"query": expression})
        told = answer.json()
        assert told["status"] == "success", (expression, told)
        found: list[dict[str, Any]] = told["data"]["result"]
        return found

    async def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = (await self._client.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def up(self) -> set[str]:
        """Jobs of which a target answers."""
        return {found["metric"]["job"] for found in await self.query("up == 1")}


@contextlib.asynccontextmanager
async def prometheus(folder: Path, targets: Mapping[str, str], *, alertmanager: str = "") -> AsyncIterator[Prometheus]:
    """Start one; `targets` is an address by service, `alertmanager` that of one.

    Names are not looked up here: the rest is as shipped.
    """
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    configuration["rule_files"] = [str(DEPLOY / "prometheus" / "retold.rules.yml")]
    (told,) = configuration["alerting"]["alertmanagers"]
    del told["dns_sd_configs"]
    told["static_configs"] = [{"targets": [alertmanager] if alertmanager else []}]
    for job in configuration["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [targets[job["job_name"].removeprefix("retold-")]]}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'store'}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client:
            await _until_ready(client)
            yield Prometheus(client)
    finally:
        process.terminate()
        await process.wait()


async def _until_ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get("/-/ready")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.1)


def questions() -> Iterator[tuple[str, str]]:
    """(panel, expression) of everything that the dashboard asks."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", RATE_INTERVAL)
