"""A recipe's files, from the bus to a folder: what a job does before it stores them, and what `verify` does again."""

from __future__ import annotations

from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from contracts.clock import NS_PER_SECOND, ticks_to_ns
from contracts.jetstream.connection import Bus
from contracts.jetstream.consented import only_consented
from contracts.jetstream.replay import LogMessage, replay, replay_span
from contracts.recipes import Recipe
from mixer.formats.ffmpeg import Ffmpeg
from mixer.logfile import write_log
from mixer.process import Assignment, render_in_process
from mixer.rendered import Order, Rendered

REPLAY_SHARE: Final = 0.05  # of the time: the bus gives a million packets a second
BEFORE_NS: Final = 180 * NS_PER_SECOND  # of the log before a range: from it the clocks are known there
BEHIND_NS: Final = 30 * NS_PER_SECOND

Tell: TypeAlias = Callable[[str, float], None]


class Engine(msgspec.Struct, frozen=True):
    """What renders: `name` goes into every artifact."""

    name: str
    ffmpeg: Ffmpeg


async def make_files(bus: Bus, order: Order, directory: Path, tell: Tell, process: Process | None = None) -> Rendered:
    """Replay what the recipe needs of the log, and render it in a process of its own; cancelling kills that.

    Parameters
    ----------
    tell
        Called with the stage and the fraction of the whole, 0 to 1.
    process
        A rendering process that is ready; None = start one.

    Raises
    ------
    RequestError
        If the session does not have what the recipe asks for.
    RenderProcessError
        If the render failed or its process died.
    """
    path = directory / "log"
    wanted = only_consented(bus, order.session, _log_of(bus, order), last=order.log_end)
    await write_log(path, order.session, _counted(wanted, order.log_end, tell))
    assignment = Assignment(log=str(path), directory=str(directory), order=order)
    return await render_in_process(
        assignment, lambda stage, fraction: tell(stage, REPLAY_SHARE + (1 - REPLAY_SHARE) * fraction), process
    )


def order_of(session: str, recipe: Recipe, *, log_end: int, engine: Engine) -> Order:
    """What to render, and under which names."""
    return Order(session=session, recipe=recipe, log_end=log_end, engine=engine.name, ffmpeg=engine.ffmpeg)


def _log_of(bus: Bus, order: Order) -> AsyncIterator[LogMessage]:
    """What of the log the recipe needs: of a range, with so much around it that its clocks are known."""
    recipe = order.recipe
    if not recipe.start_tick and recipe.stop_tick is None:
        return replay(bus, order.session, last=order.log_end)
    return replay_span(
        bus,
        order.session,
        start_ns=ticks_to_ns(recipe.start_tick) - BEFORE_NS if recipe.start_tick else None,
        stop_ns=None if recipe.stop_tick is None else ticks_to_ns(recipe.stop_tick) + BEHIND_NS,
        last=order.log_end,
    )


async def _counted(messages: AsyncIterator[LogMessage], last: int, tell: Tell) -> AsyncIterator[LogMessage]:
    async for message in messages:
        tell("replay", REPLAY_SHARE * message.sequence / last)
        yield message
