"""The page of a session, what its script draws, and the list of sessions."""

from __future__ import annotations

import time
from typing import Any

from litestar import Response, route
from litestar.params import FromPath

from contracts.jetstream.directory import list_entries
from contracts.jetstream.objects import list_artifacts
from contracts.links import list_path
from gateway.answers import html
from gateway.edge import METHODS
from gateway.pages.files import PEAKS_RECIPE, lacks_peaks
from gateway.pages.listing import describe_list
from gateway.pages.render import render_home, render_list, render_session
from gateway.pages.session import Looking, describe_session
from gateway.pages.timeline import describe_timeline
from gateway.routes.entrance import admit, enter, is_listed, read_entry
from gateway.routes.feeds import is_heard
from gateway.services import Visitor, services_of, visit_of


@route("/", http_method=METHODS)
async def home(request: Visitor) -> Response[bytes]:
    """Whoever comes without a link is told that they need one."""
    visit_of(request, "home")
    return html(render_home())


@route(["/s/{token:str}", "/l/{token:str}/{session:str}"], http_method=METHODS)
async def page(request: Visitor, token: FromPath[str], session: FromPath[str] = "") -> Response[bytes]:
    """The page of the session that a page link is for, or of one on a list."""
    visit_of(request, "page")
    services = services_of(request)
    entrance = await enter(request, token, session)
    claims = entrance.opened.claims
    artifacts = await list_artifacts(services.bus, entrance.session)
    if lacks_peaks(artifacts):
        await services.mixes.want(entrance.session, PEAKS_RECIPE)
    entry = await read_entry(request, entrance.session)
    heard = entry.ended_unix_ns is None and await is_heard(services.bus, entrance.session)
    view = describe_session(
        entry,
        artifacts,
        looking=Looking(
            base=entrance.base,
            may=claims.may,
            expires_unix_s=claims.exp,
            now_unix_ns=time.time_ns(),
            heard=heard,
            bound=bool(claims.who),
        ),
        story=await services.stories.of(entrance.session),
        mixes=services.mixes.of(entrance.session),
    )
    return html(render_session(view))


@route(["/s/{token:str}/timeline", "/l/{token:str}/{session:str}/timeline"], http_method=METHODS)
async def timeline(request: Visitor, token: FromPath[str], session: FromPath[str] = "") -> dict[str, Any]:
    """Lanes, notes and gaps, for the page's script."""
    visit_of(request, "timeline")
    services = services_of(request)
    entrance = await enter(request, token, session)
    return describe_timeline(
        await read_entry(request, entrance.session),
        await list_artifacts(services.bus, entrance.session),
        await services.stories.of(entrance.session),
        base=entrance.base,
        now_unix_ns=time.time_ns(),
    )


@route("/l/{token:str}", http_method=METHODS)
async def list_page(request: Visitor, token: FromPath[str]) -> Response[bytes]:
    """The sessions that a list link is for, newest first."""
    visit_of(request, "list")
    services = services_of(request)
    opened = await services.gate.open_list(token)
    await admit(request, opened)
    claims = opened.claims
    listed = [entry for entry in await list_entries(services.bus) if is_listed(claims.obj, entry)]
    view = describe_list(listed, base=list_path(token), expires_unix_s=claims.exp, now_unix_ns=time.time_ns())
    return html(render_list(view))
