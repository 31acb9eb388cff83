"""Work beside something that may end it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def beside(guard: Coroutine[Any, Any, Any], work: Coroutine[Any, Any, T]) -> T | None:
    """What the work returns; None if the guard ends before it. The error of either ends both."""
    guarding, working = asyncio.create_task(guard), asyncio.create_task(work)
    try:
        await asyncio.wait({guarding, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        guarding.result()
        return None
    finally:
        guarding.cancel()
        working.cancel()
        await asyncio.gather(guarding, working, return_exceptions=True)
