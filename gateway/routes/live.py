"""Listening to a call while it is recorded, some seconds behind: the MP3 that the following mixer puts on the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import structlog
from litestar import get
from litestar.params import FromPath
from litestar.types import ASGIApp

from contracts.jetstream.connection import Bus
from contracts.jetstream.pull import read_newest
from contracts.streams import LIVE
from contracts.subjects import live
from gateway import problems
from gateway.problems import ProblemError
from gateway.routes.entrance import Guarded, enter, read_entry
from gateway.routes.feeds import MAX_FEEDS, EventStream, is_heard
from gateway.services import Visitor, services_of, visit_of

log = structlog.get_logger()

WAITING: Final = 32  # messages of a second or so: who falls back further is let go, and begins anew at the head
SILENT_S: Final = 15.0  # nothing for so long: the call is over, or nobody follows it


@get(["/s/{token:str}/live.mp3", "/l/{token:str}/{session:str}/live.mp3"])
async def listen(request: Visitor, token: FromPath[str], session: FromPath[str] = "") -> ASGIApp:
    """The call as it is heard now, until it ends."""
    visit_of(request, "live_sound")
    services = services_of(request)
    entrance = await enter(request, token, session)
    entry = await read_entry(request, entrance.session)
    if entry.ended_unix_ns is not None or not await is_heard(services.bus, entrance.session):
        raise ProblemError(problems.NOT_LIVE)
    if len(services.transfers) >= MAX_FEEDS:
        raise ProblemError(problems.BUSY)
    stream = EventStream(_sound(services.bus, entrance.session), media_type=b"audio/mpeg")
    return Guarded(stream, services.transfers, entrance.opened, entrance.session, endless=True)


async def _sound(bus: Bus, session: str) -> AsyncGenerator[bytes, None]:
    """What was said last, so that it begins at once, and then whatever comes."""
    queue: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
    late = asyncio.Event()

    async def receive(_subject: str, data: bytes) -> None:
        try:
            queue.put_nowait(data)
        except asyncio.QueueFull:
            late.set()

    unsubscribe: Callable[[], Awaitable[None]] = await bus.subscribe(live(session), receive)
    try:
        newest = await read_newest(bus, LIVE.name, live(session))
        if newest is not None and queue.empty():
            yield newest.data
        while not late.is_set():
            async with asyncio.timeout(SILENT_S):
                data = await queue.get()
            yield data
        log.info("listener_too_slow", session=session)
    except TimeoutError:
        return
    finally:
        await unsubscribe()
