"""Three nats-servers, of which one is killed every twenty seconds, while everything that Retold does is done."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts.artifacts import Artifact, RenderJob, RenderStored
from contracts.commands import StartRecording, StopRecording
from contracts.events import SessionEnded, TakeOpened, count_outcomes, decode_fact
from contracts.ids import new_id
from contracts.jetstream.asking import start_recording, stop_recording
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.jobs import submit_job, watch_renders
from contracts.jetstream.objects import list_artifacts, put_artifact, read_artifact
from contracts.jetstream.replay import replay
from contracts.jetstream.streams import ensure_shared
from contracts.keys import load_signing_key
from contracts.linker import Linker
from contracts.recipes import Recipe
from contracts.settings import Settings
from contracts.streams import JOBS, session_stream_name
from contracts.subjects import facts
from ops.embedded import EmbeddedServer, addresses, embedded_cluster
from ops.loopback.plan import make_plan
from ops.loopback.server import LoopbackDiscord
from tests.gateway_server import read_log
from tests.killable import CHANNEL, GUILD, key, recorded

EVERY_S = 20.0
DEAD_S = 5.0
READY_S = 60.0
BIG_BYTES = 48 * 1024 * 1024
RATE = "6M"  # of a download: eight seconds, so that some are hit
CURL = shutil.which("curl")
Processes = dict[str, asyncio.subprocess.Process]


class Stack:
    """A cluster, two captures, two mixers and two gateways, with a call to record."""

    def __init__(self, folder: Path, nodes: list[EmbeddedServer], discord: LoopbackDiscord, bus: Bus) -> None:
        self.folder, self.nodes, self.discord, self.bus = folder, nodes, discord, bus
        self.processes: Processes = {}
        self.stored: list[RenderStored] = []
        self.settings = Settings(data=folder / "gateway-1")
        load_signing_key(self.settings.data / "keys")

    async def start(self, name: str) -> None:
        """A service by its name and number; gateways share the folder of keys."""
        service = name.partition("-")[0]
        environ = {each: value for each, value in os.environ.items() if not each.startswith("RETOLD_")}
        environ |= self.discord.environ if service == "capture" else {}
        environ |= {
            "RETOLD_NATS_URL": addresses(self.nodes),
            "RETOLD_NATS_REPLICAS": "3",
            "RETOLD_DATA": str(self.settings.data if service == "gateway" else self.folder / name),
            "RETOLD_GATEWAY_PORT": "0",
        }
        with self.log_of(name).open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", service, env=environ, stdout=log, stderr=log
            )

    def log_of(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    async def said(self, name: str, event: str) -> dict[str, object]:
        """The first line of a log with this event."""
        async with asyncio.timeout(READY_S):
            while True:
                for line in read_log(self.log_of(name)):
                    if line.get("event") == event:
                        return line
                await asyncio.sleep(0.1)

    async def kill_nodes(self, times: int) -> None:
        """One after the other; the next only when the one before is back with all that it missed."""
        for number in range(times):
            await asyncio.sleep(EVERY_S - DEAD_S)
            node = self.nodes[number % len(self.nodes)]
            await node.kill()
            await asyncio.sleep(DEAD_S)
            await node.start()

    async def end(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), READY_S)
            if process.returncode is None:
                process.kill()


@contextlib.asynccontextmanager
async def stack(folder: Path, *, seconds: float) -> AsyncIterator[Stack]:
    plan = make_plan(seconds=seconds, speakers=3, seed=5, joins=False)
    discord = LoopbackDiscord(plan=plan, guild_id=GUILD, channel_id=CHANNEL, directory=folder)
    async with embedded_cluster(folder / "nats") as nodes, discord:
        bus = await connect(addresses(nodes), name="test", replicas=3)
        await ensure_shared(bus)
        here = Stack(folder, nodes, discord, bus)

        async def note(fact: object) -> None:
            if isinstance(fact, RenderStored):
                here.stored.append(fact)

        await watch_renders(bus, note)
        try:
            for name in ("capture-1", "mixer-1", "mixer-2", "gateway-1", "gateway-2"):
                await here.start(name)
            await here.said("capture-1", "capture_ready")
            await here.start("capture-2")  # waits for its turn
            for name in ("gateway-1", "gateway-2"):
                await here.said(name, "gateway_listening")
            yield here
        finally:
            await here.end()
            await bus.close()


async def big_file(here: Stack, session: str) -> Artifact:
    """Something to download for a while, in a session's bucket."""
    data = random.Random(1).randbytes(BIG_BYTES)
    path = here.folder / "big"
    path.write_bytes(data)
    artifact = Artifact(
        name="big-mix.mp3",
        session=session,
        filename="big.mp3",
        recipe=Recipe(output="mix", format="mp3"),
        log_end=1,
        engine="test",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        duration_ticks=1,
        rendered_unix_ns=1,
    )
    await put_artifact(here.bus, artifact, path)
    return artifact


