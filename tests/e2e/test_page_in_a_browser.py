"""The page as people meet it: real Chromium, a real gateway, a real mixer, a session that was really rendered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from contracts.directory import fold_entry
from contracts.events import NoteAdded, decode_fact, encode_fact
from contracts.jetstream.directory import put_entry
from contracts.jetstream.keeping import standing
from contracts.jetstream.streams import create_session
from contracts.links import list_path, new_claims, sign_link
from contracts.subjects import FactSubject, facts, parse
from tests.builders import Built, build_session
from tests.studio import ARGUMENTS, CHROMIUM, NAMES, NOTES, Stage, is_rendered, needs_chromium, put_session, staged

pytestmark = [pytest.mark.asyncio(loop_scope="module"), needs_chromium, pytest.mark.long]
DESKTOP = {"width": 1100, "height": 900}
PHONE = {"width": 390, "height": 844}
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

# How far a piece is from the same stretch of the file decoded whole, by the browser itself. Opus is not exact to the
# bit after a jump; a sample's shift of speech would be some 0.05.
COMPARE = """async ([player, url, bytes, moments]) => {
  const { Track } = await import(player);
  const whole = await new OfflineAudioContext(2, 1, 48000).decodeAudioData(await (await fetch(url)).arrayBuffer());
  const track = new Track(url, bytes);
  const errors = [];
  for (const [at, seconds] of moments) {
    const { buffer, offset } = await track.piece(at, seconds);
    const got = buffer.getChannelData(0).subarray(Math.round(offset * 48000));
    const want = whole.getChannelData(0).subarray(Math.round(at * 48000), Math.round((at + seconds) * 48000));
    let worst = got.length < want.length - 2 ? 9 : 0;
    for (let i = 0; i < Math.min(want.length, got.length); i++) worst = Math.max(worst, Math.abs(want[i] - got[i]));
    errors.push(worst);
  }
  return errors;
}"""
# Whether a lane's canvas has something above its middle line at a moment.
LOUD = """(lane, at, from = 0, to = 40) => {
  const canvas = document.querySelectorAll('.wave canvas')[lane];
  const x = Math.round((at - from) / (to - from) * canvas.width);
  const column = canvas.getContext('2d').getImageData(x - 2, 0, 4, Math.floor(canvas.height * 0.4)).data;
  return column.some((value) => value > 0);
}"""
# Whether the colour of losses is at the bottom of a lane at a moment.
RED = """([lane, at]) => {
  const canvas = document.querySelectorAll('.wave canvas')[lane];
  const x = Math.round(at / 40 * canvas.width);
  const [red, green, blue] = canvas.getContext('2d').getImageData(x, canvas.height - 1, 1, 1).data;
  return red > 150 && green < 80 && blue < 80;
}"""
MOMENTS = [[0, 3], [1.5, 2], [9.99, 5], [23.456, 4], [24.0, 5], [36.5, 3.4], [5, 0.5]]
MOST_DIFFERENT = 0.01
expect.set_options(timeout=30_000)  # a mix is made by a process of its own, on whatever machine this is


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with staged(tmp_path_factory.mktemp("stage")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    opened = await browser.new_context(viewport=DESKTOP)
    opened.set_default_timeout(15_000)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """A page on which nothing may go wrong unseen."""
    opened = await context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    yield opened
    assert wrong == []


def a_short_one(seed: int) -> Built:
    """Another session of the same people."""
    return build_session(10.0, 2, plan=[[(1.0, 4.0)], [(4.5, 8.0)]], seed=seed, speech=True)


async def position(page: Page) -> float:
    """Seconds, as the seek bar says."""
    return float(await page.locator("#seek").input_value())


async def until_past(page: Page, seconds: float) -> None:
    await page.wait_for_function("at => Number(document.getElementById('seek').value) > at", arg=seconds)


async def test_it_plays_seeks_and_stops(stage: Stage, page: Page) -> None:
    """The mix plays at the press of a key, jumps to a note, and stands still when stopped."""
    await page.goto(stage.link())
    await page.get_by_role("button", name="Play", exact=True).click()
    await until_past(page, 0.3)
    await page.get_by_role("button", name="Go to 0:20").click()
    await until_past(page, NOTES[1][0] + 0.2)
    assert await position(page) < NOTES[1][0] + 5
    await page.keyboard.press("k")
    await expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()
    stood = await position(page)
    assert not await page.evaluate("document.getElementById('mix').paused === false")
    await page.keyboard.press("ArrowRight")
    assert await position(page) == pytest.approx(stood + 5, abs=0.2)
    await page.keyboard.press("Home")
    assert await position(page) == 0


async def test_muting_a_voice_goes_on_at_the_same_moment_without_it(stage: Stage, page: Page) -> None:
    """Mute and solo switch from the mix to the voices where it stands; taken back, the mix goes on."""
    await page.goto(stage.link())
    await page.get_by_role("button", name="Play", exact=True).click()
    await until_past(page, 1.0)
    await page.get_by_role("checkbox", name="Mute").first.check(force=True)
    await expect(page.locator("#playing")).to_contain_text("voices as you set them")
    before = await position(page)
    await until_past(page, before + 0.5)
    assert await position(page) < before + 8
    assert await page.evaluate("document.getElementById('mix').paused")
    await expect(page.locator(".lane").first).to_have_class("lane silent")
    await page.keyboard.press("1")
    await page.keyboard.press("Shift+Digit2")
    await expect(page.locator(".lane").first).to_have_class("lane silent")
    await page.keyboard.press("Shift+Digit2")
    await page.wait_for_function("() => !document.getElementById('mix').paused")


async def test_voices_are_in_step_to_the_sample(stage: Stage, page: Page) -> None:
    """A piece from anywhere in a track is the same sound as that stretch of the whole file."""
    await page.goto(stage.link())
    timeline = await page.evaluate("fetch(location.pathname + '/timeline').then(answer => answer.json())")
    script = await page.locator("script[type=module]").get_attribute("src")
    player = str(script).replace("session.js", "player.js")
    assert [lane["name"] for lane in timeline["lanes"]] == list(NAMES)
    for lane in timeline["lanes"]:
        track = lane["track"]
        errors = await page.evaluate(COMPARE, [player, track["url"], track["bytes"], MOMENTS])
        assert max(errors) < MOST_DIFFERENT, errors


async def test_the_choices_become_a_new_version(stage: Stage, page: Page) -> None:
    """Mute, gain and range make a mix that says so, appears by itself, and downloads."""
    await page.goto(stage.link("remix"))
    await page.get_by_role("checkbox", name="Mute").first.check(force=True)
    await page.locator("[name^=gain_]").nth(1).fill("-3")
    await page.locator("[name=from]").fill("0:05")
    await page.locator("[name=to]").fill("0:15")
    await page.locator("[name=as]").select_option("flac")
    await page.get_by_role("button", name="Make this mix").click()
    version = page.locator("#files li", has_text=f"without {NAMES[0]}")
    await expect(version.get_by_role("link", name="Download")).to_be_visible()
    await expect(version).to_contain_text(f"{NAMES[1]} -3 dB, 0:05 to 0:15")
    async with page.expect_download() as waiting:
        await version.get_by_role("link", name="Download").click()
    file = Path(await (await waiting.value).path())
    assert file.read_bytes().startswith(b"fLaC")


async def test_the_waves_are_drawn_where_somebody_speaks(stage: Stage, page: Page) -> None:
    """Waveforms are made when a page first lacks them, and show who spoke when, also zoomed."""
    await page.goto(stage.link())
    await page.wait_for_function(f"() => ({LOUD})(0, 5) && !({LOUD})(0, 15) && ({LOUD})(1, 15) && !({LOUD})(1, 5)")
    await page.evaluate("document.getElementById('seek').value = 15")
    await page.locator("#seek").dispatch_event("input")
    await page.get_by_role("button", name="Zoom in").click()
    assert not await page.evaluate(f"({LOUD})(0, 15, 5, 25)")
    assert await page.evaluate(f"({LOUD})(1, 15, 5, 25)")


async def test_losses_and_notes_are_drawn_and_explained(stage: Stage, page: Page) -> None:
    """Where packets never came there is a bar below the voice, and the page says what the marks mean."""
    await page.goto(stage.link())
    await expect(page.locator("#legend")).to_contain_text("packets that never came")
    await expect(page.locator("#legend")).to_contain_text("notes")
    lanes = (await page.evaluate("fetch(location.pathname + '/timeline').then(answer => answer.json())"))["lanes"]
    losses = [(number, loss) for number, lane in enumerate(lanes) for loss in lane["losses"]]
    assert losses
    for number, loss in losses:
        assert await page.evaluate(RED, [number, (loss["from_s"] + loss["to_s"]) / 2])


async def test_who_may_not_make_mixes_can_still_try_them(stage: Stage, page: Page) -> None:
    """A link to listen shows the knobs, but no form, and the server refuses what is sent anyway."""
    link = stage.link()
    await page.goto(link)
    await expect(page.get_by_role("checkbox", name="Mute").first).to_be_attached()
    assert not await page.get_by_role("button", name="Make this mix").count()
    answer = await page.request.post(f"{link}/mixes", form={"as": "mp3"})
    assert (answer.status, (await answer.json())["type"]) == (403, "urn:retold:problem:not-permitted")


async def test_without_javascript_it_plays_downloads_mixes_and_erases(stage: Stage, browser: Browser) -> None:
    """The same page, by links and forms alone."""
    session = await put_session(stage.gateway, a_short_one(8))
    async with asyncio.timeout(60):
        while not await is_rendered(stage.gateway, session):
            await asyncio.sleep(0.1)
    other = Stage(stage.gateway, session)
    context = await browser.new_context(java_script_enabled=False, accept_downloads=True)
    page = await context.new_page()
    await page.goto(other.link("remix", "delete"))
    assert await page.locator("audio[controls] source").count()
    async with page.expect_download() as waiting:
        await page.get_by_role("link", name="Download").first.click()
    assert (await (await waiting.value).path()).stat().st_size > 10_000
    await page.locator("label", has=page.get_by_role("checkbox", name="Mute")).first.click()
    await page.get_by_role("button", name="Make this mix").click()
    await expect(page.locator("#files")).to_contain_text(f"without {NAMES[0]}")
    await page.get_by_role("link", name="Erase this recording").click()
    for _ in range(2):
        await expect(page.get_by_role("heading")).to_contain_text("Delete")
        await page.get_by_role("button", name="Delete it").click()
        await expect(page.get_by_role("heading")).to_have_text("The recording is deleted")
        assert await standing(stage.gateway.bus, session) == "deleted"
        await page.get_by_role("button", name="Undo").click()
        await expect(page.locator("#files")).to_contain_text(NAMES[0])
        await page.goto(f"{page.url}?open=1")  # other versions are folded away
        await expect(page.locator("#files")).to_contain_text(f"without {NAMES[0]}")
        assert await standing(stage.gateway.bus, session) == "here"
        await page.get_by_role("link", name="Erase this recording").click()
    await context.close()


async def test_a_live_session_grows_and_turns_ready(stage: Stage, page: Page) -> None:
    """Its clock runs, a note appears, and when it ends the page becomes that of a recording."""
    built = a_short_one(9)
    bus = stage.gateway.bus
    await create_session(bus, built.session)
    *opening, ending = built.messages
    entry = None
    for message in opening:
        await bus.publish(message.subject, message.data, message_id=message.message_id)
        if isinstance(parse(message.subject), FactSubject):
            entry = fold_entry(entry, decode_fact(message.data))
    assert entry is not None
    started = time.time_ns() - 8_000_000_000
    await put_entry(bus, msgspec.structs.replace(entry, started_unix_ns=started, ended_unix_ns=None, duration_ns=None))
    await page.goto(Stage(stage.gateway, built.session).link())
    await expect(page.get_by_text("Being recorded", exact=True)).to_be_visible()
    first = await page.locator("#length").text_content()
    await expect(page.locator("#length")).not_to_have_text(str(first))
    note = NoteAdded(id="n1", session=built.session, at_ns=2_000_000_000, unix_ns=0, text="Here it turns", author="")
    await bus.publish(facts(built.session), encode_fact(note), message_id="n1")
    await expect(page.locator("#notes")).to_contain_text("Here it turns")
    await bus.publish(ending.subject, ending.data, message_id=ending.message_id)
    done = fold_entry(entry, decode_fact(ending.data))
    assert done is not None
    await put_entry(bus, msgspec.structs.replace(done, started_unix_ns=started, ended_unix_ns=time.time_ns()))
    await expect(page.locator("#mix")).to_be_attached()
    await expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("scheme", "viewport", "every"),
    [("light", DESKTOP, True), ("dark", PHONE, True), ("dark", DESKTOP, False), ("light", PHONE, False)],
    ids=["desktop-light", "phone-dark", "desktop-dark", "phone-light"],
)
async def test_axe_finds_no_violation(
    stage: Stage, browser: Browser, tmp_path: Path, scheme: Any, viewport: Any, every: Any
) -> None:
    """WCAG 2.2 AA on every page there is, the session's in each size and scheme; nothing is wider than the screen."""
    claims = new_claims(
        sub="1", session="", action="list", obj="all", now_s=int(time.time()), lifetime_s=600, may=("remix", "delete")
    )
    listed = list_path(sign_link(claims, stage.gateway.key))
    link = stage.link("remix", "delete")
    context = await browser.new_context(color_scheme=scheme, viewport=viewport)
    page = await context.new_page()
    pages = (
        (link, "session"),
        (f"{link}/delete", "delete"),
        (stage.gateway.url + listed, "list"),
        (stage.link(uses=1), "landing"),
        (stage.link(who="300000000000000001"), "sign in"),
        (f"{stage.gateway.url}/s/x.y.z", "problem"),
        (f"{stage.gateway.url}/", "home"),
    )
    for url, name in pages if every else pages[:1]:
        await page.goto(url)
        if name == "session":
            await page.locator("#transport").wait_for()
            await page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        results = await Axe().run(page, options=WCAG)
        assert results.violations_count == 0, results.generate_report()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    await context.close()


async def test_no_request_leaves_for_elsewhere(stage: Stage, page: Page) -> None:
    """Everything that a visit loads comes from the gateway itself, and carries no referrer."""
    requests: list[Any] = []
    page.on("request", lambda request: requests.append(request))  # noqa: PLW0108  # Playwright marks its handlers
    await page.goto(stage.link())
    await page.get_by_role("button", name="Play", exact=True).click()
    await until_past(page, 0.2)
    assert len(requests) > 5
    for request in requests:
        assert request.url.startswith(stage.gateway.url + "/"), request.url
        assert not (await request.all_headers()).get("referer")
