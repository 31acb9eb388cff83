"""Render jobs: ask for one, follow it, cancel it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Final

from litestar import Response, delete, get, post, route
from litestar.params import FromPath
from litestar.types import ASGIApp

from contracts.recipes import Recipe
from gateway.api.access import authorize, check_query, find_session, read_body
from gateway.api.models import Render, RenderList, show_render
from gateway.api.sessions import SESSION
from gateway.edge import METHODS
from gateway.mixes import Mix, Mixes
from gateway.routes.entrance import Guarded
from gateway.routes.feeds import CALM_EVERY_S, EventStream, event
from gateway.services import Visitor, services_of

RENDERS: Final = f"{SESSION}/renders"
RENDER: Final = f"{RENDERS}/{{job:str}}"


@post(RENDERS, status_code=HTTPStatus.ACCEPTED)
async def make_render(request: Visitor, session: FromPath[str]) -> Response[Render]:
    """Ask for a recipe; the same one that is being made already is the same job."""
    caller = await authorize(request, "api_make_render", "render")
    check_query(request)
    await find_session(request, caller, session)
    recipe = await read_body(request, Recipe)
    mix = await services_of(request).mixes.ask(session, recipe, by=f"token {caller.claims.sub}")
    location = f"/api/v1/sessions/{session}/renders/{mix.job}"
    return Response(show_render(mix), status_code=HTTPStatus.ACCEPTED, headers={"Location": location})


@route(RENDERS, http_method=METHODS)
async def list_renders(request: Visitor, session: FromPath[str]) -> RenderList:
    """The jobs of a session that this gateway was asked for."""
    caller = await authorize(request, "api_renders", "read")
    check_query(request)
    await find_session(request, caller, session)
    return RenderList(tuple(show_render(mix) for mix in services_of(request).mixes.of(session)))


@route(RENDER, http_method=METHODS)
async def show_one(request: Visitor, session: FromPath[str], job: FromPath[str]) -> Render:
    """How a job stands."""
    caller = await authorize(request, "api_render", "read")
    check_query(request)
    await find_session(request, caller, session)
    return show_render(services_of(request).mixes.find(session, job))


@delete(RENDER, status_code=HTTPStatus.NO_CONTENT)
async def cancel(request: Visitor, session: FromPath[str], job: FromPath[str]) -> None:
    """Cancel a job that is waiting or being made; one that has ended stays as it is."""
    caller = await authorize(request, "api_cancel_render", "render")
    check_query(request)
    await find_session(request, caller, session)
    mixes = services_of(request).mixes
    await mixes.cancel(mixes.find(session, job))


@get(f"{RENDER}/events")
async def follow(request: Visitor, session: FromPath[str], job: FromPath[str]) -> ASGIApp:
    """How a job goes on, until it has ended, as server-sent events named `render`."""
    caller = await authorize(request, "api_follow_render", "read")
    check_query(request)
    await find_session(request, caller, session)
    services = services_of(request)
    stream = EventStream(_tell(services.mixes, services.mixes.find(session, job)))
    return Guarded(stream, services.transfers, caller.as_opened(session), session, endless=True)


async def _tell(mixes: Mixes, mix: Mix) -> AsyncGenerator[bytes, None]:
    said = b""
    while True:
        seen = mixes.changes
        now = event("render", show_render(mix))
        yield now if now != said else b": still here\n\n"
        said = now
        if not mix.under_way:
            return
        await mixes.changed(seen, timeout_s=CALM_EVERY_S)
