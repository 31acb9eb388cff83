"""Whether the gateway is well, and the files that every page refers to."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from litestar import Response, route
from litestar.params import FromPath

from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus
from contracts.keys import installation_name
from contracts.metrics.figures import MEDIA_TYPE
from contracts.streams import DIRECTORY_BUCKET, JOBS, REVOKED_BUCKET, USES_BUCKET
from gateway import problems
from gateway.edge import METHODS
from gateway.pages.render import ASSETS
from gateway.problems import ProblemError
from gateway.services import Visitor, services_of, visit_of

NEEDED_STREAMS: Final = (JOBS.name, f"KV_{DIRECTORY_BUCKET}", f"KV_{REVOKED_BUCKET}", f"KV_{USES_BUCKET}")


@route("/assets/{digest:str}/{name:str}", http_method=METHODS)
async def asset(request: Visitor, digest: FromPath[str], name: FromPath[str]) -> Response[bytes]:
    """A file that pages refer to; its address changes with the bytes of them all."""
    visit_of(request, "asset")
    found = ASSETS.get(f"{digest}/{name}")
    if found is None:
        raise ProblemError(problems.NOT_FOUND)
    headers = {"Cache-Control": "public, max-age=31536000, immutable"}
    return Response(found.body, media_type=found.media_type, headers=headers)


@route("/health/live", http_method=METHODS)
async def live(request: Visitor) -> dict[str, str]:
    """The process answers; it tells whose it is, so that `retold doctor` knows its own gateway behind an address."""
    visit_of(request, "live")
    return {"status": "live", "installation": installation_name(services_of(request).keys.current())}


@route("/health/ready", http_method=METHODS)
async def ready(request: Visitor) -> Response[dict[str, Any]]:
    """Links would open: NATS is connected, the streams are there, and there is a key to verify with."""
    visit_of(request, "ready")
    services = services_of(request)
    checks = {
        "nats": services.bus.connected,
        "streams": await _has_streams(services.bus),
        "keys": bool(services.keys.current()),
    }
    fine = all(checks.values())
    return Response(
        {"status": "ready" if fine else "not ready", "checks": checks},
        status_code=HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE,
    )


@route("/metrics", http_method=METHODS)
async def metrics(request: Visitor) -> Response[bytes]:
    """Figures for Prometheus. Whoever comes through a proxy is from outside, and gets none."""
    visit_of(request, "metrics")
    services = services_of(request)
    if any(name in request.headers for name in ("x-real-ip", "x-forwarded-for", "forwarded")):
        raise ProblemError(problems.NOT_FOUND)
    return Response(await services.metrics.figures.text(), media_type=MEDIA_TYPE)


async def _has_streams(bus: Bus) -> bool:
    if not bus.connected:
        return False
    try:
        for name in NEEDED_STREAMS:
            await bus.api(f"STREAM.INFO.{name}")
    except RetoldError:
        return False
    return True
