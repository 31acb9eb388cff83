"""Listening while it is recorded, with everything real: the bot in a call, the follower, the gateway, a browser."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.async_api import async_playwright, expect

from contracts.clock import TICKS_PER_SECOND
from contracts.commands import StartRecording, StopRecording
from contracts.errors import RetoldError
from contracts.jetstream.asking import ask_status, start_recording, stop_recording
from contracts.jetstream.connection import MESSAGE_ID_HEADER, Bus, connect
from contracts.jetstream.directory import get_entry
from contracts.jetstream.pull import read_newest
from contracts.keys import load_signing_key
from contracts.links import new_claims, page_path, sign_link
from contracts.settings import Settings
from contracts.streams import LIVE
from contracts.subjects import live
from ops.cli.up import Installation
from ops.embedded import free_port
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from tests.judge import SOUND_RMS, decode_file
from tests.studio import ARGUMENTS, CHROMIUM, needs_chromium

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
ADA, BELA = Person(user_id=501, name="Ada"), Person(user_id=502, name="Bela", voice=1)
CALL_S = 45.0  # the follower looks 15 s ahead
PLAN = CallPlan(
    people=(ADA, BELA),
    utterances=tuple(Utterance(user_id=each.user_id, start_s=0.2, stop_s=CALL_S - 0.2) for each in (ADA, BELA)),
    seconds=CALL_S,
)
HEARD_S = 5.0  # is listened to
BEHIND_S = 25.0  # at most, on a busy machine
FRAME_S = 1152 / TICKS_PER_SECOND  # of MPEG-1 layer III
DEADLINE_S = 60.0


@dataclass
class Call:
    """A call that is being recorded."""

    bus: Bus
    session: str
    page: str
    talking: asyncio.Task[None]

    async def behind_s(self) -> float:
        """How long ago that was said which listeners hear now."""
        newest = await read_newest(self.bus, LIVE.name, live(self.session))
        entry = await get_entry(self.bus, self.session)
        assert newest is not None
        assert entry is not None
        frames = int(newest.headers[MESSAGE_ID_HEADER].rpartition(".")[2])
        return time.time() - entry.started_unix_ns / 1e9 - frames * FRAME_S


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Call]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = Settings(data=tmp_path / "data", public_url=url, gateway_port=port)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
    async with LoopbackDiscord(plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as server:
        installation = Installation(settings, {**plain, **server.environ}, logs=tmp_path / "logs", stop_timeout_s=10)
        async with installation.running() as running:
            installation.start()
            watching = asyncio.create_task(installation.watch())
            bus = await connect(running.nats_url, name="test")
            try:
                await until(lambda: is_ready(bus), "the bot is logged in")
                request = StartRecording(guild_id=str(GUILD), channel_id=str(CHANNEL), name="Live")
                session = (await start_recording(bus, request)).session
                await server.wait_for_bot(timeout_s=DEADLINE_S, guild_id=GUILD)
                claims = new_claims(
                    sub="1", session=session, action="page", obj="", now_s=int(time.time()), lifetime_s=600
                )
                link = url + page_path(sign_link(claims, load_signing_key(settings.data / "keys")))
                yield Call(bus, session, link, asyncio.create_task(server.talk()))
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await bus.close()


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not await condition():
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(f"not within {DEADLINE_S:g} s: {what}") from error


async def is_ready(bus: Bus) -> bool:
    try:
        return (await ask_status(bus)).ready
    except RetoldError:
        return False


@needs_chromium
@pytest.mark.soak
@pytest.mark.timeout(180)
async def test_a_call_is_heard_on_its_page_while_it_is_recorded(call: Call, tmp_path: Path) -> None:
    """The page offers it by itself and plays it; what comes is the voices, some seconds behind, until it ends."""
    async with async_playwright() as playwright, httpx.AsyncClient(timeout=30) as client:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        page = await browser.new_page()
        await page.goto(call.page)
        await expect(page.get_by_text("Being recorded", exact=True)).to_be_visible()
        await expect(page.locator("#live")).to_be_attached(timeout=DEADLINE_S * 1000)
        await page.evaluate("document.getElementById('live').play()")
        await page.wait_for_function(f"() => document.getElementById('live').currentTime > {HEARD_S}", timeout=30_000)
        heard = await listen(client, f"{call.page}/live.mp3", HEARD_S)
        behind_s = await call.behind_s()
        print(f"heard {behind_s:.1f} s behind")
        assert 0 < behind_s < BEHIND_S
        file = tmp_path / "heard.mp3"
        file.write_bytes(heard)
        sound = decode_file(file)[TICKS_PER_SECOND // 2 :, 0]
        seconds = sound[: len(sound) // TICKS_PER_SECOND * TICKS_PER_SECOND].reshape(-1, TICKS_PER_SECOND)
        assert len(seconds) >= HEARD_S - 2
        assert np.sqrt(np.mean(np.square(seconds), axis=1)).min() > SOUND_RMS
        await call.talking
        await stop_recording(call.bus, StopRecording(guild_id=str(GUILD)))
        await expect(page.locator("#mix")).to_be_attached(timeout=DEADLINE_S * 1000)
        assert (await client.get(f"{call.page}/live.mp3")).status_code == 404
        await browser.close()


async def listen(client: httpx.AsyncClient, url: str, seconds: float) -> bytes:
    """What comes in so many seconds."""
    heard = bytearray()
    began = time.monotonic()
    async with client.stream("GET", url) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, "audio/mpeg")
        async for chunk in response.aiter_raw():
            heard += chunk
            if time.monotonic() - began > seconds:
                break
    return bytes(heard)
