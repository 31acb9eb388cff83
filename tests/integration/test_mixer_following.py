"""Running sessions followed on a real nats-server: files that are there at the stop, listeners, lag, and deaths."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from contracts.artifacts import MIX, Artifact, RenderJob, RenderStored
from contracts.clock import TICKS_PER_SECOND
from contracts.directory import fold_entry
from contracts.events import decode_fact
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import put_entry
from contracts.jetstream.erase import delete_session
from contracts.jetstream.forget import forget_in_session
from contracts.jetstream.jobs import submit_job, watch_render
from contracts.jetstream.lag import stream_lags
from contracts.jetstream.leases import following, is_leased
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.pull import read_stream
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.recipes import FOLLOWED, FOLLOWED_MIX, encode_recipe
from contracts.settings import Settings
from contracts.streams import FOLLOW_CONSUMER, LIVE, session_stream_name
from contracts.subjects import FactSubject, parse
from mixer import app
from mixer.formats.mp3 import FRAME_TICKS, frame_bytes
from mixer.grown import KBPS
from ops.embedded import EmbeddedServer
from tests.builders import Built, Network, build_session

pytestmark = pytest.mark.long

DEADLINE_S = 45.0
READY_S = 3.0  # the promise: from the session's end to its files
HOUR_S = 3600.0
LONG_REPORT_S = 15.0  # everybody is placed by hindsight, too; nobody waits for it
SECONDS = 40.0
FRAME_BYTES = frame_bytes(KBPS)
NETWORK = Network(jitter_ms=4, loss=0.01, skew_ppm=50)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def bus(server: EmbeddedServer) -> AsyncIterator[Bus]:
    connected = await connect(server.url, name="test")
    await ensure_shared(connected)
    yield connected
    await connected.close()


@contextlib.asynccontextmanager
async def mixing(server: EmbeddedServer, data: Path, *, follow: int = 2) -> AsyncIterator[None]:
    """A mixer that runs as in production."""
    stop = asyncio.Event()
    running = asyncio.create_task(app.run(Settings(data=data, nats_url=server.url, follow=follow), stop=stop))
    try:
        yield
    finally:
        stop.set()
        await running


class Recorder:
    """Writes a session as capture does, part by part."""

    def __init__(self, bus: Bus, built: Built) -> None:
        self._bus, self._built, self._entry = bus, built, None
        self.session = built.session
        self.written = 0

    async def write(self, share: float) -> None:
        """Up to this share of the log."""
        if not self.written:
            await create_session(self._bus, self.session)
        stop = round(len(self._built.messages) * share)
        publisher = Publisher(self._bus, keep_acked=False)
        await publisher.start()
        for count, message in enumerate(self._built.messages[self.written : stop]):
            publisher.publish(message.subject, message.message_id, message.data)
            if isinstance(parse(message.subject), FactSubject):
                self._entry = fold_entry(self._entry, decode_fact(message.data))
            if count % 1000 == 0:
                await publisher.drain(timeout_s=None)
        await publisher.drain(timeout_s=None)
        await publisher.close()
        if self._entry is not None:
            await put_entry(self._bus, self._entry)
        self.written = stop


async def until(condition: Callable[[], Awaitable[bool]], *, deadline_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(deadline_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def caught_up(bus: Bus, recorder: Recorder) -> bool:
    """Whether a follower has taken in all that is written, as `retold lag` shows it."""
    for stream in await stream_lags(bus):
        if stream.stream == session_stream_name(recorder.session):
            return any(
                consumer.name == FOLLOW_CONSUMER
                and consumer.lag_messages == 0
                and consumer.ack_floor == recorder.written
                for consumer in stream.consumers
            )
    return False


async def followed_files(bus: Bus, session: str) -> dict[str, Artifact]:
    return {
        f"{stored.artifact.recipe.format}.{stored.artifact.user_id or MIX}": stored.artifact
        for stored in await list_artifacts(bus, session)
        if stored.artifact.recipe in FOLLOWED
    }


async def complete(bus: Bus, built: Built) -> bool:
    return len(await followed_files(bus, built.session)) == 2 + len(built.people)


async def heard(bus: Bus, built: Built) -> bool:
    """Whether the mix and everybody's peaks are there."""
    return len(await followed_files(bus, built.session)) >= 1 + len(built.people)


