"""The stack as docker-compose.yml and the Dockerfiles say it, as plain processes (tests.containers).

nginx and Prometheus are of it where they are installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from contracts.commands import StartRecording, StopRecording
from contracts.jetstream.asking import ask_status, start_recording, stop_recording
from contracts.jetstream.connection import connect
from contracts.jetstream.directory import get_entry
from contracts.jetstream.replay import replay
from contracts.jetstream.server import Server
from contracts.keys import load_signing_key
from contracts.links import new_claims, page_path, sign_link
from contracts.settings import load_settings
from ops.embedded import free_port
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from tests.containers import PROGRAMS, Container, answers
from tests.deployment import read_compose

pytestmark = pytest.mark.long

DEADLINE_S = 25.0
GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
SERVICES = ("init", "nats", "capture", "mixer", "gateway", "keeper", "metrics")
WATCHED = {"nginx": PROGRAMS, "prometheus": PROGRAMS}  # other people's programs, and where they are looked for
SEEDS = {"capture": "capture", "mixer": "mixer", "gateway": "gateway", "keeper": "keeper", "metrics": "monitor"}
PORTS = ("nats", "monitor", "gateway", "nginx", "prometheus", "capture", "mixer", "metrics", "keeper")


class Stack:
    """The services of the compose file."""

    def __init__(self, folder: Path, token: str) -> None:
        self.ports = {name: free_port() for name in PORTS}
        self._services = read_compose({"RETOLD_DISCORD_TOKEN": token})["services"]
        names = (*SERVICES, *WATCHED)
        self.containers = {name: Container(name, self._services[name], folder, self.ports) for name in names}
        self.url = f"http://127.0.0.1:{self.ports['nginx' if installed('nginx') else 'gateway']}"
        self.operator = folder / "volumes" / "key-operator" / "nats.nk"

    def __getitem__(self, name: str) -> Container:
        return self.containers[name]

    @property
    def server(self) -> Server:
        """As the operator finds it."""
        environ = {"RETOLD_NATS_SEED_FILE": str(self.operator)}
        return Server.of(load_settings({**self["capture"].environ, **environ}), "operator")

    @contextlib.asynccontextmanager
    async def running(self, *names: str, discord: dict[str, str]) -> AsyncIterator[None]:
        """Start them in the order that the compose file asks for; nothing of them is left on exit."""
        for name in names:
            self[name].build()
        try:
            for name in names:
                await self._start(name, discord)
            yield
        finally:
            for name in names:
                self[name].kill()

    async def _start(self, name: str, discord: dict[str, str]) -> None:
        for needed, when in self._services[name].get("depends_on", {}).items():
            if when["condition"] == "service_completed_successfully":
                assert await self[needed].done() == 0, self[needed].log.read_text()
            else:
                await self.until_healthy(needed)
        await self[name].start(discord if name == "capture" else {})

    async def until_healthy(self, *names: str, well: bool = True) -> None:
        """Wait until each health check succeeds, or fails."""
        checks = {name: self[name].healthy for name in names}
        await asyncio.gather(
            *(until(check, f"{name} should be well: {well}", expected=well) for name, check in checks.items())
        )

    async def stop(self, *names: str) -> None:
        """End them one after another; each has to be done with it, and in time."""
        for name in names:
            code = await self[name].stop()
            assert code == 0, f"{name} ended with {code}:\n{self[name].log.read_text()}"


async def test_the_stack_comes_up_records_and_ends_in_order(tmp_path: Path):
    """Every health check succeeds, a call becomes a page, the figures are scraped, keys are where they belong."""
    names = (*SERVICES, *filter(installed, WATCHED))
    running = names[1:]  # `init` has ended
    async with a_discord(tmp_path) as discord:
        stack = Stack(tmp_path, discord.token)
        async with stack.running(*names, discord=addresses(discord)):
            await stack.until_healthy(*running)
            session = await record(stack, discord)
            page = page_link(stack, session)
            await until(lambda: answers(page), "the page should open")
            if "prometheus" in running:
                await until(lambda: every_target_answers(stack), "Prometheus should see everybody")
                await until(lambda: knows_the_disk(stack), "the exporter may ask all that it needs")
            if "nginx" in running:
                assert not await answers(f"{stack.url}/metrics")
            check_keys(stack, names)
            await stack.stop(*reversed(running))
            await check_second_up(stack, session, tmp_path / "volumes")
        assert [path for name in names for path in stack[name].written_outside_mounts()] == []
        for name in names:
            assert "permissions violation" not in stack[name].log.read_text().lower()
        assert session.encode() not in everything_in(tmp_path / "volumes" / "nats", "*.blk"), "the store is encrypted"


async def test_who_loses_nats_is_not_well_until_it_is_back(tmp_path: Path):
    """The health checks tell the truth about a service that runs and can do nothing; nobody has to be restarted."""
    async with a_discord(tmp_path) as discord:
        stack = Stack(tmp_path, discord.token)
        async with stack.running("init", "nats", "capture", "mixer", discord=addresses(discord)):
            await stack.until_healthy("capture", "mixer")
            await stack.stop("nats")
            await stack.until_healthy("capture", "mixer", well=False)
            await stack["nats"].start({})
            await stack.until_healthy("capture", "mixer")


async def test_capture_ends_when_asked_to_before_discord_answers(tmp_path: Path):
    """A Discord that takes the connection and says nothing does not hold up the end; capture was not well meanwhile."""
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    stack = Stack(tmp_path, "token")
    discord = {"RETOLD_DISCORD_API_URL": f"http://127.0.0.1:{port}/api/v10"}
    async with silent, stack.running("init", "nats", "capture", discord=discord):
        async with asyncio.timeout(DEADLINE_S):
            await asked.wait()
        assert not await stack["capture"].healthy()
        await stack.stop("capture", "nats")


def a_discord(folder: Path) -> LoopbackDiscord:
    """One person says something."""
    (folder / "discord").mkdir()
    plan = CallPlan(
        people=(Person(user_id=501, name="Ada", voice=0),),
        utterances=(Utterance(user_id=501, start_s=0.2, stop_s=1.0),),
        seconds=1.5,
    )
    return LoopbackDiscord(plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=folder / "discord")


def addresses(discord: LoopbackDiscord) -> dict[str, str]:
    """Where it is; the token comes by the compose file."""
    return {name: value for name, value in discord.environ.items() if name != "RETOLD_DISCORD_TOKEN"}


async def record(stack: Stack, discord: LoopbackDiscord) -> str:
    """A whole call; the session."""
    bus = await connect(stack.server, name="test")
    try:
        assert (await ask_status(bus)).ready
        started = await start_recording(bus, StartRecording(guild_id=str(GUILD), channel_id=str(CHANNEL)))
        await discord.wait_for_bot(timeout_s=DEADLINE_S)
        await discord.talk()
        stopped = await stop_recording(bus, StopRecording(guild_id=str(GUILD)))
    finally:
        await bus.close()
    assert stopped.recorded > 0
    assert stopped.undecryptable == 0
    return started.session


def page_link(stack: Stack, session: str) -> str:
    """Signed with the key that capture made."""
    key = load_signing_key(stack["capture"].root / "data" / "keys")
    claims = new_claims(sub="test", session=session, action="page", obj="", now_s=int(time.time()), lifetime_s=600)
    return stack.url + page_path(sign_link(claims, key))


def seen_by(container: Container) -> list[Path]:
    """Every file below its root, volumes included."""
    places = os.walk(container.root, followlinks=True)
    return [Path(place) / name for place, _, names in places for name in names]


def is_private_key(path: Path) -> bool:
    return path.suffix == ".pem" and "PRIVATE" in path.read_text()


async def until(condition: Callable[[], Awaitable[bool]], what: str, *, expected: bool = True) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while await condition() is not expected:
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"{what}, within {DEADLINE_S} s")


async def every_target_answers(stack: Stack) -> bool:
    """Whether Prometheus, as it is configured, reaches every service that has figures."""
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{stack.ports['prometheus']}/api/v1/query"
        found = (await client.get(url, params={"query": "up"})).json()["data"]["result"]
    return sorted((each["metric"]["job"], each["value"][1]) for each in found) == [
        (f"retold-{name}", "1") for name in ("capture", "gateway", "keeper", "metrics", "mixer")
    ]


async def knows_the_disk(stack: Stack) -> bool:
    """Whether the exporter looked: by its own NKEY, and by the server's monitoring address."""
    async with httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{stack.ports['prometheus']}/api/v1/query"
        asked = "retold_storage_room_bytes and retold_sessions_stored > 0"
        return bool((await client.get(url, params={"query": asked})).json()["data"]["result"])


