"""The mixer on a real nats-server: sessions in streams become files in the object store that sound as planned."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from contracts.artifacts import Artifact, RenderFailed, RenderJob, RenderProgressed, RenderStored
from contracts.clock import TICKS_PER_SECOND
from contracts.directory import fold_entry
from contracts.events import SpeakerWithheld, decode_fact, encode_fact
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import put_entry
from contracts.jetstream.jobs import JobQueue, failed_renders, submit_job, watch_render
from contracts.jetstream.leases import following, take_lease
from contracts.jetstream.objects import find_artifact, list_artifacts, read_artifact, remove_artifact
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.presets import PRESETS
from contracts.recipes import DEFAULT_RECIPES, Recipe, encode_recipe
from contracts.settings import Settings
from contracts.subjects import FactSubject, facts, parse
from mixer import app, worker
from mixer.autorender import AutoRender
from ops.embedded import EmbeddedServer
from tests.builders import Built, Network, build_session
from tests.judge import decode_file, verdicts

DEADLINE_S = 45.0
PLAN = [[(1.0, 4.0), (7.5, 10.5)], [(3.0, 8.0)]]
SECONDS = 12.0


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
async def mixing(server: EmbeddedServer, *, auto_render: bool = False) -> AsyncIterator[None]:
    """A mixer that runs as in production."""
    stop = asyncio.Event()
    settings = Settings(data=server.store.parent, nats_url=server.url, auto_render=auto_render)
    running = asyncio.create_task(app.run(settings, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def publish(bus: Bus, built: Built, *, listed: bool = True, mix: Recipe | None = None) -> None:
    """The session on its stream, and in the directory, as capture leaves it; `mix` was asked for at its start."""
    await create_session(bus, built.session)
    entry = None
    for message in built.messages:
        await bus.publish(message.subject, message.data, message_id=message.message_id)
        if isinstance(parse(message.subject), FactSubject):
            entry = fold_entry(entry, decode_fact(message.data))
    if listed and entry is not None:
        await put_entry(bus, msgspec.structs.replace(entry, mix=mix))


async def outcome(bus: Bus, session: str, job: str) -> list:
    """Every fact that a job tells, to its end."""
    async with asyncio.timeout(DEADLINE_S):
        return [fact async for fact in watch_render(bus, session, job)]


async def order(bus: Bus, session: str, recipe: Recipe) -> list:
    job = RenderJob(id=new_id(), session=session, recipe=recipe)
    await submit_job(bus, job)
    return await outcome(bus, session, job.id)


async def download(bus: Bus, artifact: Artifact, directory: Path) -> Path:
    stored = await find_artifact(bus, artifact.session, artifact.name)
    assert stored is not None
    path = directory / artifact.name
    path.write_bytes(b"".join([piece async for piece in read_artifact(bus, stored)]))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == artifact.sha256
    return path


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_a_job_becomes_files_that_sound_as_planned(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    """From the stream to the object store: every track, in time, with progress on the way and the result kept."""
    built = build_session(SECONDS, 2, seed=5, plan=PLAN, network=Network(jitter_ms=4, loss=0.01, duplicates=0.3))
    await publish(bus, built)
    async with mixing(server):
        for kind in ("flac", "opus"):
            facts = await order(bus, built.session, Recipe(output="tracks", format=kind))
            stored = facts[-1]
            assert isinstance(stored, RenderStored)
            assert not stored.cached
            assert any(isinstance(fact, RenderProgressed) for fact in facts[:-1])
            assert [artifact.user_id for artifact in stored.artifacts] == [person.user_id for person in built.people]
            for artifact, person in zip(stored.artifacts, built.people, strict=True):
                pcm = decode_file(await download(bus, artifact, tmp_path))
                assert len(pcm) == artifact.duration_ticks == SECONDS * TICKS_PER_SECOND
                assert verdicts(pcm, person.spoke) == []


async def test_a_range_of_a_long_session_sounds_as_planned(server: EmbeddedServer, bus: Bus, tmp_path: Path):
    """Of the log only the range and what tells its clocks is read; the clip is right all the same."""
    built = build_session(600.0, 2, 0.4, seed=15, network=Network(jitter_ms=4, skew_ppm=80))
    await publish(bus, built)
    start_s, stop_s = 400.0, 430.0
    recipe = Recipe(
        format="flac", start_tick=round(start_s * TICKS_PER_SECOND), stop_tick=round(stop_s * TICKS_PER_SECOND)
    )
    async with mixing(server):
        stored = (await order(bus, built.session, recipe))[-1]
    assert isinstance(stored, RenderStored)
    pcm = decode_file(await download(bus, stored.artifacts[0], tmp_path))
    assert len(pcm) == (stop_s - start_s) * TICKS_PER_SECOND
    spoke = [(first - start_s, last - start_s) for person in built.people for first, last in person.spoke]
    assert verdicts(pcm, spoke) == []


async def test_the_same_request_again_is_answered_from_the_store(server: EmbeddedServer, bus: Bus):
    built = build_session(SECONDS, 2, seed=6, plan=PLAN)
    await publish(bus, built)
    recipe = Recipe(output="tracks", format="opus")
    async with mixing(server):
        first = (await order(bus, built.session, recipe))[-1]
        second = (await order(bus, built.session, recipe))[-1]
    assert not first.cached
    assert second.cached
    assert {artifact.sha256 for artifact in first.artifacts} == {artifact.sha256 for artifact in second.artifacts}


async def test_what_cannot_be_made_fails_at_once_with_a_reason(server: EmbeddedServer, bus: Bus):
    built = build_session(SECONDS, 2, seed=7, plan=PLAN)
    await publish(bus, built)
    async with mixing(server):
        for session, recipe, words in (
            (new_id(), Recipe(), "there is no session"),
            (built.session, Recipe(people=("42",)), "not in this session: 42"),
            (built.session, Recipe(start_tick=60 * TICKS_PER_SECOND), "12.000 s long"),
        ):
            facts = await order(bus, session, recipe)
            assert isinstance(facts[-1], RenderFailed)
            assert not facts[-1].retrying
            assert words in facts[-1].reason


async def test_a_failing_job_is_tried_five_times_and_given_up(
    server: EmbeddedServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    """A damaged log is nobody's request: it is retried, and ends as a failure that says why."""
    monkeypatch.setattr("mixer.worker.RETRY_DELAYS_S", (0.05,))
    built = build_session(SECONDS, 1, seed=8, plan=PLAN[:1])
    await publish(bus, built)
    monkeypatch.setattr("mixer.making.write_log", spoil_log)
    async with mixing(server):
        facts = await order(bus, built.session, Recipe())
    failures = [fact for fact in facts if isinstance(fact, RenderFailed)]
    assert not failures[-1].retrying
    assert "bundle" in failures[-1].reason
    pending = await bus.api("STREAM.INFO.JOBS")
    assert pending["state"]["messages"] == 0
    (dead,) = await failed_renders(bus)
    assert (dead.session, dead.reason) == (built.session, failures[-1].reason)