async def rendered_anew(bus: Bus, session: str) -> dict[str, str]:
    """Digests of what renders of the ended session make, in a store without the followed files."""
    digests = {}
    for recipe in FOLLOWED:
        job = RenderJob(id=new_id(), session=session, recipe=recipe)
        await submit_job(bus, job)
        async with asyncio.timeout(DEADLINE_S):
            facts = [fact async for fact in watch_render(bus, session, job.id)]
        assert isinstance(facts[-1], RenderStored)
        for artifact in facts[-1].artifacts:
            digests[f"{recipe.format}.{artifact.user_id or MIX}"] = artifact.sha256
    return digests


def processes_in(folder: Path) -> list[int]:
    """Following processes, by their children's parent: those of whom FFmpeg was started with this as its folder."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _opens(entry, folder)]


def _opens(entry: Path, folder: Path) -> bool:
    try:
        return b"follow_process" in (entry / "cmdline").read_bytes() and any(
            str(folder) in str(link.readlink()) for link in (entry / "fd").iterdir()
        )
    except OSError:
        return False


@pytest.mark.alone
async def test_a_followed_session_has_its_files_at_the_stop(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    """Lag is shown and goes to nothing; listeners hear frames; and the files are those of a render afterwards."""
    built = build_session(SECONDS, 2, 0.5, 3, network=NETWORK, speech=True)
    recorder = Recorder(bus, built)
    async with mixing(server, tmp_path / "one"):
        await recorder.write(0.8)
        await until(lambda: caught_up(bus, recorder))
        await until(lambda: listened(bus, built.session, 3.0))
        await recorder.write(1.0)
        stopped = time.monotonic()
        await until(lambda: complete(bus, built))
        assert time.monotonic() - stopped < READY_S
        followed = {name: artifact.sha256 for name, artifact in (await followed_files(bus, built.session)).items()}
        await until(lambda: _is_free(bus, built.session))
    for stored in await list_artifacts(bus, built.session):
        await bus.api(f"STREAM.PURGE.OBJ_{built.session}", {})
        assert stored.artifact.log_end == len(built.messages)
    async with mixing(server, tmp_path / "two", follow=0):
        assert await rendered_anew(bus, built.session) == followed


async def listened(bus: Bus, session: str, seconds: float) -> bool:
    """Whether so much was published for listeners, in whole frames, each once and in order."""
    heard = [message async for message in read_stream(bus, LIVE.name, filter_subject=f"live.{session}")]
    numbers = [int(message.message_id.rpartition(".")[2]) for message in heard]
    assert all(message.data[:2] == b"\xff\xfb" for message in heard)
    sizes = [len(message.data) // FRAME_BYTES for message in heard]
    assert numbers[1:] == [number + size for number, size in zip(numbers[:-1], sizes[:-1], strict=True)]
    return sum(sizes) * FRAME_TICKS >= seconds * TICKS_PER_SECOND


async def _is_empty(folder: Path) -> bool:
    return not list(folder.iterdir())


async def _is_free(bus: Bus, session: str) -> bool:
    return not await is_leased(bus, following(session))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("seconds", "speakers", "activity"), [(3600.0, 4, 0.35), (6 * 3600.0, 25, 0.08)], ids=["an hour", "an evening"]
)
async def test_however_long_the_session_its_files_are_there_at_the_stop(
    server: EmbeddedServer, bus: Bus, tmp_path: Path, seconds: float, speakers: int, activity: float
):
    """Fed at speed up to its last seconds; then the end, and the clock runs."""
    built = build_session(seconds, speakers, activity, 3, network=NETWORK, speech=True)
    recorder = Recorder(bus, built)
    last = next(
        number for number, message in enumerate(built.messages) if number / len(built.messages) > 1 - 15 / seconds
    )
    async with mixing(server, tmp_path / "data"):
        await recorder.write(last / len(built.messages))
        await until(lambda: caught_up(bus, recorder), deadline_s=3000.0)
        await recorder.write(1.0)
        stopped = time.monotonic()
        await until(lambda: heard(bus, built))
        ready_s = time.monotonic() - stopped
        await until(lambda: complete(bus, built))
        reported_s = time.monotonic() - stopped
        print(f"mix and peaks after {ready_s:.2f} s, the report after {reported_s:.2f} s")
        assert ready_s < READY_S
        assert reported_s < (READY_S if seconds <= HOUR_S else LONG_REPORT_S)


async def test_a_follower_killed_with_9_goes_on_and_nothing_is_made_twice(
    server: EmbeddedServer, bus: Bus, tmp_path: Path
):
    built = build_session(SECONDS, 2, 0.5, 4, network=NETWORK)
    recorder = Recorder(bus, built)
    data = tmp_path / "data"
    async with mixing(server, data):
        for share in (0.3, 0.6):
            await recorder.write(share)
            await until(lambda: caught_up(bus, recorder))
            (process,) = processes_in(data)
            os.kill(process, signal.SIGKILL)
        await recorder.write(1.0)
        await until(lambda: complete(bus, built))
        mixes = [
            stored for stored in await list_artifacts(bus, built.session) if stored.artifact.recipe == FOLLOWED_MIX
        ]
        assert len(mixes) == 1
        await until(lambda: _is_empty(data / "follow"))


async def test_a_mixer_that_stops_leaves_the_session_to_the_next(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    """Another mixer, with another disk: it begins anew, and is done at the end all the same."""
    built = build_session(SECONDS, 2, 0.5, 5, network=NETWORK)
    recorder = Recorder(bus, built)
    async with mixing(server, tmp_path / "one"):
        await recorder.write(0.5)
        await until(lambda: caught_up(bus, recorder))
    async with mixing(server, tmp_path / "two"):
        await recorder.write(1.0)
        await until(lambda: complete(bus, built))


async def test_two_mixers_do_not_follow_one_session_twice(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    built = build_session(SECONDS, 2, 0.5, 6, network=NETWORK)
    recorder = Recorder(bus, built)
    async with mixing(server, tmp_path / "one"), mixing(server, tmp_path / "two"):
        await recorder.write(0.5)
        await until(lambda: caught_up(bus, recorder))
        assert len(processes_in(tmp_path / "one") + processes_in(tmp_path / "two")) == 1
        await recorder.write(1.0)
        await until(lambda: complete(bus, built))


async def test_an_erased_session_leaves_no_sound_with_its_follower(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    built = build_session(SECONDS, 2, 0.5, 7, network=NETWORK)
    recorder = Recorder(bus, built)
    data = tmp_path / "data"
    async with mixing(server, data):
        await recorder.write(0.5)
        await until(lambda: caught_up(bus, recorder))
        assert list((data / "follow").iterdir()) != []
        await delete_session(bus, built.session)

        async def gone() -> bool:
            return list((data / "follow").iterdir()) == []

        await until(gone)
        assert processes_in(data) == []


async def test_without_capacity_a_session_is_rendered_when_it_has_ended(
    server: EmbeddedServer, bus: Bus, tmp_path: Path
):
    built = build_session(SECONDS, 2, 0.5, 8, network=NETWORK)
    recorder = Recorder(bus, built)
    async with mixing(server, tmp_path / "data", follow=0):
        await recorder.write(0.5)
        assert not (tmp_path / "data" / "follow").exists()
        await recorder.write(1.0)
        await until(lambda: complete(bus, built))


async def test_what_was_followed_before_somebody_was_taken_out_does_not_come_back(
    server: EmbeddedServer, bus: Bus, tmp_path: Path
):
    """A mixer died in mid-session; the log was written anew without one person: following begins anew, too."""
    built = build_session(SECONDS, 2, 0.5, 9, network=NETWORK)
    recorder = Recorder(bus, built)
    data = tmp_path / "data"
    async with mixing(server, data):
        await recorder.write(0.6)
        await until(lambda: caught_up(bus, recorder))
    marker = data / "follow" / built.session / "birth"
    before = marker.read_text()
    await recorder.write(1.0)
    proof = await forget_in_session(bus, built.session, built.people[0].user_id, tmp_path)
    assert proof is not None
    async with mixing(server, data):

        async def mixed() -> bool:
            made = [encode_recipe(stored.artifact.recipe) for stored in await list_artifacts(bus, built.session)]
            return {encode_recipe(recipe) for recipe in FOLLOWED} <= set(made) and await _is_free(bus, built.session)

        await until(mixed)
        followed = {name: artifact.sha256 for name, artifact in (await followed_files(bus, built.session)).items()}
    assert not marker.exists() or marker.read_text() != before
    await bus.api(f"STREAM.PURGE.OBJ_{built.session}", {})
    async with mixing(server, tmp_path / "other", follow=0):
        assert await rendered_anew(bus, built.session) == followed
