"""Names in headers, turns over a span, places for bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.types import Message
from werkzeug.http import parse_options_header

from contracts.artifacts import Artifact
from contracts.jetstream.objects import StoredArtifact
from contracts.recipes import Recipe
from contracts.streams import OBJECT_CHUNK_BYTES
from gateway import downloads, problems
from gateway.downloads import BUDGET_BYTES, PLACE_BYTES, TURN_BYTES, Download, Places, _turns, content_disposition
from gateway.problems import ProblemError
from gateway.ranges import Span


@given(st.text(max_size=120))
def test_any_name_is_safe_in_the_header(name: str) -> None:
    """Whatever Discord calls it: one ASCII header line, no control character, no path, the UTF-8 name readable."""
    header = content_disposition(name, "attachment")
    assert header.isascii()
    assert header.isprintable()
    assert header.startswith("attachment; filename=")
    encoded = header.partition("filename*=UTF-8''")[2]
    decoded = unquote(encoded, errors="strict")
    assert decoded
    assert not set(decoded) & set("/\\\r\n\0\u202e")
    assert decoded not in {".", ".."}


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=40))
def test_a_plain_name_is_kept_in_both_forms(name: str) -> None:
    """Letters and digits come through unchanged."""
    assert parse_options_header(content_disposition(name + ".mp3", "inline")) == (
        "inline",
        {"filename": name + ".mp3"},
    )


@pytest.mark.parametrize(
    ("name", "ascii_name", "utf8_name"),
    [
        ("会議.mp3", "download.mp3", "%E4%BC%9A%E8%AD%B0.mp3"),
        ("Ärger.flac", "Arger.flac", "%C3%84rger.flac"),
        ('a"b\\c.mp3', '"a\\"b_c.mp3"', "a%22b_c.mp3"),
        ("../../etc/passwd", "_.._etc_passwd", "_.._etc_passwd"),
        ("x\r\nSet-Cookie: y", '"xSet-Cookie: y"', "xSet-Cookie%3A%20y"),
        ("", "download", "download"),
    ],
)
def test_hostile_and_foreign_names(name: str, ascii_name: str, utf8_name: str) -> None:
    """Each has an ASCII form that says as much as it can."""
    assert content_disposition(name, "attachment") == (
        f"attachment; filename={ascii_name}; filename*=UTF-8''{utf8_name}"
    )


@given(st.integers(0, 5 * TURN_BYTES), st.integers(1, 5 * TURN_BYTES))
def test_turns_cover_the_span_and_break_between_chunks(start: int, length: int) -> None:
    """In order, without gap or overlap, each at most TURN_BYTES, no chunk read twice."""
    span = Span(start, start + length)
    turns = _turns(span)
    assert turns[0].start == span.start
    assert turns[-1].stop == span.stop
    assert all(0 < turn.length <= TURN_BYTES for turn in turns)
    for before, after in pairwise(turns):
        assert before.stop == after.start
        assert after.start % OBJECT_CHUNK_BYTES == 0


def test_places_hold_no_more_than_the_budget() -> None:
    """The number of places times what each holds stays within BUDGET_BYTES."""
    assert BUDGET_BYTES <= 16 * 1024 * 1024
    assert Places()._free._value * PLACE_BYTES <= BUDGET_BYTES


async def test_who_waits_too_long_for_a_place_is_told() -> None:
    """With every place taken, `hold` gives up after its time; a place given back is taken again."""
    places = Places(budget_bytes=PLACE_BYTES)
    async with places.hold():
        with pytest.raises(TimeoutError):
            async with places.hold(timeout_s=0.01):
                pass
        waiting = asyncio.create_task(_take(places))
    await asyncio.wait_for(waiting, 1)


async def test_a_download_without_a_place_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After, and not a byte was sent."""
    monkeypatch.setattr(downloads, "PLACE_WAIT_S", 0.01)
    places = Places(budget_bytes=PLACE_BYTES)
    sent: list[Message] = []
    async with places.hold():
        with pytest.raises(ProblemError) as refused:
            await a_download(places)({}, never, sent_to(sent))
    assert refused.value.problem == problems.BUSY
    assert "Retry-After" in refused.value.headers
    assert not sent


async def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After STALL_S its place is free again."""
    monkeypatch.setattr(downloads, "STALL_S", 0.01)
    client = downloads._Client(never, never_send)
    with pytest.raises(downloads.ClientGoneError):
        await client.put(b"x")
    client.close()


def a_download(places: Places) -> Download:
    recipe = Recipe()
    artifact = Artifact(
        name="n",
        session="s",
        filename="f.mp3",
        recipe=recipe,
        log_end=1,
        engine="e",
        sha256="0" * 64,
        bytes=1,
        duration_ticks=1,
        rendered_unix_ns=1,
    )
    stored = StoredArtifact(artifact, "n", 1, OBJECT_CHUNK_BYTES, 1, "0" * 64, 1, ((1, 1),))
    # the bus is never asked: the download does not begin
    return Download(stored, bus=None, places=places, method="GET", headers={}, disposition="inline")  # type: ignore[arg-type]


async def never() -> Message:
    return await asyncio.get_running_loop().create_future()


async def never_send(_: Message) -> None:
    await asyncio.get_running_loop().create_future()


def sent_to(messages: list[Message]) -> Callable[[Message], Awaitable[None]]:
    async def send(message: Message) -> None:  # ASGI wants a coroutine
        messages.append(message)

    return send


async def _take(places: Places) -> None:
    async with places.hold(timeout_s=1):
        pass
