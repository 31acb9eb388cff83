"""The application that the routes make, and what becomes of every failure.

GET|HEAD  /d/{token}/{filename}               a download link: the object stands in the token
          /s/{token}                          a page link: the page of its session
          /s/{token}/d/{object}/{filename}    a file of that session, by the same page link
          /s/{token}/timeline                 what the page's script draws
          /s/{token}/events                   what changes, as server-sent events
          /s/{token}/live.mp3                 the call as it is heard now
POST      /s/{token}/mixes                    make this mix
GET|POST  /s/{token}/delete                   ask first, then delete
POST      /s/{token}/undelete                 bring it back, while it can be
GET|HEAD  /l/{token}                          a list of sessions; below /l/{token}/{session} all of /s/{token}
GET       /signin                           back from Discord: gateway/signin.py
GET|HEAD  /                                 what is here, and that a link is needed
          /assets/{digest}/{name}             style sheet, script, icon
          /health/live, /health/ready, /metrics
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, cast

import structlog
from litestar import Litestar, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp

from contracts.errors import MalformedError, UnavailableError
from contracts.jetstream.connection import SessionNotFoundError
from contracts.jetstream.keeping import ArchivedError
from contracts.jetstream.signing import NotSignedError
from contracts.keeping import Fetching
from gateway import problems
from gateway.answers import answer, html
from gateway.api import links, recordings, renders, schema, sessions
from gateway.edge import Edge
from gateway.links import LandingError, PreviewError
from gateway.pages.render import render_card, render_landing, render_sign_in
from gateway.problems import ProblemError
from gateway.routes import actions, feeds, files, health, live, pages, signin
from gateway.routes.entrance import SignInBeginsError, SignInNeededError
from gateway.services import Services, Visitor

log = structlog.get_logger()

MAX_BODY_BYTES: Final = 64 * 1024


def create_app(services: Services) -> ASGIApp:
    """The ASGI application."""
    app = Litestar(
        [
            *(files.download, files.page_download),
            *(pages.home, pages.page, pages.timeline, pages.list_page),
            *(actions.make_mix, actions.ask_delete, actions.delete, actions.undelete),
            *(feeds.page_events, live.listen, signin.signed_in),
            *(health.asset, health.live, health.ready, health.metrics),
            *(sessions.list_sessions, sessions.show_one, sessions.delete_one, sessions.list_events),
            *(sessions.list_files, sessions.download_file),
            *(renders.make_render, renders.list_renders, renders.show_one, renders.cancel, renders.follow),
            *(recordings.list_recordings, recordings.start, recordings.stop, recordings.add_note),
            *(links.make_link, links.withdraw, schema.openapi),
        ],
        state=State({"services": services}),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=MAX_BODY_BYTES,
        exception_handlers={Exception: _explain},
    )
    return Edge(cast("ASGIApp", app), services.metrics)


def _explain(request: Visitor, error: Exception) -> Response[bytes]:
    """Every failure as a problem; what nobody foresaw is logged, and says nothing to the outside."""
    if (first := _ask_first(error)) is not None:
        return first
    match error:
        case ProblemError():
            problem = error
        case HTTPException() if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = _of_http(error)
        case MalformedError():
            problem = ProblemError(problems.MALFORMED, detail=str(error))
        case SessionNotFoundError():
            problem = ProblemError(problems.SESSION_GONE)
        case NotSignedError():
            problem = ProblemError(problems.IMPOSSIBLE, detail=str(error))
        case ArchivedError():
            problem = _of_archive(error.fetching)
        case UnavailableError():
            log.warning("store_unavailable", why=str(error))
            problem = ProblemError(problems.UNAVAILABLE)
        case _:
            log.error("request_failed", exc_info=error)
            problem = ProblemError(problems.INTERNAL)
    return answer(problem, accept=request.headers.get("accept", ""))


def _ask_first(error: Exception) -> Response[bytes] | None:
    """What stands between a link and what it opens; None if it is something else."""
    match error:
        case PreviewError():
            return html(render_card())
        case LandingError():
            return html(render_landing())
        case SignInNeededError():
            return html(render_sign_in(other=error.other), status_code=HTTPStatus.FORBIDDEN)
        case SignInBeginsError():
            headers = {"Location": error.location, "Set-Cookie": error.cookie}
            return Response(b"", status_code=HTTPStatus.SEE_OTHER, headers=headers)
        case _:
            return None


def _of_archive(fetching: Fetching) -> ProblemError:
    """How far a session is on its way back."""
    detail = ""
    if fetching.state == "fetching":
        detail = f"It was in the archive, and {fetching.fraction:.0%} of it is back. It opens by itself in a moment."
    elif fetching.reason:
        log.warning("archive_unavailable", why=fetching.reason)
        detail = "It is in the archive, which cannot be reached just now. Nothing is lost; this page tries again."
    return ProblemError(problems.BEING_FETCHED, detail=detail)


def _of_http(error: HTTPException) -> ProblemError:
    """What Litestar itself refuses."""
    match error.status_code:
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("allow", "")
            shown = sorted(set(allowed.replace(" ", "").split(",")) & {"GET", "HEAD", "POST", "DELETE"})
            return ProblemError(problems.METHOD_NOT_ALLOWED, {"Allow": ", ".join(shown)})
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return ProblemError(problems.TOO_LARGE)
        case HTTPStatus.BAD_REQUEST:
            return ProblemError(problems.MALFORMED)
        case _:
            return ProblemError(problems.NOT_FOUND)
