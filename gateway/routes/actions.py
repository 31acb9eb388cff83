"""What a page can do if its link allows it: make a mix, delete the session, and undo that.

No cookie takes part: whoever can send such a request has the link, so no other site can send it for them.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

import msgspec
import structlog
from litestar import Response, post, route
from litestar.params import FromPath

from contracts.errors import MalformedError
from contracts.jetstream.keeping import undelete as restore
from contracts.jetstream.keeping import withdraw
from contracts.links import page_path
from gateway import problems
from gateway.answers import html, prefers_html
from gateway.edge import METHODS
from gateway.pages.form import read_form
from gateway.pages.render import render_delete, render_deleted
from gateway.pages.session import length_s, say_title
from gateway.pages.words import say_hours, say_seconds
from gateway.problems import ProblemError
from gateway.routes.entrance import Entrance, admit, enter, read_entry
from gateway.routes.feeds import show_mix
from gateway.services import Services, Visitor, services_of, visit_of

log = structlog.get_logger()

MAX_FIELDS: Final = 400
MARKED_S: Final = 1.0  # without grace, too, a deletion is a mark: the keeper, which knows the grace, erases at once


@post(["/s/{token:str}/mixes", "/l/{token:str}/{session:str}/mixes"], status_code=HTTPStatus.ACCEPTED)
async def make_mix(request: Visitor, token: FromPath[str], session: FromPath[str] = "") -> Response[bytes]:
    """Make the mix that the form asks for; a browser goes back to the page, a script is told the job."""
    visit_of(request, "make_mix")
    entrance = await enter(request, token, session)
    entrance.opened.require("remix")
    recipe = read_form(await _read_fields(request))
    mix = await services_of(request).mixes.ask(entrance.session, recipe, by=f"link {entrance.opened.claims.sub}")
    if prefers_html(request.headers.get("accept", "")):
        location = f"{entrance.base}?open=1#versions"
        return Response(b"", status_code=HTTPStatus.SEE_OTHER, headers={"Location": location})
    return Response(msgspec.json.encode(show_mix(mix)), status_code=HTTPStatus.ACCEPTED, media_type="application/json")


@route(["/s/{token:str}/delete", "/l/{token:str}/{session:str}/delete"], http_method=METHODS)
async def ask_delete(request: Visitor, token: FromPath[str], session: FromPath[str] = "") -> Response[bytes]:
    """Ask whether it shall be erased."""
    visit_of(request, "ask_delete")
    entrance = await _enter_to_delete(request, token, session)
    entry = await read_entry(request, entrance.session)
    length = say_seconds(length_s(entry, entry.started_unix_ns))
    grace = say_hours(services_of(request).grace_s / 3600)
    return html(render_delete(title=say_title(entry), length=length, base=entrance.base, grace=grace))


@post(["/s/{token:str}/delete", "/l/{token:str}/{session:str}/delete"], status_code=HTTPStatus.OK)
async def delete(request: Visitor, token: FromPath[str], session: FromPath[str] = "") -> Response[bytes]:
    """Delete the session, which the form has to say in so many words."""
    visit_of(request, "delete")
    entrance = await _enter_to_delete(request, token, session)
    if ("confirm", "erase") not in await _read_fields(request):
        raise ProblemError(problems.MALFORMED, detail="The field `confirm` has to say `erase`.")
    services = services_of(request)
    await remove(services, entrance.session, by=f"link {entrance.opened.claims.sub}")
    grace = say_hours(services.grace_s / 3600)
    undo = entrance.base if not session else ""  # below a list nothing tells any more that it was on it
    return html(render_deleted(grace=grace, base=undo))


@post("/s/{token:str}/undelete")
async def undelete(request: Visitor, token: FromPath[str]) -> Response[bytes]:
    """Bring a deleted session back, by the link that could delete it."""
    visit_of(request, "undelete")
    services = services_of(request)
    opened = await services.gate.open_deleted(token)
    if not services.grace_s:
        raise ProblemError(problems.SESSION_GONE)
    await admit(request, opened)
    await restore(services.bus, opened.claims.ses)
    log.info("session_undeleted", session=opened.claims.ses, by=f"link {opened.claims.sub}")
    return Response(b"", status_code=HTTPStatus.SEE_OTHER, headers={"Location": page_path(token)})


async def remove(services: Services, session: str, *, by: str) -> None:
    """Delete a session: nobody sees it from now on, and the keeper erases it when the grace is over.

    The gateway itself may delete nothing: whoever breaks into it cannot, either.
    """
    await withdraw(services.bus, session, by=by, grace_s=max(services.grace_s, MARKED_S))
    log.info("session_deleted", session=session, by=by)


async def _enter_to_delete(request: Visitor, token: str, session: str) -> Entrance:
    entrance = await enter(request, token, session)
    entrance.opened.require("delete")
    entry = await read_entry(request, entrance.session)
    if entry.ended_unix_ns is None and entry.guild_id:
        raise ProblemError(problems.STILL_LIVE)
    return entrance


async def _read_fields(request: Visitor) -> list[tuple[str, str]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise ProblemError(problems.MALFORMED, detail="A form is expected: application/x-www-form-urlencoded.")
    try:
        return parse_qsl(
            (await request.body()).decode(), keep_blank_values=True, strict_parsing=False, max_num_fields=MAX_FIELDS
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise MalformedError("the form cannot be read") from error
