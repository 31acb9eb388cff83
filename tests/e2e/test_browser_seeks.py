"""A browser's own audio element on a file of 200 MB: it seeks anywhere, and what it plays is what stands there."""

from __future__ import annotations

import asyncio
import io
import wave
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright

from contracts.artifacts import Artifact
from contracts.recipes import Recipe
from tests.gateway_server import RunningGateway, read_log, running_gateway
from tests.studio import ARGUMENTS, CHROMIUM, needs_chromium

RATE = 48_000
STEP_S = 30  # for so long every tone lasts
STEP_HZ = 60.0
LOWEST_HZ = 300.0
SECONDS = 1100  # 16 bits, stereo: 211 MB
SEEKS_S = (15.0, 1000.0, 345.0, 1085.0, 45.0, 705.0)  # each in the middle of a tone
ERROR_HZ = STEP_HZ / 3
MOST_SENT = 0.5  # of the file, for six places in it: a browser reads some megabytes ahead at each

# Seek an audio element, let it play for a moment, and tell the strongest frequency that it plays.
HEAR = """async (at) => {
  const { audio, analyser, context } = window.heard;
  await context.resume();
  await new Promise((resolve) => {
    audio.addEventListener("seeked", resolve, { once: true });
    audio.currentTime = at;
  });
  await audio.play();
  await new Promise((resolve) => {
    const look = () => (audio.currentTime > at + 1.5 ? resolve() : setTimeout(look, 20));
    look();
  });
  const bins = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(bins);
  audio.pause();
  const loudest = bins.reduce((best, value, index) => (value > bins[best] ? index : best), 0);
  return loudest * context.sampleRate / analyser.fftSize;
}"""
OPEN = """(url) => {
  const audio = new Audio(url);
  const context = new AudioContext({ sampleRate: 48000 });
  const analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  analyser.smoothingTimeConstant = 0;
  context.createMediaElementSource(audio).connect(analyser).connect(context.destination);
  window.heard = { audio, analyser, context };
}"""


def tone_of(second: float) -> float:
    """The frequency that is heard at a moment."""
    return LOWEST_HZ + STEP_HZ * (second // STEP_S)


def make_wave() -> bytes:
    """Tones, one after the other, each higher than the one before."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE)
        time = np.arange(RATE * STEP_S) / RATE
        for first in range(0, SECONDS, STEP_S):
            mono = (9000 * np.sin(2 * np.pi * tone_of(first) * time)).astype("<i2")
            file.writeframes(np.repeat(mono[: RATE * min(STEP_S, SECONDS - first)], 2).tobytes())
    return buffer.getvalue()


async def store_beside_another(gateway: RunningGateway) -> Artifact:
    """The file, stored while another is, so that the parts of both lie among each other."""
    session = await gateway.session()
    other = asyncio.create_task(gateway.store(session, "other.wav", b"x" * (64 << 20), recipe=Recipe(format="wav")))
    stored = await gateway.store(session, "tones.wav", make_wave(), recipe=Recipe(format="wav", bits=24))
    await other
    return stored


@needs_chromium
@pytest.mark.soak
@pytest.mark.timeout(240)
async def test_an_audio_element_seeks_in_two_hundred_megabytes(tmp_path: Path) -> None:
    """Six places, there and back: at each the tone that belongs there, without reading what lies between."""
    async with running_gateway(tmp_path) as gateway, async_playwright() as playwright:
        stored = await store_beside_another(gateway)
        assert stored.bytes > 200_000_000
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        page: Page = await browser.new_page()
        base = gateway.page(stored.session)
        await page.goto(base)
        await page.evaluate(OPEN, f"{base}/d/{stored.name}/{stored.filename}?inline=1")
        for at in SEEKS_S:
            heard_hz = await page.evaluate(HEAR, at)
            assert abs(heard_hz - tone_of(at)) < ERROR_HZ, (at, heard_hz)
        await browser.close()
        sent = sum(
            line.get("sent_bytes", 0) for line in read_log(gateway.log_file) if line.get("object") == stored.name
        )
        print(f"{sent / stored.bytes:.1%} of {stored.bytes} bytes were sent")
        assert 0 < sent < MOST_SENT * stored.bytes
