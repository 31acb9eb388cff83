"""Ending tasks for sure.

`asyncio.wait_for` of Python 3.11 forgets a cancellation that comes in the same turn of the loop as what it waits for
(CPython issue 86296); libraries are full of it. A task that was told to end once may go on.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

AGAIN_S: Final = 1.0


async def end_tasks(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel, again every AGAIN_S seconds, until all have ended; what they returned or raised is dropped."""
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        ended, left = await asyncio.wait(left, timeout=AGAIN_S)
        for task in ended:
            if not task.cancelled():
                task.exception()  # so that nobody is told that it was never looked at
