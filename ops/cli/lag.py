"""`retold lag`: how each room is heard and saved, how far each consumer is behind, and what else needs a look."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from rich.live import Live

from contracts.errors import RetoldError
from contracts.service import EXIT_DONE
from ops.cli.lag_view import draw_once, draw_watch
from ops.cli.output import console, emit, print_data
from ops.cli.session_bus import session_bus
from ops.look import Look, Lookout
from ops.monitor import Monitor
from ops.rooms import Room, Trends, rooms_of

WATCH_S: Final = 1.0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `lag`."""
    lag = commands.add_parser("lag", help="how each room is heard and saved, and how far each consumer is behind")
    lag.add_argument("--watch", action="store_true", help="keep showing it, every second, until Ctrl-C")
    lag.add_argument("--json", action="store_true", help="print one JSON object; with --watch one a line")
    lag.set_defaults(run=_lag)


async def _lag(arguments: argparse.Namespace) -> int:
    async with _seeing() as seeing:
        if arguments.watch:
            await (_print_lines(seeing) if arguments.json else _show(seeing))
        await seeing.look()  # two looks make a trend
        await asyncio.sleep(WATCH_S)
        look, rooms = await seeing.look()
        if arguments.json:
            emit(_as_data(look, rooms))
        else:
            print_data(draw_once(look, rooms))
    return EXIT_DONE


class _Seeing:
    """Looks, with what earlier ones tell of the trend."""

    def __init__(self, lookout: Lookout) -> None:
        self._lookout = lookout
        self._trends = Trends()

    async def look(self) -> tuple[Look, list[Room]]:
        """How everything is, and how each room goes."""
        look = await self._lookout.look()
        return look, rooms_of(look, self._trends.note(look))


@contextlib.asynccontextmanager
async def _seeing() -> AsyncIterator[_Seeing]:
    async with session_bus() as (settings, bus), contextlib.AsyncExitStack() as stack:
        monitor = None
        if settings.nats_monitor_url:
            monitor = await stack.enter_async_context(Monitor(settings.nats_monitor_url))
        yield _Seeing(Lookout(bus, monitor))


async def _print_lines(seeing: _Seeing) -> None:
    while True:
        emit(_as_data(*await seeing.look()))
        await asyncio.sleep(WATCH_S)


async def _show(seeing: _Seeing) -> None:
    """Until Ctrl-C; a server that is away for a while ends it as little as a room that is not well."""
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            try:
                look, rooms = await seeing.look()
            except RetoldError as error:
                live.update(str(error), refresh=True)
            else:
                live.update(draw_watch(look, rooms, height=console.height), refresh=True)
            await asyncio.sleep(WATCH_S)


def _as_data(look: Look, rooms: list[Room]) -> dict[str, Any]:
    return {
        "unix_s": look.unix_s,
        "rooms": [{**_plain(room), "state": room.state.name.lower()} for room in rooms],
        "streams": look.streams,
        "jobs": {"queued": look.jobs.messages if look.jobs else 0, "oldest_s": look.oldest_job_s},
        "capture": look.status,
        "failed_renders": look.failed,
        "advisories": look.advisories,
        "storage": look.storage,
        "server": look.server,
    }


def _plain(room: Room) -> dict[str, Any]:
    return {name: getattr(room, name) for name in room.__struct_fields__}