async def download(here: Stack, artifact: Artifact, done: asyncio.Event) -> tuple[int, int]:
    """Again and again, from whichever gateway lives; how many files came whole, and how often curl had to resume."""
    assert CURL is not None
    whole = resumed = 0
    while not done.is_set():
        target = here.folder / "downloaded"
        target.unlink(missing_ok=True)
        while not target.exists() or target.stat().st_size < artifact.bytes:
            living = [name for name in ("gateway-1", "gateway-2") if here.processes[name].returncode is None]
            address = str((await here.said(living[whole % len(living)], "gateway_listening"))["address"])
            settings = msgspec.structs.replace(here.settings, public_url=address)
            link = Linker(settings).download(artifact.session, artifact.name, artifact.filename)
            command = [CURL, "-sS", "--fail", "--limit-rate", RATE, "-C", "-", "-o", str(target), link]
            process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
            if await process.wait() != 0:
                resumed += 1
                await asyncio.sleep(0.5)
        digest = hashlib.sha256(await asyncio.to_thread(target.read_bytes)).hexdigest()
        assert digest == artifact.sha256
        whole += 1
    return whole, resumed


async def render(here: Stack, session: str, done: asyncio.Event) -> list[str]:
    """A job every few seconds, each another mix; their ids."""
    jobs: list[str] = []
    while not done.is_set():
        recipe = Recipe(output="mix", format="opus", bitrate_kbps=32 + len(jobs))
        job = RenderJob(id=new_id(), session=session, recipe=recipe, requested_by="tests")
        await submit_job(here.bus, job)
        jobs.append(job.id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(8.0):
                await done.wait()
    return jobs


async def lose_helpers(here: Stack) -> None:
    """A mixer and a gateway are killed, too; the others do their work."""
    await asyncio.sleep(EVERY_S * 1.2)
    for name in ("mixer-1", "gateway-2"):
        here.processes[name].kill()
        await here.processes[name].wait()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("kills", [3, 9])
async def test_any_server_may_die_at_any_time(tmp_path: Path, kills: int) -> None:
    """Nothing is lost, nothing is doubled, downloads resume, renders come, and the session goes on in one take."""
    async with stack(tmp_path, seconds=kills * EVERY_S + 8) as here:
        request = StartRecording(guild_id=str(GUILD), channel_id=str(CHANNEL))
        first = (await start_recording(here.bus, request)).session
        await here.discord.wait_for_bot()
        await asyncio.sleep(3.0)
        await stop_recording(here.bus, StopRecording(guild_id=str(GUILD)))
        artifact = await big_file(here, first)
        session = (await start_recording(here.bus, request)).session
        await here.discord.wait_for_bot()
        done = asyncio.Event()
        working = asyncio.gather(download(here, artifact, done), render(here, session, done))
        await asyncio.gather(here.discord.talk(), here.kill_nodes(kills), lose_helpers(here))
        done.set()
        (whole, resumed), jobs = await working
        stopped = await stop_recording(here.bus, StopRecording(guild_id=str(GUILD)))
        assert stopped.session == session
        await check_log(here, session)
        await check_renders(here, session, jobs)
        assert whole >= kills
        assert "shard_taken" not in here.log_of("capture-2").read_text(), "it took over from one that lives"
        print(f"kills {kills}, files {whole}, resumed {resumed}, renders {len(jobs)}")


async def check_log(here: Stack, session: str) -> None:
    """Every packet is there once, in one take, and the end says how many."""
    found = await recorded(here.bus, session)
    owed = {key(frame) for frame in here.discord.journal.owed()}
    assert owed
    assert owed == set(found)
    assert max(found.values()) == 1
    told = [decode_fact(message.data) async for message in replay(here.bus, session, filter_subject=facts(session))]
    assert [fact.take for fact in told if isinstance(fact, TakeOpened)] == [1]
    (ended,) = [fact for fact in told if isinstance(fact, SessionEnded)]
    assert count_outcomes(ended.tracks)["recorded"] == sum(found.values())
    ids = Counter([message.message_id async for message in replay(here.bus, session)])
    assert max(ids.values()) == 1
    copies = (await here.bus.api(f"STREAM.INFO.{session_stream_name(session)}"))["config"]["num_replicas"]
    assert copies == 3


async def check_renders(here: Stack, session: str, jobs: list[str]) -> None:
    """Each job was done, its file is whole, and no file is there twice; the queue is empty."""
    async with asyncio.timeout(READY_S * 2):
        while not set(jobs) <= {fact.job for fact in here.stored}:
            await asyncio.sleep(0.2)
        while (await here.bus.api(f"STREAM.INFO.{JOBS.name}"))["state"]["messages"]:
            await asyncio.sleep(0.2)
    stored = await list_artifacts(here.bus, session)
    assert max(Counter(each.artifact.name for each in stored).values()) == 1
    for each in stored:
        digest = hashlib.sha256()
        async for piece in read_artifact(here.bus, each):
            digest.update(piece)
        assert digest.hexdigest() == each.artifact.sha256
