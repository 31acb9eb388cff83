"""Files: by a download link, or below a page.

A file name at the end of a path is there so that players and `curl -O` get a right name. It opens nothing: it has to be
the name of the file that the link is for.
"""

from __future__ import annotations

from litestar import route
from litestar.params import FromPath
from litestar.types import ASGIApp

from contracts.jetstream.objects import StoredArtifact
from gateway.downloads import Download
from gateway.edge import METHODS
from gateway.links import Opened
from gateway.routes.entrance import Guarded, admit, enter
from gateway.services import Visitor, is_proxied, services_of, visit_of


@route("/d/{token:str}/{filename:str}", http_method=METHODS)
async def download(request: Visitor, token: FromPath[str], filename: FromPath[str]) -> ASGIApp:
    """The file that a download link is for."""
    visit_of(request, "download")
    gate = services_of(request).gate
    opened, stored = await gate.open_file(token, filename)
    await admit(request, opened)
    return send_file(request, stored, opened)


@route(
    ["/s/{token:str}/d/{name:str}/{filename:str}", "/l/{token:str}/{session:str}/d/{name:str}/{filename:str}"],
    http_method=METHODS,
)
async def page_download(
    request: Visitor, token: FromPath[str], name: FromPath[str], filename: FromPath[str], session: FromPath[str] = ""
) -> ASGIApp:
    """A file of the session that a page link is for."""
    visit = visit_of(request, "page_download")
    entrance = await enter(request, token, session)
    stored = await services_of(request).gate.find_file(entrance.session, name, filename)
    visit.object = stored.artifact.name
    return send_file(request, stored, entrance.opened)


def send_file(request: Visitor, stored: StoredArtifact, opened: Opened) -> ASGIApp:
    """The response that sends an artifact."""
    services = services_of(request)
    response = Download(
        stored,
        bus=services.bus,
        places=services.places,
        method=request.method,
        headers=_single_headers(request),
        disposition="inline" if request.query_params.get("inline") == "1" else "attachment",
    )
    if services.cache is not None and response.can_be_handed_over and is_proxied(request):
        services.transfers.check(jti=opened.claims.jti, session=stored.artifact.session)
        path = services.cache.find(stored, jti=opened.claims.jti, kid=opened.kid)
        if path is not None:
            services.metrics.hand_over()
            return response.hand_over(path).to_asgi_response(None, request)
    return Guarded(response, services.transfers, opened, stored.artifact.session)


def _single_headers(request: Visitor) -> dict[str, str]:
    """Request headers; a repeated one is one list (RFC 9110 §5.3)."""
    headers: dict[str, str] = {}
    for name, value in request.headers.multi_items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
