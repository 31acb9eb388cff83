"""Figures: declared once, written as Prometheus reads them, served by a listener that cannot be held."""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from contracts.metrics import declared
from contracts.metrics.endpoint import AT_ONCE, HEAD_BYTES, serve_metrics
from contracts.metrics.figures import Figures, Reading
from contracts.settings import Settings
from ops.embedded import free_port

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def parsed(text: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by sample name and label values, these in the order in which they are declared."""
    order = {metric.name: metric.labels for metric in declared.every()}
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in order.get(sample.name, sample.labels))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_every_metric_is_declared_once_with_help():
    """By Prometheus' rules of naming: counters, and only they, end in `_total`."""
    metrics = declared.every()
    assert [name for name, count in Counter(metric.name for metric in metrics).items() if count > 1] == []
    for metric in metrics:
        assert re.fullmatch(r"(retold|jetstream|gnatsd)_[a-z0-9_]+", metric.name)
        assert metric.help.endswith("."), metric.name
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets)


@given(st.dictionaries(st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT), st.floats(allow_nan=False), max_size=5))
def test_any_label_comes_out_as_it_went_in(values: dict[tuple[str, str, str], float]):
    """Names of rooms hold quotes, backslashes and line breaks."""
    figures = Figures()
    figures.read(lambda: [Reading(declared.SESSION_INFO, value, labels) for labels, value in values.items()])
    assert parsed(asyncio.run(figures.text())).get("retold_session_info", {}) == values


async def test_what_is_read_is_gone_when_it_is_not_read_any_more():
    """A session that ended leaves no series behind; what this process counted stays."""
    figures, sessions = Figures(), ["a", "b"]
    counter = figures.counter(declared.REQUESTS)
    counter.labels("page", "200").inc(3)
    figures.read(lambda: [Reading(declared.SESSION_UNACKED, 7, (session,)) for session in sessions])
    assert parsed(await figures.text())["retold_session_unacked_messages"] == {("a",): 7, ("b",): 7}
    sessions.clear()
    after = parsed(await figures.text())
    assert "retold_session_unacked_messages" not in after
    assert after["retold_gateway_requests_total"] == {("page", "200"): 3}
    assert after["process_resident_memory_bytes"][()] > 1e6


class TestEndpoint:
    """Over real sockets."""

    async def test_it_answers_metrics_and_nothing_else(self):
        """GET and HEAD of /metrics; the rest is refused."""
        async with serve_metrics(Figures(), settings := at(free_port())):
            whole = await ask(settings, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
            head, _, body = whole.partition(b"\r\n\r\n")
            assert f"Content-Length: {len(body)}".encode() in head
            assert b"process_cpu_seconds_total" in body
            assert (await ask(settings, b"HEAD /metrics HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\n")
            assert b" 404 " in await ask(settings, b"GET / HTTP/1.1\r\n\r\n")
            assert b" 405 " in await ask(settings, b"POST /metrics HTTP/1.1\r\n\r\n")

    async def test_who_sends_too_much_or_holds_on_gets_nothing(self):
        """And while so many hold on as it takes at a time, the next are sent away, not kept."""
        async with serve_metrics(Figures(), settings := at(free_port())):
            assert await ask(settings, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 2 * HEAD_BYTES) == b""
            held = [await asyncio.open_connection(settings.metrics_host, settings.metrics_port) for _ in range(AT_ONCE)]
            for _, writer in held:
                writer.write(b"GET /metrics")
                await writer.drain()
            assert await ask(settings, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
            for _, writer in held:
                writer.close()

    async def test_port_0_opens_no_port_and_a_taken_one_is_no_end(self):
        """Figures are no reason not to record."""
        async with serve_metrics(Figures(), at(0)):
            pass
        with socket.create_server(("127.0.0.1", 0)) as taken:
            async with serve_metrics(Figures(), at(taken.getsockname()[1])):
                pass


def at(port: int) -> Settings:
    return msgspec.structs.replace(Settings(), metrics_port=port)


async def ask(settings: Settings, request: bytes) -> bytes:
    """What is answered until the end; nothing if the connection is cut."""
    reader, writer = await asyncio.open_connection(settings.metrics_host, settings.metrics_port)
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("metric", [metric for metric in declared.every() if "session" in metric.labels])
def test_what_a_session_has_is_read_and_never_counted_here(metric: declared.Declared):
    """A counter object would keep its series after the session; those of sessions are gauges, or read."""
    assert metric.name.startswith("retold_session_")
    assert metric.kind != "histogram"
