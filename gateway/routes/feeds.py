"""What changes, as server-sent events: the page of a session that is being recorded, or rendered, follows itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

import msgspec
from litestar import get
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from contracts.jetstream.connection import Bus, JetStreamError
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.pull import read_newest
from contracts.streams import LIVE
from contracts.subjects import live
from gateway import problems
from gateway.mixes import Mix
from gateway.pages.session import length_s, say_state, say_version
from gateway.problems import ProblemError
from gateway.routes.entrance import Guarded, enter, read_entry
from gateway.services import Visitor, services_of, visit_of

AT_MOST_EVERY_S: Final = 0.5
LIVE_EVERY_S: Final = 1.5
CALM_EVERY_S: Final = 15.0  # also keeps proxies from closing a connection that says nothing
MAX_FEEDS: Final = 200


class EventStream:
    """An ASGI response that sends what a generator yields, as long as somebody listens."""

    def __init__(
        self, messages: AsyncGenerator[bytes, None], *, media_type: bytes = b"text/event-stream; charset=utf-8"
    ) -> None:
        self._messages = messages
        self._media_type = media_type

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [
            (b"content-type", self._media_type),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            with contextlib.suppress(RuntimeError):
                await self._messages.aclose()

    async def _send_all(self, send: Send) -> None:
        async for message in self._messages:
            await send({"type": "http.response.body", "body": message, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(name: str, value: object) -> bytes:
    """One message of an event stream, its data as JSON on one line."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(value))


def show_mix(mix: Mix) -> dict[str, Any]:
    """A job as scripts see it."""
    return {
        "job": mix.job,
        "session": mix.session,
        "state": mix.state,
        "fraction": round(mix.fraction, 4),
        "eta_s": mix.eta_s,
        "reason": mix.reason,
        "recipe": mix.recipe,
        "files": mix.files,
    }


async def is_heard(bus: Bus, session: str) -> bool:
    """Whether there is something to listen to right now."""
    try:
        return await read_newest(bus, LIVE.name, live(session)) is not None
    except JetStreamError:
        return False


@get(["/s/{token:str}/events", "/l/{token:str}/{session:str}/events"])
async def page_events(request: Visitor, token: FromPath[str], session: FromPath[str] = "") -> ASGIApp:
    """How the session goes on: its state, its length, the mixes that are being made."""
    visit_of(request, "page_events")
    services = services_of(request)
    entrance = await enter(request, token, session)
    if len(services.transfers) >= MAX_FEEDS:
        raise ProblemError(problems.BUSY)
    stream = EventStream(_follow(request, entrance.session))
    return Guarded(stream, services.transfers, entrance.opened, entrance.session, endless=True)


async def _follow(request: Visitor, session: str) -> AsyncGenerator[bytes, None]:
    async with aclosing(_states(request, session)) as states:
        said: dict[str, Any] | None = None
        async for state in states:
            if state != said:
                said = state
                yield event("state", state)
            else:
                yield b": still here\n\n"


async def _states(request: Visitor, session: str) -> AsyncGenerator[dict[str, Any], None]:
    services = services_of(request)
    while True:
        seen = services.mixes.changes
        entry = await read_entry(request, session)
        artifacts = await list_artifacts(services.bus, session)
        story = await services.stories.of(session)
        state = say_state(entry, artifacts, time.time_ns())
        mixes = services.mixes.of(session)
        heard = state == "live" and await is_heard(services.bus, session)
        yield {
            "state": state,
            "version": say_version(entry, artifacts, story, mixes, state=state, heard=heard),
            "duration_s": int(length_s(entry, time.time_ns())),
            "mixes": [show_mix(mix) for mix in mixes],
        }
        calm = state in {"ready", "empty"}
        await asyncio.sleep(AT_MOST_EVERY_S)
        await services.mixes.changed(seen, timeout_s=CALM_EVERY_S if calm else LIVE_EVERY_S)
