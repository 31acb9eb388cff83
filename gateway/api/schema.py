"""The API's description: OpenAPI 3.1, made of the very types that are decoded and encoded, and a table of routes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Response, route

from contracts.access import Scope
from contracts.recipes import Recipe
from gateway import problems
from gateway.api import models
from gateway.api.access import check_query
from gateway.edge import METHODS
from gateway.problems import MEDIA_TYPE, Problem
from gateway.services import Visitor, visit_of

SESSION_PATTERN: Final = "^[0-9a-hjkmnp-tv-z]{16}$"
PREFIX: Final = "/api/v1"
REF: Final = "#/components/schemas/{name}"

ANYWHERE: Final = (problems.UNAUTHENTICATED, problems.SCOPE_MISSING, problems.MALFORMED, problems.UNAVAILABLE)
OF_SESSION: Final = (*ANYWHERE, problems.SESSION_NOT_FOUND)
WITH_BODY: Final = (problems.UNSUPPORTED_MEDIA, problems.IMPOSSIBLE, problems.TOO_LARGE)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One operation.

    Attributes
    ----------
    gives
        Its body: a type, a media type for bytes, or None for none.
    refuses
        Everything it can be refused for.
    """

    path: str
    method: str
    scope: Scope
    says: str
    status: HTTPStatus = HTTPStatus.OK
    gives: type | str | None = None
    takes: type | None = None
    query: tuple[str, ...] = ()
    refuses: tuple[Problem, ...] = OF_SESSION


QUERY: Final[dict[str, dict[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
    "before": {"type": "string", "pattern": SESSION_PATTERN},
    "first": {"type": "integer", "minimum": 1, "maximum": 1 << 53, "default": 1},
    "inline": {"type": "string", "enum": ["1"]},
}
PATH: Final[dict[str, dict[str, Any]]] = {
    "session": {"type": "string", "pattern": SESSION_PATTERN},
    "name": {"type": "string", "minLength": 1},
    "job": {"type": "string", "minLength": 1},
    "guild": {"type": "string", "minLength": 1},
    "jti": {"type": "string", "minLength": 1},
}
RECORDER: Final = (problems.REFUSED, problems.IMPOSSIBLE, problems.NO_RECORDER)
ROUTES: Final = (
    Route(
        path="/sessions",
        method="get",
        scope="read",
        says="Sessions, newest first",
        gives=models.SessionPage,
        query=("limit", "before"),
        refuses=ANYWHERE,
    ),
    Route(path="/sessions/{session}", method="get", scope="read", says="A session", gives=models.SessionDetails),
    Route(
        path="/sessions/{session}",
        method="delete",
        scope="delete",
        says="Erase a session for ever",
        status=HTTPStatus.NO_CONTENT,
        refuses=(*OF_SESSION, problems.STILL_LIVE),
    ),
    Route(
        path="/sessions/{session}/events",
        method="get",
        scope="read",
        says="The facts of a session, as they were written",
        gives=models.EventPage,
        query=("first", "limit"),
    ),
    Route(path="/sessions/{session}/artifacts", method="get", scope="read", says="Its files", gives=models.FileList),
    Route(
        path="/sessions/{session}/artifacts/{name}",
        method="get",
        scope="read",
        says="A file's bytes, with ranges and conditions",
        gives="*/*",
        query=("inline",),
        refuses=(
            *OF_SESSION,
            problems.FILE_NOT_FOUND,
            problems.PRECONDITION_FAILED,
            problems.RANGE_NOT_SATISFIABLE,
        ),
    ),
    Route(path="/sessions/{session}/renders", method="get", scope="read", says="Its jobs", gives=models.RenderList),
    Route(
        path="/sessions/{session}/renders",
        method="post",
        scope="render",
        says="Make this recipe",
        status=HTTPStatus.ACCEPTED,
        takes=Recipe,
        gives=models.Render,
        refuses=(*OF_SESSION, *WITH_BODY, problems.TOO_MANY_MIXES),
    ),
    Route(
        path="/sessions/{session}/renders/{job}",
        method="get",
        scope="read",
        says="How a job stands",
        gives=models.Render,
        refuses=(*OF_SESSION, problems.JOB_NOT_FOUND),
    ),
    Route(
        path="/sessions/{session}/renders/{job}",
        method="delete",
        scope="render",
        says="Cancel a job",
        status=HTTPStatus.NO_CONTENT,
        refuses=(*OF_SESSION, problems.JOB_NOT_FOUND),
    ),
    Route(
        path="/sessions/{session}/renders/{job}/events",
        method="get",
        scope="read",
        says="How a job goes on: events named `render`, each a Render",
        gives="text/event-stream",
        refuses=(*OF_SESSION, problems.JOB_NOT_FOUND),
    ),
    Route(
        path="/sessions/{session}/links",
        method="post",
        scope="link",
        says="A link to its page, or to one of its files",
        status=HTTPStatus.CREATED,
        takes=models.NewLink,
        gives=models.SignedLink,
        refuses=(*OF_SESSION, *WITH_BODY, problems.FILE_NOT_FOUND, problems.NO_SIGNER),
    ),
    Route(
        path="/links/{jti}",
        method="delete",
        scope="link",
        says="Withdraw a link or a token",
        status=HTTPStatus.NO_CONTENT,
        refuses=(*ANYWHERE, problems.NOT_FOUND),
    ),
    Route(
        path="/recordings",
        method="get",
        scope="read",
        says="What is being recorded",
        gives=models.Recordings,
        refuses=ANYWHERE,
    ),
    Route(
        path="/recordings",
        method="post",
        scope="record",
        says="Join a voice channel and record it",
        status=HTTPStatus.CREATED,
        takes=models.NewRecording,
        gives=models.StartedRecording,
        refuses=(*ANYWHERE, *WITH_BODY, *RECORDER),
    ),
    Route(
        path="/recordings/{guild}",
        method="delete",
        scope="record",
        says="End a server's recording",
        gives=models.StoppedRecording,
        refuses=(*ANYWHERE, problems.NOT_FOUND, *RECORDER),
    ),
    Route(
        path="/recordings/{guild}/notes",
        method="post",
        scope="note",
        says="Mark a moment of a server's recording",
        status=HTTPStatus.CREATED,
        takes=models.NewNote,
        gives=models.StoredNote,
        refuses=(*ANYWHERE, problems.NOT_FOUND, *WITH_BODY, *RECORDER),
    ),
)


def describe_api(version: str) -> dict[str, Any]:
    """The OpenAPI document."""
    kinds = {kind for one in ROUTES for kind in (one.gives, one.takes) if isinstance(kind, type)}
    _, schemas = msgspec.json.schema_components(sorted(kinds, key=lambda kind: kind.__name__), ref_template=REF)
    schemas["Problem"] = {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
        },
        "additionalProperties": False,
    }
    paths: dict[str, dict[str, Any]] = {}
    for one in ROUTES:
        path = paths.setdefault(PREFIX + one.path, {})
        path[one.method] = _operation(one, "get")
        if one.method == "get" and one.gives != "text/event-stream":
            path["head"] = _operation(one, "head")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Retold", "version": version, "license": {"name": "MIT"}},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "security": [{"token": []}],
    }


