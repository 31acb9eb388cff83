"""ops/deploy/compose.cluster.yml: what is there twice is as in docker-compose.yml, and three servers are one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sysconfig
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.errors import UnavailableError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.server import Server
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.service import REQUIRED
from contracts.settings import describe, load_settings
from contracts.streams import session_stream_name
from ops.embedded import find_nats_server, free_port
from tests.deployment import COMPOSE, ROOT, interpolated, read_compose
from tests.processes import RETOLD

CLUSTER = ROOT / "ops" / "deploy" / "compose.cluster.yml"
TOKEN = {"RETOLD_DISCORD_TOKEN": "token"}
SECOND = {"nats-2": "nats", "nats-3": "nats", "capture-2": "capture"}
OWN = {"environment", "volumes", "networks", "depends_on"}  # in which a second differs from the first
NATS_USERS = ("capture", "capture-2", "mixer", "gateway", "keeper", "metrics", "retold", "doctor")
READY_S = 30.0


@pytest.fixture(scope="module")
def more() -> dict[str, Any]:
    return interpolated(yaml.safe_load(CLUSTER.read_text()), TOKEN)


@pytest.fixture(scope="module")
def base() -> dict[str, Any]:
    return read_compose(TOKEN)


def environ(base: dict[str, Any], more: dict[str, Any], name: str) -> dict[str, str]:
    """As Compose merges it."""
    return {**base["services"].get(name, {}).get("environment", {}), **more["services"][name].get("environment", {})}


def test_a_second_is_as_the_first(base: dict[str, Any], more: dict[str, Any]):
    """In all that holds it in; its environment has what the first's has, and only volumes that it needs are its own."""
    for second, first in SECOND.items():
        ours, theirs = more["services"][second], base["services"][first]
        assert {name: ours[name] for name in ours if name not in OWN} == {
            name: theirs[name] for name in theirs if name not in OWN
        }
        assert set(ours["networks"]) == set(theirs["networks"])
        wanted = environ(base, more, first)
        assert {**wanted, **ours["environment"]} == {**wanted, "NATS_NAME": second} if first == "nats" else wanted
        assert wanted.keys() == ours["environment"].keys()
    assert more["services"]["capture-2"]["volumes"][1]["volume"] == {"subpath": "keys"}
    assert set(more["services"]) - set(base["services"]) == set(SECOND)


def test_everybody_knows_all_servers_and_how_many_shards_there_are(base: dict[str, Any], more: dict[str, Any]):
    """And each setting is one that its service accepts."""
    known = {name for name, _, _ in describe()}
    for name in NATS_USERS:
        merged = environ(base, more, name) | {"RETOLD_NATS_SEED_FILE": ""}
        assert {setting for setting in merged if setting.startswith("RETOLD_")} <= known
        settings = load_settings(merged, required=REQUIRED.get(name.removesuffix("-2"), ()))
        assert settings.nats_url == "nats://nats:4222,nats://nats-2:4222,nats://nats-3:4222"
        assert (settings.nats_replicas, settings.shards) == (3, 2)
    assert environ(base, more, "gateway")["RETOLD_CACHE"] == ""
    assert {name: more["services"][name]["deploy"]["replicas"] for name in ("mixer", "gateway")} == {
        "mixer": 2,
        "gateway": 2,
    }
    mounted = {volume.split(":")[0] for name in SECOND for volume in more["services"][name]["volumes"] if ":" in volume}
    assert mounted <= set(base["volumes"]) | set(more["volumes"])


def test_the_schema_of_compose_accepts_it():
    """By its own linter."""
    linter = Path(sysconfig.get_path("scripts")) / "check-jsonschema"
    command = [str(linter), "--builtin-schema", "vendor.compose-spec", str(COMPOSE), str(CLUSTER)]
    accepted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert accepted.returncode == 0, accepted.stdout


async def test_three_servers_by_its_configuration_are_one(more: dict[str, Any], tmp_path: Path):
    """`init` with the command of the file, its nats.conf thrice: a stream has three copies; one key opens them all."""
    conf = init(more, tmp_path)
    assert init(more, tmp_path) == conf, "each `up` runs it again"
    names = [more["services"][name]["environment"]["NATS_NAME"] for name in ("nats", "nats-2", "nats-3")]
    routes = {name: free_port() for name in names}
    for name, port in sorted(routes.items(), reverse=True):  # `nats` is in the others' names
        assert f"@{name}:6222" in conf
        conf = conf.replace(f"@{name}:6222", f"@127.0.0.1:{port}")
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(node(tmp_path, conf, name, routes[name])) for name in names]
        settings = load_settings(
            {
                "RETOLD_NATS_URL": ",".join(urls),
                "RETOLD_NATS_REPLICAS": "3",
                "RETOLD_NATS_SEED_FILE": str(tmp_path / "capture" / "nats.nk"),
            }
        )
        async with asyncio.timeout(READY_S):
            bus = await connected(Server.of(settings, "capture"))
        stack.push_async_callback(bus.close)
        await ensure_shared(bus)
        await create_session(bus, session := new_id())
        told = (await bus.api(f"STREAM.INFO.{session_stream_name(session)}"))["cluster"]
        assert {told["leader"], *(replica["name"] for replica in told["replicas"])} == set(names)


def init(more: dict[str, Any], folder: Path) -> str:
    """The configuration that its command makes."""
    command = [*RETOLD, *more["services"]["init"]["command"]]
    command[command.index("/init")] = str(folder)
    subprocess.run(command, check=True, capture_output=True)
    return (folder / "nats" / "nats.conf").read_text()


async def connected(server: Server) -> Bus:
    """As soon as the servers have chosen a leader."""
    while True:
        try:
            return await connect(server, name="test")
        except UnavailableError:
            await asyncio.sleep(0.5)


@asynccontextmanager
async def node(folder: Path, conf: str, name: str, route: int) -> AsyncIterator[str]:
    """A server by the configuration, on loopback; its address."""
    path = folder / "nats" / f"{name}.conf"
    path.write_text(conf.replace('"0.0.0.0:6222"', f'"127.0.0.1:{route}"'))
    port = free_port()
    with (folder / f"{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(find_nats_server()), "--config", str(path), "-a", "127.0.0.1"),
            *("-p", str(port), "-m", str(free_port())),
            env={**os.environ, "NATS_NAME": name, "NATS_STORE": str(folder / "stores" / name)},
            cwd=folder / "nats",
            stdout=log,
            stderr=log,
        )
    try:
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
