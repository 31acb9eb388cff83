"""How an answer is said: a page to a browser, JSON to everybody else."""

from __future__ import annotations

from typing import Final

from litestar import Response
from werkzeug.http import parse_accept_header

from gateway.pages.render import PAGE_POLICY, render_error
from gateway.problems import MEDIA_TYPE, ProblemError, encode

HTML: Final = "text/html"


def html(body: bytes, *, status_code: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A page, with the policy that pages have."""
    every = {**(headers or {}), "Content-Security-Policy": PAGE_POLICY}
    return Response(body, status_code=status_code, media_type=HTML, headers=every)


def answer(error: ProblemError, *, accept: str) -> Response[bytes]:
    """The response: a page for who prefers HTML (a browser), problem+json for everybody else."""
    problem = error.problem
    if not prefers_html(accept):
        return Response(encode(problem), status_code=problem.status, media_type=MEDIA_TYPE, headers=error.headers)
    body = render_error(problem.title, problem.detail, problem.status)
    return html(body, status_code=problem.status, headers=error.headers)


def prefers_html(accept: str) -> bool:
    """Whether whoever sent this Accept wants a page rather than JSON: a browser that somebody sits at."""
    wanted = parse_accept_header(accept)
    return wanted[HTML] > max(wanted[MEDIA_TYPE], wanted["application/json"])
