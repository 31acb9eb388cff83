"""What `retold metrics` says is what the server says, by both of its sources, and old sessions are sums."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from contracts.artifacts import RenderJob
from contracts.directory import SessionEntry
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import put_entry
from contracts.jetstream.jobs import JobQueue, submit_job
from contracts.jetstream.lag import stream_lags
from contracts.jetstream.leases import take_lease
from contracts.jetstream.streams import create_session
from contracts.metrics.figures import Figures
from contracts.recipes import Recipe
from contracts.streams import FOLLOW_CONSUMER, JOBS, session_stream_name
from contracts.subjects import facts
from ops.embedded import EmbeddedServer
from ops.exporter import STALE_S, Exporter, look_readings
from ops.look import Look, Lookout
from ops.monitor import Monitor

CONSUMER = {"durable_name": FOLLOW_CONSUMER, "ack_policy": "all"}


async def record(bus: Bus, *, ended: bool, messages: int = 3) -> str:
    """A session with a few messages, as the directory has it."""
    session = new_id()
    await create_session(bus, session)
    for _ in range(messages):
        await bus.publish(facts(session), b"{}")
    await put_entry(
        bus,
        SessionEntry(
            session=session,
            guild_id="1",
            guild_name="A guild",
            channel_id="2",
            channel_name='Room "one"',
            started_unix_ns=1,
            ended_unix_ns=2 if ended else None,
        ),
    )
    return session


async def follow(bus: Bus, session: str) -> None:
    stream = session_stream_name(session)
    await bus.api(f"CONSUMER.CREATE.{stream}.{FOLLOW_CONSUMER}", {"stream_name": stream, "config": CONSUMER})


async def look(bus: Bus, monitor: Monitor | None = None) -> Look:
    return await Lookout(bus, monitor).look(ask_capture=False)


def labelled(seen: Look, name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for metric, value, labels in look_readings(seen) if metric.name == name}


@pytest.fixture
async def monitor(nats_server: EmbeddedServer):
    async with Monitor(nats_server.monitor_url) as opened:
        yield opened


async def test_both_sources_say_the_same(bus: Bus, monitor: Monitor):
    """JetStream's API in pages, and one request to the monitoring address."""
    for _ in range(3):
        await follow(bus, await record(bus, ended=False))
    by_api, by_monitor = await stream_lags(bus), await monitor.stream_lags()
    async with asyncio.timeout(10):
        while by_api != by_monitor:  # advisories of what was just made come by themselves
            by_api, by_monitor = await stream_lags(bus), await monitor.stream_lags()
    assert sum(len(stream.consumers) for stream in by_api) >= 3


async def test_a_follower_that_stands_still_shows_its_lag(bus: Bus, monitor: Monitor):
    """Messages that it was not given are pending, under the exporter's name for that."""
    session = await record(bus, ended=False, messages=7)
    await follow(bus, session)
    labels = ("$G", session_stream_name(session), FOLLOW_CONSUMER)
    assert labelled(await look(bus, monitor), "jetstream_consumer_num_pending")[labels] == 7


async def test_a_session_that_ended_has_no_series(bus: Bus, monitor: Monitor):
    """Its bytes are in the sums; while it ran it had its name."""
    running, ended = await record(bus, ended=False), await record(bus, ended=True)
    seen = await look(bus, monitor)
    streams = {labels[1] for labels in labelled(seen, "jetstream_stream_total_bytes")}
    assert session_stream_name(running) in streams
    assert not any(ended in stream for stream in streams)
    infos = labelled(seen, "retold_session_info")
    assert infos[running, 'Room "one"', "A guild"] == 1
    assert not any(ended in labels for labels in infos)
    held = {stream.stream: stream.bytes for stream in seen.streams}
    kinds = labelled(seen, "retold_stored_bytes")
    assert kinds["log",] >= held[session_stream_name(running)] + held[session_stream_name(ended)]
    assert sum(kinds.values()) == sum(held.values())


async def test_a_running_session_that_nobody_holds_is_abandoned(bus: Bus, monitor: Monitor):
    """By the leases: as long as a capture renews one, the session is recorded."""
    held, left = await record(bus, ended=False), await record(bus, ended=False)
    await take_lease(bus, held, "somebody")
    abandoned = {entry.session for entry in (await look(bus, monitor)).abandoned}
    assert left in abandoned
    assert held not in abandoned


async def test_the_queue_tells_its_oldest_job(bus: Bus, monitor: Monitor):
    """From its submission until it is done, under way or not."""
    async with JobQueue(bus) as queue:
        await submit_job(bus, RenderJob(id=new_id(), session="s", recipe=Recipe()))
        delivery = await queue.take()
        assert delivery is not None
        seen = await look(bus, monitor)
        assert 0 < seen.oldest_job_s < 60
        assert labelled(seen, "jetstream_consumer_num_ack_pending")["$G", JOBS.name, "mixers"] == 1
        await delivery.done()
    assert (await look(bus, monitor)).oldest_job_s == 0


async def test_the_disk_is_told_by_the_monitoring_address(bus: Bus, monitor: Monitor):
    """With a pace of a week there are days left; without the address nobody knows."""
    await record(bus, ended=True)
    with_monitor, without = await look(bus, monitor), await look(bus)
    assert with_monitor.storage.days_left is not None
    assert with_monitor.storage.days_left > 1
    assert with_monitor.server is not None
    assert labelled(with_monitor, "gnatsd_varz_connections")[()] >= 1
    assert without.storage.days_left is None
    assert without.storage.log_bytes == with_monitor.storage.log_bytes


async def test_an_address_that_is_none_is_said(bus: Bus):
    """By the setting's name."""
    async with Monitor("http://127.0.0.1:9") as nobody:
        with pytest.raises(Exception, match="RETOLD_NATS_MONITOR_URL"):
            await look(bus, nobody)


async def test_one_request_tells_of_all_consumers(bus: Bus, monitor: Monitor):
    """The monitoring address is asked thrice a look, and JetStream's API for none of the consumers."""
    asked: list[str] = []

    async def note(request: httpx.Request) -> None:
        asked.append(request.url.path)

    monitor._client.event_hooks["request"] = [note]
    lookout = Lookout(bus, monitor)
    await lookout.look(ask_capture=False)
    lookout._slow_s = float("inf")  # whole streams are read now and then: not in the middle of this

    async def api_requests() -> int:
        before = (await bus.api("INFO"))["api"]["total"]
        await lookout.look(ask_capture=False)
        return int((await bus.api("INFO"))["api"]["total"]) - before

    sessions = [await record(bus, ended=True) for _ in range(5)]
    few = await api_requests()
    for session in sessions:
        await follow(bus, session)
    assert await api_requests() == few
    assert sorted(asked) == ["/healthz"] * 3 + ["/jsz"] * 3 + ["/varz"] * 3


async def test_figures_are_served_while_nats_answers_and_not_when_they_are_old(bus: Bus, monitor: Monitor):
    """A look that is too old is not told."""
    figures = Figures()
    exporter = Exporter(bus, Lookout(bus, monitor), figures)
    running = asyncio.create_task(exporter.run())
    async with asyncio.timeout(10):
        while b"jetstream_server_total_streams" not in await figures.text():
            await asyncio.sleep(0.02)
    running.cancel()
    exporter._seen_s -= STALE_S
    assert b"jetstream_server_total_streams" not in await figures.text()
    assert b'retold_advisories_total{kind="CONSUMER.MAX_DELIVERIES"}' in await figures.text()
