"""`python -m tests.lag_picture FILE`: the picture of `retold lag --watch` in the README, of rooms that really talk.

Most rooms are well; the mixer was stopped a while ago, so those that it followed fall behind.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import MONOKAI

from ops.cli.lag_view import draw_watch
from ops.look import Lookout
from ops.monitor import Monitor
from ops.rooms import Trends, rooms_of
from tests.live_rooms import eventually, live_rooms

ROOMS: Final = 60
FOLLOWED: Final = 4
FONT: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # of another server: any font of fixed width will do
TALK_S: Final = 45.0
BEHIND_S: Final = 9.0
COLUMNS, LINES = 80, 24


async def main(file: Path) -> None:
    """Record, let the mixer fall behind, and draw."""
    with tempfile.TemporaryDirectory() as folder:
        async with live_rooms(Path(folder), rooms=ROOMS, speakers=1.3, RETOLD_FOLLOW=str(FOLLOWED)) as running:
            await running.record()
            async with Monitor(running.server.monitor_url) as monitor:
                lookout, trends = Lookout(running.bus, monitor), Trends()

                async def followed() -> bool:
                    look = await lookout.look()
                    return sum(look.follower_of(session) is not None for session in running.sessions) == FOLLOWED

                await eventually(followed, seconds=60, what="rooms are followed")
                await asyncio.sleep(TALK_S)
                trends.note(await lookout.look())
                await running.supervisor.stop("mixer")
                for _ in range(round(BEHIND_S)):
                    await asyncio.sleep(1)
                    look = await lookout.look()
                    trends_now = trends.note(look)
    console = Console(record=True, width=COLUMNS, height=LINES, force_terminal=True, file=io.StringIO())
    console.print(draw_watch(look, rooms_of(look, trends_now), height=LINES))
    file.write_text(FONT.sub("", console.export_svg(title="retold lag --watch", theme=MONOKAI)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
