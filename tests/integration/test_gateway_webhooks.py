"""Webhooks: told once, signed, again until they are heard, and never into a private network unasked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from contracts.artifacts import RenderFailed, RenderProgressed, encode_render_fact
from contracts.directory import Keeping, SessionEntry
from contracts.jetstream import notices
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import put_entry
from contracts.jetstream.jobs import publish_render_fact
from contracts.settings import Settings
from contracts.streams import WEBHOOKS_CONSUMER
from gateway import webhooks
from gateway.webhooks import Webhooks, is_public, open_webhooks

SECRET = "a secret of sixteen"  # noqa: S105  # of the test
ENTRY = SessionEntry(
    session="06ykq3c0001zzzzz",
    guild_id="1",
    guild_name="G",
    channel_id="2",
    channel_name="C",
    started_unix_ns=1,
    name="Friday",
    ended_unix_ns=1_790_000_000_000_000_000,
    duration_ns=90_000_000_000,
)


class Listener:
    """Somebody who is told: answers with the next of `statuses`, then with 204, and keeps what came."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.heard.append((headers, body))
        status = self.statuses.pop(0) if self.statuses else 204
        writer.write(f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    def kinds(self) -> list[str]:
        """What was told, in order."""
        return [msgspec.json.decode(body)["type"] for _, body in self.heard]


@pytest_asyncio.fixture
async def listener() -> AsyncIterator[Listener]:
    listening = Listener()
    async with await asyncio.start_server(listening.answer, "127.0.0.1", 0) as server:
        listening.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?x=1"
        yield listening


@pytest_asyncio.fixture
async def telling(bus: Bus, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Listener]:
    """What runs in the gateway; a retry comes soon."""
    monkeypatch.setattr(notices, "RETRY_S", (0.1, 0.2, 0.2))
    running = asyncio.create_task(Webhooks(listener.url, SECRET, private=True).run(bus))
    async with asyncio.timeout(10):
        for stream in (notices.ENTRIES[0], notices.RESULTS[0]):
            while stream not in await _consumed(bus):
                await asyncio.sleep(0.02)
    yield listener
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _consumed(bus: Bus) -> list[str]:
    found = []
    for stream in (notices.ENTRIES[0], notices.RESULTS[0]):
        answer = await bus.api(f"CONSUMER.NAMES.{stream}", {})
        if WEBHOOKS_CONSUMER in (answer.get("consumers") or []):
            found.append(stream)
    return found


async def until_heard(listener: Listener, count: int) -> None:
    async with asyncio.timeout(10):
        while len(listener.heard) < count:
            await asyncio.sleep(0.02)


async def test_what_happens_is_told_once_and_signed(bus: Bus, telling: Listener) -> None:
    """A session's end and a render's failure, not the progress between; the signature is that of the standard."""
    await put_entry(bus, msgspec.structs.replace(ENTRY, ended_unix_ns=None))
    await put_entry(bus, ENTRY)
    await put_entry(bus, ENTRY)
    common: dict[str, Any] = {"job": "j1", "session": ENTRY.session, "unix_ns": 1_790_000_000_000_000_000}
    await publish_render_fact(bus, RenderProgressed(**common, stage="render", fraction=0.5))
    await publish_render_fact(bus, RenderFailed(**common, reason="no"))
    await until_heard(telling, 2)
    await publish_render_fact(bus, RenderFailed(**{**common, "job": "j2"}, reason="the last thing that happens"))
    await put_entry(bus, msgspec.structs.replace(ENTRY, session="06ykq3c0003zzzzz"))
    await until_heard(telling, 4)
    assert sorted(telling.kinds()) == ["render.failed"] * 2 + ["session.ended"] * 2
    for headers, body in telling.heard:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(SECRET.encode(), signed, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert (
            msgspec.json.decode(body)["data"]["session"] == headers["webhook-id"].partition(".")[0] or b'"job"' in body
        )


async def test_that_a_recording_will_go_is_told_and_its_end_not_again(bus: Bus, telling: Listener) -> None:
    """A pin of an old session tells nothing; a warning tells when, and why."""
    old = msgspec.structs.replace(ENTRY, session="06ykq3c0004zzzzz", ended_unix_ns=1_700_000_000_000_000_000)
    await put_entry(bus, msgspec.structs.replace(old, keeping=Keeping(pinned=True)))
    await put_entry(
        bus,
        msgspec.structs.replace(
            old, session="06ykq3c0005zzzzz", keeping=Keeping(going_unix_ns=2_000_000_000_000_000_000, going_why="age")
        ),
    )
    await until_heard(telling, 1)
    ((_, body),) = telling.heard
    told = msgspec.json.decode(body)
    assert told["type"] == "session.going"
    assert told["data"]["session"] == "06ykq3c0005zzzzz"
    assert told["data"]["deleted_after"].startswith("2033-05-18")
    assert told["data"]["why"] == "age"


async def test_what_was_not_heard_is_told_again_with_the_same_id(bus: Bus, telling: Listener) -> None:
    """An error and a redirect are no hearing; the id stays, so whoever heard it twice knows."""
    telling.statuses = [500, 302]
    await put_entry(bus, msgspec.structs.replace(ENTRY, session="06ykq3c0002zzzzz"))
    await until_heard(telling, 3)
    assert len({headers["webhook-id"] for headers, _ in telling.heard}) == 1


async def test_a_private_address_is_not_told_unasked(listener: Listener) -> None:
    """Neither by number nor by name; nothing is sent."""
    for url in (listener.url, listener.url.replace("127.0.0.1", "localhost")):
        hooks = Webhooks(url, SECRET, private=False)
        failed = RenderFailed(job="j", session=ENTRY.session, unix_ns=1, reason="no")
        assert not await hooks.tell_result(encode_render_fact(failed))
    assert listener.heard == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104  # judged, not bound
        ("224.0.0.1", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
    ],
)
def test_private_addresses_are_known(address: str, *, public: bool) -> None:
    """Those of a machine itself, private networks, link-local, shared, metadata services, and IPv4 inside IPv6."""
    assert is_public(address) == public


def test_there_is_no_webhook_without_a_secret() -> None:
    """Nobody could tell ours from others'."""
    with pytest.raises(webhooks.SettingsError, match="RETOLD_WEBHOOK_SECRET"):
        open_webhooks(Settings(webhook_url="https://example.org/"))
