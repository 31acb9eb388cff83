"""Sessions, their facts and their files."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import delete, route
from litestar.params import FromPath
from litestar.types import ASGIApp

from contracts.errors import MalformedError
from contracts.ids import check_id
from contracts.jetstream.directory import list_entries
from contracts.jetstream.objects import find_artifact, list_artifacts
from contracts.jetstream.replay import replay
from contracts.subjects import facts
from gateway import problems
from gateway.api.access import authorize, check_query, find_known, find_session, read_number
from gateway.api.models import (
    EventPage,
    FileList,
    SessionDetails,
    SessionPage,
    show_details,
    show_file,
    show_session,
)
from gateway.edge import METHODS
from gateway.pages.session import RENDERING_S, length_s, say_state
from gateway.problems import ProblemError
from gateway.routes.actions import remove
from gateway.routes.files import send_file
from gateway.services import Visitor, services_of

SESSIONS: Final = "/api/v1/sessions"
SESSION: Final = SESSIONS + "/{session:str}"
MOST: Final = 500
USUAL: Final = 50
BIGGEST: Final = 1 << 53


@route(SESSIONS, http_method=METHODS)
async def list_sessions(request: Visitor) -> SessionPage:
    """Sessions, newest first."""
    caller = await authorize(request, "api_sessions", "read")
    check_query(request, "limit", "before")
    limit = read_number(request, "limit", default=USUAL, least=1, most=MOST)
    before = _read_before(request)
    bus = services_of(request).bus
    entries = [e for e in reversed(await list_entries(bus)) if caller.sees(e) and (not before or e.session < before)]
    now_ns = time.time_ns()
    shown = []
    for entry in entries[:limit]:
        recent = entry.ended_unix_ns is not None and now_ns - entry.ended_unix_ns < RENDERING_S * 1_000_000_000
        files = await list_artifacts(bus, entry.session) if recent or len(entries) <= USUAL else []
        state = say_state(entry, files, now_ns)
        shown.append(show_session(entry, state, length_s(entry, now_ns)))
    return SessionPage(tuple(shown), entries[limit - 1].session if len(entries) > limit else None)


@route(SESSION, http_method=METHODS)
async def show_one(request: Visitor, session: FromPath[str]) -> SessionDetails:
    """A session with its notes, gaps and what was received."""
    caller = await authorize(request, "api_session", "read")
    check_query(request)
    entry = await find_session(request, caller, session)
    services = services_of(request)
    now_ns = time.time_ns()
    state = say_state(entry, await list_artifacts(services.bus, session), now_ns)
    return show_details(entry, state, length_s(entry, now_ns), await services.stories.of(session))


@delete(SESSION, status_code=HTTPStatus.NO_CONTENT)
async def delete_one(request: Visitor, session: FromPath[str]) -> None:
    """Delete a session; it can be brought back while the installation's grace lasts."""
    caller = await authorize(request, "api_delete", "delete")
    check_query(request)
    entry = await find_known(request, caller, session)
    if entry.ended_unix_ns is None and entry.guild_id:
        raise ProblemError(problems.STILL_LIVE)
    await remove(services_of(request), session, by=f"token {caller.claims.sub}")


@route(f"{SESSION}/events", http_method=METHODS)
async def list_events(request: Visitor, session: FromPath[str]) -> EventPage:
    """The facts of a session, as they were written."""
    caller = await authorize(request, "api_events", "read")
    check_query(request, "first", "limit")
    first = read_number(request, "first", default=1, least=1, most=BIGGEST)
    limit = read_number(request, "limit", default=USUAL, least=1, most=MOST)
    await find_session(request, caller, session)
    events: list[dict[str, Any]] = []
    following: int | None = None
    async for message in replay(services_of(request).bus, session, first=first, filter_subject=facts(session)):
        if len(events) == limit:
            following = message.sequence
            break
        events.append({"sequence": message.sequence, **msgspec.json.decode(message.data)})
    return EventPage(tuple(events), following)


@route(f"{SESSION}/artifacts", http_method=METHODS)
async def list_files(request: Visitor, session: FromPath[str]) -> FileList:
    """The files of a session."""
    caller = await authorize(request, "api_artifacts", "read")
    check_query(request)
    await find_session(request, caller, session)
    stored = await list_artifacts(services_of(request).bus, session)
    return FileList(tuple(show_file(one) for one in stored))


@route(f"{SESSION}/artifacts/{{name:str}}", http_method=METHODS)
async def download_file(request: Visitor, session: FromPath[str], name: FromPath[str]) -> ASGIApp:
    """A file's bytes; ranges and conditions as for any download."""
    caller = await authorize(request, "api_download", "read")
    check_query(request, "inline")
    if request.query_params.getall("inline", ["1"]) != ["1"]:
        raise ProblemError(problems.MALFORMED, detail="`inline` is 1, or is left out.")
    await find_session(request, caller, session)
    stored = await find_artifact(services_of(request).bus, session, name)
    if stored is None:
        raise ProblemError(problems.FILE_NOT_FOUND)
    request.scope["state"]["visit"].object = name
    return send_file(request, stored, caller.as_opened(session))


def _read_before(request: Visitor) -> str:
    values = request.query_params.getall("before", [])
    if not values:
        return ""
    try:
        return check_id(values[0] if len(values) == 1 else "")
    except MalformedError as error:
        raise ProblemError(problems.MALFORMED, detail="`before` is the id of a session.") from error