async def check_second_up(stack: Stack, session: str, volumes: Path) -> None:
    """`init` runs again at each `docker compose up`: what it made stays, and what was recorded opens."""
    before = {path: path.read_bytes() for path in volumes.rglob("*.nk")}
    await stack["init"].start({})
    assert await stack["init"].done() == 0
    assert {path: path.read_bytes() for path in volumes.rglob("*.nk")} == before
    await stack["nats"].start({})
    await stack.until_healthy("nats")
    bus = await connect(stack.server, name="test")
    assert await get_entry(bus, session) is not None
    assert [message async for message in replay(bus, session)]
    await bus.close()
    await stack.stop("nats")


def check_keys(stack: Stack, names: tuple[str, ...]) -> None:
    """Only capture sees a key that signs links, each service one seed, only NATS the store's key."""
    seen = {name: seen_by(stack[name]) for name in names if name != "init"}
    assert [name for name, files in seen.items() if any(map(is_private_key, files))] == ["capture"]
    assert [name for name, files in seen.items() if any(path.name == "store.conf" for path in files)] == ["nats"]
    made = seen_by(stack["init"])
    for name, files in seen.items():
        seeds = [path.resolve() for path in files if path.suffix == ".nk"]
        own = [path.resolve() for path in made if path.suffix == ".nk" and path.parent.name == SEEDS.get(name)]
        assert seeds == own, name


def everything_in(folder: Path, pattern: str) -> bytes:
    """The bytes of every such file."""
    return b"".join(path.read_bytes() for path in folder.rglob(pattern))


def installed(program: str) -> bool:
    """Whether somebody else's program is there."""
    return program not in WATCHED or shutil.which(program, path=WATCHED[program]) is not None
