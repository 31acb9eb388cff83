"""What every request passes first and every response last: limits, security headers, one line in the log.

It wraps the application from outside, so that nothing, a crash included, goes out without its headers. The line names
the route, the session and the link's id, never the path: the path holds the token.
"""

from __future__ import annotations

import time
from typing import Final, TypeAlias

import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from contracts.links import LinkClaims
from gateway import problems
from gateway.metrics import Metrics
from gateway.problems import Problem, encode

log = structlog.get_logger()

MAX_TARGET_BYTES: Final = 4096  # a token has at most 1024 characters, the names beside it far less
METHODS: Final = ("GET", "HEAD")  # of what is only looked at
TAKEN: Final = frozenset({*METHODS, "POST", "DELETE"})
SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "x-robots-tag": "noindex, nofollow",
    "x-frame-options": "DENY",
}
_SECURITY_PAIRS: Final = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
HeaderPairs: TypeAlias = list[tuple[bytes, bytes]]


class Visit(msgspec.Struct):
    """What one request turned out to be; handlers fill in what they learn."""

    route: str = ""
    session: str = ""
    jti: str = ""
    object: str = ""
    status: int = 0
    sent_bytes: int = 0

    def show(self, claims: LinkClaims) -> None:
        """A link was accepted as genuine."""
        self.session, self.jti, self.object = claims.ses, claims.jti, claims.obj


class Edge:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None) -> None:
        self._app = app
        self._metrics = metrics or Metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        visit = Visit()
        scope.setdefault("state", {})["visit"] = visit
        started = time.perf_counter()

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = int(message["status"])
                message["headers"] = _complete(list(message["headers"]))
            elif message["type"] == "http.response.body":
                visit.sent_bytes += len(message["body"])
            await send(message)

        try:
            if problem := _refuse(scope):
                await _send_problem(problem, watch)
            else:
                await self._app(_restrict(scope), receive, watch)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.count(route=visit.route, status=visit.status, sent_bytes=visit.sent_bytes, seconds=seconds)
            log.info(
                "request",
                method=scope["method"],
                elapsed_ms=round(seconds * 1000, 1),
                **{name: value for name, value in msgspec.structs.asdict(visit).items() if value},
            )


def _refuse(scope: HTTPScope) -> Problem | None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
        return problems.ADDRESS_TOO_LONG
    return None


def _restrict(scope: HTTPScope) -> HTTPScope:
    """A method that nothing here takes is given to the router under a name that it does not know.

    It answers by itself to OPTIONS, and alone knows which methods an address allows.
    """
    return scope if scope["method"] in TAKEN else {**scope, "method": "REFUSED"}  # type: ignore[typeddict-item]  # on purpose


def _complete(headers: HeaderPairs) -> HeaderPairs:
    present = {name.lower() for name, _ in headers}
    return headers + [pair for pair in _SECURITY_PAIRS if pair[0] not in present]


async def _send_problem(problem: Problem, send: Send) -> None:
    body = encode(problem)
    headers = [
        (b"content-type", problems.MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in problem.headers.items()),
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
