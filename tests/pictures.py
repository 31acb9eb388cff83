"""`python -m tests.pictures FOLDER`: the pictures of the page that the README shows, from a session really rendered."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, async_playwright

from tests.studio import ARGUMENTS, CHROMIUM, Stage, staged

SIZES: Final = {"desktop": (1000, 1180), "phone": (390, 1180)}


async def take(browser: Browser, stage: Stage, folder: Path) -> None:
    """One picture for each size and scheme, at a moment in the middle of the session."""
    for name, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            context = await browser.new_context(
                color_scheme="light" if scheme == "light" else "dark", viewport={"width": width, "height": height}
            )
            page = await context.new_page()
            await page.goto(stage.link("remix", "delete"))
            await page.wait_for_function(
                "() => { const c = document.querySelector('.wave canvas'); return c && c.getContext('2d')"
                ".getImageData(c.width * 0.1, 0, 4, c.height * 0.4).data.some(v => v > 0); }"
            )
            await page.evaluate("() => { document.getElementById('seek').value = 22; }")
            await page.locator("#seek").dispatch_event("input")
            await page.screenshot(path=folder / f"page-{name}-{scheme}.png")
            await context.close()


async def main(folder: Path) -> None:
    """Everything, into a folder."""
    with tempfile.TemporaryDirectory() as temporary:
        async with staged(Path(temporary)) as stage, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
            await take(browser, stage, folder)
            await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
