"""The work queue: every job is done once by somebody, and no mixer's death or bad job stops it."""

from __future__ import annotations

import asyncio

import pytest

from contracts.artifacts import RenderFailed, RenderJob, RenderProgressed, RenderStored
from contracts.errors import UnavailableError
from contracts.ids import new_id
from contracts.jetstream import jobs as jobs_module
from contracts.jetstream import rendering
from contracts.jetstream.connection import Bus, JetStreamError
from contracts.jetstream.jobs import Delivery, JobQueue, publish_render_fact, submit_job, watch_render
from contracts.jetstream.lag import ConsumerLag, stream_lags
from contracts.jetstream.streams import ensure_shared
from contracts.recipes import Recipe
from contracts.streams import JOBS, MAX_DELIVER, RENDER_CONSUMER
from contracts.subjects import JOBS_RENDER

ACK_WAIT_S = 1  # for these tests; in production 30


@pytest.fixture(autouse=True)
async def empty_queue(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue without jobs, whose patience is short."""
    monkeypatch.setattr(jobs_module, "ACK_WAIT_S", ACK_WAIT_S)
    await bus.api(f"STREAM.DELETE.{JOBS.name}")
    await ensure_shared(bus)


def job(number: int = 1) -> RenderJob:
    return RenderJob(id=f"{new_id()}{number}", session="s", recipe=Recipe())


async def taken(queue: JobQueue, timeout_s: float = 5.0) -> Delivery:
    delivery = await queue.take(timeout_s=timeout_s)
    assert delivery is not None
    return delivery


async def queue_lag(bus: Bus) -> ConsumerLag:
    (lag,) = [lag for lag in await stream_lags(bus) if lag.stream == JOBS.name]
    (consumer,) = [consumer for consumer in lag.consumers if consumer.name == RENDER_CONSUMER]
    return consumer


async def test_a_job_is_taken_once_and_gone_when_done(bus: Bus):
    """Submitted, taken, done: the queue is empty, and its lag is 0."""
    async with JobQueue(bus) as queue:
        wanted = job()
        await submit_job(bus, wanted)
        delivery = await taken(queue)
        assert (delivery.job, delivery.attempt, delivery.last_attempt) == (wanted, 1, False)
        assert (await queue_lag(bus)).ack_pending == 1
        await delivery.done()
        assert await queue.take(timeout_s=0.1) is None
        assert (await queue_lag(bus)).lag_messages == 0


async def test_who_asks_waits_while_a_mixer_is_at_other_jobs(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """And is told that none is there, if none is; the job stays."""
    monkeypatch.setattr(rendering, "SILENT_S", 0.3)
    asking = rendering.render(bus, "s", Recipe(), by="test", progress=lambda _fraction: None)
    with pytest.raises(UnavailableError, match="does one run\\? The job stays in the queue"):
        await asking
    async with JobQueue(bus) as queue:
        first = await taken(queue)
        patient = asyncio.create_task(
            rendering.render(bus, "s", Recipe(format="flac"), by="test", progress=lambda _fraction: None)
        )
        await asyncio.sleep(1.0)
        assert not patient.done()
        await first.done()
        second = await taken(queue)
        stored = RenderStored(job=second.job.id, session="s", unix_ns=1, artifacts=())
        await publish_render_fact(bus, stored)
        await second.done()
        assert await patient == stored


async def test_no_job_is_none_after_the_time(bus: Bus):
    """`take` waits no longer than it was told."""
    async with JobQueue(bus) as queue, asyncio.timeout(2):
        assert await queue.take(timeout_s=0.3) is None


async def test_a_waiting_mixer_gets_a_job_at_once(bus: Bus):
    """Not only at its next question."""
    async with JobQueue(bus) as queue, asyncio.timeout(5):
        waiting = asyncio.create_task(taken(queue, timeout_s=10))
        await submit_job(bus, job())
        await (await waiting).done()


async def test_the_same_job_twice_is_one(bus: Bus):
    """The id makes asking twice harmless."""
    async with JobQueue(bus) as queue:
        wanted = job()
        await submit_job(bus, wanted)
        await submit_job(bus, wanted)
        await (await taken(queue)).done()
        assert await queue.take(timeout_s=0.2) is None


async def test_a_retry_comes_again_until_the_last_attempt(bus: Bus):
    """Attempts count from 1; the last one says so, and after it the queue gives the job to nobody."""
    async with JobQueue(bus) as queue:
        await submit_job(bus, job())
        for attempt in range(1, MAX_DELIVER + 1):
            delivery = await taken(queue)
            assert (delivery.attempt, delivery.last_attempt) == (attempt, attempt == MAX_DELIVER)
            await delivery.retry(0.01)
        assert await queue.take(timeout_s=0.3) is None


async def test_a_retry_waits_as_long_as_it_was_told(bus: Bus):
    """Not before the delay, and after it."""
    async with JobQueue(bus) as queue:
        await submit_job(bus, job())
        await (await taken(queue)).retry(0.6)
        assert await queue.take(timeout_s=0.2) is None
        assert (await taken(queue)).attempt == 2


async def test_a_job_of_a_dead_mixer_goes_to_another(bus: Bus):
    """No beat for the ack wait: somebody else gets it."""
    async with JobQueue(bus) as dead, JobQueue(bus) as living:
        await submit_job(bus, job())
        first = await taken(dead)
        second = await taken(living, timeout_s=ACK_WAIT_S + 3)
        assert (second.job, second.attempt) == (first.job, 2)
        await second.done()


async def test_beats_keep_a_job(bus: Bus):
    """Who beats may work for longer than the ack wait."""
    async with JobQueue(bus) as queue, JobQueue(bus) as other:
        await submit_job(bus, job())
        delivery = await taken(queue)
        for _ in range(3):
            await delivery.beat()
            assert await other.take(timeout_s=0.6 * ACK_WAIT_S) is None
        await delivery.done()
        assert await other.take(timeout_s=ACK_WAIT_S + 0.3) is None


async def test_what_is_given_up_never_comes_again(bus: Bus):
    """A job that can not be done is done with."""
    async with JobQueue(bus) as queue:
        await submit_job(bus, job())
        await (await taken(queue)).give_up()
        assert await queue.take(timeout_s=ACK_WAIT_S + 0.3) is None
        assert (await queue_lag(bus)).lag_messages == 0


@pytest.mark.parametrize(
    "malformed",
    [b"", b"noise", b'{"id":"\xff"}', b'{"id":"i","session":"s","recipe":{"start_tick":2,"stop_tick":1}}', b"[" * 9999],
)
async def test_a_malformed_job_is_counted_and_passed_over(bus: Bus, malformed: bytes):
    """One bad job stops nobody: it is terminated, and the next one comes."""
    async with JobQueue(bus) as queue:
        await bus.publish(JOBS_RENDER, malformed)
        wanted = job()
        await submit_job(bus, wanted)
        assert await queue.take(timeout_s=5) is None
        assert queue.malformed == 1
        delivery = await taken(queue)
        assert delivery.job == wanted
        await delivery.done()
        assert (await queue_lag(bus)).lag_messages == 0


async def test_two_mixers_share_the_work(bus: Bus):
    """Each job goes to one of them, and both get some."""
    async with JobQueue(bus) as one, JobQueue(bus) as other:
        wanted = [job(number) for number in range(10)]
        for each in wanted:
            await submit_job(bus, each)
        done: list[list[str]] = [[], []]
        for number in range(10):
            delivery = await taken((one, other)[number % 2])
            done[number % 2].append(delivery.job.id)
            await delivery.done()
        assert sorted(done[0] + done[1]) == sorted(each.id for each in wanted)
        assert len(done[0]) == len(done[1]) == 5


async def test_a_consumer_that_was_deleted_is_made_again(bus: Bus):
    """A mixer neither goes deaf nor asks in circles."""
    async with JobQueue(bus) as queue:
        await bus.api(f"CONSUMER.DELETE.{JOBS.name}.{RENDER_CONSUMER}")
        assert await queue.take(timeout_s=1) is None
        await submit_job(bus, job())
        await (await taken(queue)).done()


async def test_a_queue_that_is_gone_is_told(bus: Bus):
    """Without the stream there is no work to do: JetStreamError, not an endless loop."""
    async with JobQueue(bus) as queue:
        await bus.api(f"STREAM.DELETE.{JOBS.name}")
        with pytest.raises(JetStreamError):
            await taken(queue, timeout_s=1)


async def test_watching_a_render_shows_every_fact_to_its_end(bus: Bus, session: str):
    """From the oldest kept fact, through failures that are tried again, to the result."""
    identity = {"job": "j", "session": session, "unix_ns": 1}
    told = [
        RenderProgressed(**identity, stage="replay", fraction=0.1),
        RenderFailed(**identity, reason="once", retrying=True),
        RenderProgressed(**identity, stage="render", fraction=0.5),
        RenderStored(**identity, artifacts=()),
    ]
    await publish_render_fact(bus, told[0])
    await publish_render_fact(bus, told[1])
    seen = []
    async with asyncio.timeout(10):
        async for fact in watch_render(bus, session, "j"):
            seen.append(fact)
            if len(seen) == 2:
                await publish_render_fact(bus, told[2])
                await publish_render_fact(bus, told[3])
    assert seen == told


async def test_watching_ends_with_a_failure_for_good(bus: Bus, session: str):
    """And another job's facts are not shown."""
    await publish_render_fact(bus, RenderStored(job="other", session=session, unix_ns=1, artifacts=()))
    failed = RenderFailed(job="j", session=session, unix_ns=1, reason="for good")
    await publish_render_fact(bus, failed)
    async with asyncio.timeout(10):
        assert [fact async for fact in watch_render(bus, session, "j")] == [failed]