async def spoil_log(path: Path, _session: str, messages: AsyncIterator) -> int:
    """A disk that lost the log's end."""
    path.write_bytes(b"RETOLD-BUNDLE 1\n")
    return len([message async for message in messages])


async def test_a_mixer_that_stops_in_mid_job_gives_it_back(server: EmbeddedServer, bus: Bus):
    """A stopped mixer's job is finished by the next one, without waiting for the queue to notice."""
    built = build_session(120.0, 2, seed=9, activity=0.8)
    await publish(bus, built)
    job = RenderJob(id=new_id(), session=built.session, recipe=Recipe())
    async with mixing(server):
        await submit_job(bus, job)
        facts = watch_render(bus, built.session, job.id)
        async with asyncio.timeout(DEADLINE_S):
            assert isinstance(await anext(facts), RenderProgressed)
        await facts.aclose()
    async with mixing(server):
        assert isinstance((await outcome(bus, built.session, job.id))[-1], RenderStored)


async def test_an_ended_session_gets_its_default_files_by_itself(server: EmbeddedServer, bus: Bus):
    """Also one that ended while no mixer was up, and each file once."""
    earlier, later, running = (
        build_session(SECONDS, 2, seed=seed, plan=PLAN, end=end) for seed, end in ((10, True), (11, True), (12, False))
    )
    await publish(bus, earlier)
    await publish(bus, running)

    async def rendered(built: Built, *also: Recipe) -> bool:
        artifacts = [stored.artifact for stored in await list_artifacts(bus, built.session)]
        everybody = [person.user_id for person in built.people]
        return {(encode_recipe(artifact.recipe), artifact.user_id) for artifact in artifacts} == {
            (encode_recipe(recipe), user)
            for recipe in (*DEFAULT_RECIPES, *also)
            for user in (everybody if (recipe.output, recipe.container) == ("tracks", "files") else [None])
        }

    async with mixing(server, auto_render=True):
        await until(lambda: rendered(earlier))
        await publish(bus, later, mix=PRESETS["raw"])
        await until(lambda: rendered(later, PRESETS["raw"]))
    assert await list_artifacts(bus, running.session) == []