def _operation(one: Route, method: str) -> dict[str, Any]:
    head = method == "head"
    statuses: dict[int, list[Problem]] = {}
    for problem in one.refuses:
        statuses.setdefault(problem.status, []).append(problem)
    responses = {str(int(one.status)): _answer(one, head=head)}
    if one.gives == "*/*":
        responses |= {"206": _answer(one, head=head), "304": {"description": "You have it already"}}
    for status, reasons in sorted(statuses.items()):
        refusal: dict[str, Any] = {"description": "; ".join(dict.fromkeys(reason.title for reason in reasons))}
        if not head:
            refusal["content"] = {MEDIA_TYPE: {"schema": {"$ref": REF.format(name="Problem")}}}
        responses[str(int(status))] = refusal
    operation: dict[str, Any] = {
        "operationId": (f"{'head' if head else one.method} " + one.path.strip("/")).replace("/", " "),
        "summary": one.says,
        "description": f"Needs the scope `{one.scope}`.",
        "parameters": _parameters(one),
        "responses": responses,
    }
    if one.takes is not None:
        schema = {"$ref": REF.format(name=one.takes.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _answer(one: Route, *, head: bool) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": one.says}
    if head or one.gives is None:
        return answer
    if isinstance(one.gives, str):
        answer["content"] = {one.gives: {"schema": {"type": "string"}}}
    else:
        answer["content"] = {"application/json": {"schema": {"$ref": REF.format(name=one.gives.__name__)}}}
    return answer


def _parameters(one: Route) -> list[dict[str, Any]]:
    named = [part[1:-1] for part in one.path.split("/") if part.startswith("{")]
    return [
        *({"name": name, "in": "path", "required": True, "schema": PATH[name]} for name in named),
        *({"name": name, "in": "query", "required": False, "schema": QUERY[name]} for name in one.query),
    ]


_DOCUMENT: Final = msgspec.json.encode(describe_api("1"))


@route("/api/openapi.json", http_method=METHODS)
async def openapi(request: Visitor) -> Response[bytes]:
    """The description itself; it needs no token."""
    visit_of(request, "openapi")
    check_query(request)
    return Response(_DOCUMENT, media_type="application/json")
