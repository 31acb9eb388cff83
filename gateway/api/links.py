"""Links: made by whoever holds the key, withdrawn by anybody with the scope."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from litestar import delete, post
from litestar.params import FromPath

from contracts.errors import MalformedError, UnavailableError
from contracts.jetstream.objects import find_artifact
from contracts.jetstream.revoked import revoke
from contracts.jetstream.signing import SignLink, ask_to_sign
from contracts.links import download_path, page_path
from gateway import problems
from gateway.api.access import authorize, check_query, find_session, read_body
from gateway.api.models import NewLink, SignedLink
from gateway.api.sessions import SESSION
from gateway.problems import ProblemError
from gateway.services import Visitor, services_of

HOUR_S: Final = 3600


@post(f"{SESSION}/links", status_code=HTTPStatus.CREATED)
async def make_link(request: Visitor, session: FromPath[str]) -> SignedLink:
    """A link to a session's page or to one of its files. The gateway has no key to sign with: it asks the signer."""
    caller = await authorize(request, "api_make_link", "link")
    check_query(request)
    await find_session(request, caller, session)
    body = await read_body(request, NewLink)
    services = services_of(request)
    filename = ""
    if body.artifact:
        stored = await find_artifact(services.bus, session, body.artifact)
        if stored is None:
            raise ProblemError(problems.FILE_NOT_FOUND)
        filename = stored.artifact.filename
    order = SignLink(
        sub=f"token {caller.claims.sub}",
        session=session,
        obj=body.artifact,
        lifetime_s=round(body.hours * HOUR_S),
        may=() if body.artifact else body.may,
        uses=body.uses,
        who=body.who,
    )
    try:
        signed = await ask_to_sign(services.bus, order)
    except UnavailableError as error:
        raise ProblemError(problems.NO_SIGNER if services.bus.connected else problems.UNAVAILABLE) from error
    path = download_path(signed.token, filename) if filename else page_path(signed.token)
    return SignedLink(
        url=services.public_url + path,
        jti=signed.jti,
        action="download" if filename else "page",
        expires_unix_s=signed.expires_unix_s,
    )


@delete("/api/v1/links/{jti:str}", status_code=HTTPStatus.NO_CONTENT)
async def withdraw(request: Visitor, jti: FromPath[str]) -> None:
    """Withdraw a link or a token by its id; harmless twice."""
    caller = await authorize(request, "api_revoke", "link")
    check_query(request)
    try:
        await revoke(services_of(request).bus, jti, by=f"token {caller.claims.sub}")
    except MalformedError as error:
        raise ProblemError(problems.NOT_FOUND) from error