async def test_what_a_follower_makes_goes_before_the_rest(bus: Bus):
    """While somebody is at the default mix of a session that has ended, no render takes their time."""
    built = build_session(SECONDS, 2, seed=13, plan=PLAN)
    lease = await take_lease(bus, following(built.session), new_id())
    async with JobQueue(bus) as queue:
        auto = asyncio.create_task(AutoRender(bus).run())
        await publish(bus, built)
        assert await queue.take(timeout_s=2.5) is None
        await lease.release()
        deliveries = [await queue.take() for _ in DEFAULT_RECIPES]
        auto.cancel()
    asked = {encode_recipe(delivery.job.recipe) for delivery in deliveries if delivery}
    assert asked == {encode_recipe(recipe) for recipe in DEFAULT_RECIPES}


async def test_what_was_made_of_a_part_of_the_log_does_not_stand_for_the_whole(server: EmbeddedServer, bus: Bus):
    """Somebody mixes a session that still runs; at its end the default mix is made all the same, as long as it is."""
    built = build_session(SECONDS, speakers=2, activity=0.5, seed=3, plan=PLAN)
    half = len(built.messages) // 2
    await create_session(bus, built.session)
    for message in built.messages[:half]:
        await bus.publish(message.subject, message.data, message_id=message.message_id)
    async with mixing(server):
        early = (await order(bus, built.session, DEFAULT_RECIPES[0]))[-1]
    assert isinstance(early, RenderStored)
    await publish(bus, built)

    async def complete() -> bool:
        stored = await list_artifacts(bus, built.session)
        return {recipe.format for recipe in DEFAULT_RECIPES} == {
            one.artifact.recipe.format for one in stored if one.artifact.log_end == len(built.messages)
        }

    async with mixing(server, auto_render=True):
        await until(complete)
    mixes = [one.artifact for one in await list_artifacts(bus, built.session) if one.artifact.recipe.output == "mix"]
    assert len(mixes) == 2
    assert {mix.duration_ticks for mix in mixes} != {early.artifacts[0].duration_ticks}


async def test_who_was_withheld_is_not_rendered_though_it_is_in_the_log(
    server: EmbeddedServer, bus: Bus, tmp_path: Path
):
    """Whatever brought it there: from the moment of the fact on, that person's track is silence, the other's is not."""
    built = build_session(SECONDS, 2, seed=11, plan=PLAN)
    await publish(bus, built)
    first, second = built.people
    withheld = SpeakerWithheld(
        id=new_id(), session=built.session, at_ns=6 * 10**9, unix_ns=0, user_id=first.user_id, why="opted_out"
    )
    await bus.publish(facts(built.session), encode_fact(withheld), message_id=withheld.id)
    async with mixing(server):
        (*_, stored) = await order(bus, built.session, Recipe(output="tracks", format="flac"))
    files = {each.user_id: decode_file(await download(bus, each, tmp_path)) for each in stored.artifacts}
    assert verdicts(files[first.user_id], first.spoke[:1]) == []
    assert not files[first.user_id][6 * TICKS_PER_SECOND :].any()
    assert verdicts(files[second.user_id], second.spoke) == []


async def test_what_was_made_of_a_log_that_was_rewritten_meanwhile_does_not_stay(
    server: EmbeddedServer, bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    """Somebody was taken out while the render ran: its files go, and it is made again."""
    built = build_session(SECONDS, 2, seed=12, plan=PLAN)
    await publish(bus, built)
    births = iter(["before", "after"])

    async def birth(*_: object) -> str:
        return next(births, "after")

    monkeypatch.setattr(worker, "log_birth", birth)
    seen: list[int] = []

    async def remove(bus: Bus, session: str, name: str) -> None:
        await remove_artifact(bus, session, name)
        seen.append(len(await list_artifacts(bus, session)))

    monkeypatch.setattr(worker, "remove_artifact", remove)
    async with mixing(server):
        told = await order(bus, built.session, Recipe(output="tracks", format="opus"))
    assert seen == [1, 0]
    assert [fact.retrying for fact in told if isinstance(fact, RenderFailed)] == [True]
    assert isinstance(told[-1], RenderStored)
    assert not told[-1].cached
