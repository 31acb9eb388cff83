"""Who asks the API, what they may, and the bodies they send."""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from contracts.access import AccessClaims, AccessError, Scope, verify_access
from contracts.directory import SessionEntry
from contracts.errors import MalformedError, UnavailableError
from contracts.ids import check_id
from contracts.jetstream.keeping import bring_back, standing
from contracts.jetstream.revoked import is_revoked
from contracts.links import LinkClaims
from contracts.tokens import signer_of
from contracts.wire import UNDECODABLE
from gateway import problems
from gateway.links import FETCH_S, Opened
from gateway.problems import ProblemError
from gateway.routes.entrance import read_entry
from gateway.services import Visitor, services_of, visit_of

T = TypeVar("T")
SCHEME: Final = "bearer"
EXACT: Final = 1 << 53  # up to here a float tells every whole number


class Caller(msgspec.Struct, frozen=True):
    """Whoever sent a request, by a token that holds."""

    claims: AccessClaims
    kid: str

    def sees(self, entry: SessionEntry) -> bool:
        """Whether the token is for this session's server."""
        return not self.claims.guild or entry.guild_id == self.claims.guild

    def require_guild(self, guild: str) -> None:
        """ProblemError unless the token is for this server."""
        if self.claims.guild not in {"", guild}:
            raise ProblemError(problems.SCOPE_MISSING, detail="The token is for another server.")

    def as_opened(self, session: str) -> Opened:
        """The token as what allows a transfer."""
        claims = LinkClaims(
            sub=self.claims.sub,
            ses=session,
            act="page",
            obj="",
            iat=self.claims.iat,
            exp=self.claims.exp,
            jti=self.claims.jti,
        )
        return Opened(claims, self.kid)


async def authorize(request: Visitor, route: str, scope: Scope) -> Caller:
    """Who asks, if a token allows it.

    Raises
    ------
    ProblemError
        401 without a valid token, 403 if it lacks the scope.
    """
    visit = visit_of(request, route)
    services = services_of(request)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != SCHEME:
        raise ProblemError(problems.UNAUTHENTICATED)
    token = token.strip()
    try:
        claims = verify_access(token, services.keys.current(), now_s=int(services.now_s()))
    except AccessError as error:
        raise ProblemError(problems.UNAUTHENTICATED, detail=str(error)) from error
    visit.jti = claims.jti
    if not services.bus.connected:
        raise UnavailableError
    if await is_revoked(services.bus, claims.jti):
        raise ProblemError(problems.UNAUTHENTICATED, detail="This token was withdrawn.")
    if scope not in claims.scope:
        raise ProblemError(problems.SCOPE_MISSING, detail=f"It needs the scope `{scope}`.")
    return Caller(claims, signer_of(token))


async def find_session(request: Visitor, caller: Caller, session: str) -> SessionEntry:
    """A session that the caller may see, brought back if it was archived.

    Raises
    ------
    ProblemError
        If there is none.
    ArchivedError
        If it is not back yet.
    """
    entry = await find_known(request, caller, session)
    await bring_back(services_of(request).bus, session, patience_s=FETCH_S, hope_s=0)
    return entry


async def find_known(request: Visitor, caller: Caller, session: str) -> SessionEntry:
    """A session that the caller may see, wherever it is; ProblemError if there is none."""
    bus = services_of(request).bus
    try:
        check_id(session)
    except MalformedError as error:
        raise ProblemError(problems.SESSION_NOT_FOUND) from error
    if await standing(bus, session) not in {"here", "archived"}:
        raise ProblemError(problems.SESSION_NOT_FOUND)
    entry = await read_entry(request, session)
    if not caller.sees(entry):
        raise ProblemError(problems.SESSION_NOT_FOUND)
    request.scope["state"]["visit"].session = session
    return entry


async def read_body(request: Visitor, kind: type[T]) -> T:
    """The body as JSON of this kind.

    Raises
    ------
    ProblemError
        415 if it is no JSON by its type, 400 if it does not fit, 422 if it asks for what cannot be.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ProblemError(problems.UNSUPPORTED_MEDIA)
    try:
        return msgspec.convert(_whole(msgspec.json.decode(await request.body())), kind)
    except UNDECODABLE as error:
        raise ProblemError(problems.MALFORMED, detail=str(error)[:300]) from error
    except MalformedError as error:
        raise ProblemError(problems.IMPOSSIBLE, detail=str(error)[:300]) from error


def _whole(value: Any) -> Any:
    """The value with whole numbers as integers: to JSON Schema `3.0` is one, to msgspec only where null may not be."""
    match value:
        case float() if abs(value) <= EXACT and value.is_integer():
            return int(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {name: _whole(item) for name, item in value.items()}
        case _:
            return value


def read_number(request: Visitor, name: str, *, default: int, least: int, most: int) -> int:
    """A whole number from the query; ProblemError if it is none, or out of its range."""
    values = request.query_params.getall(name, [])
    text = values[0] if len(values) == 1 else (str(default) if not values else "")
    if not (text.isascii() and text.isdigit()) or not least <= int(text[:20]) <= most:
        raise ProblemError(problems.MALFORMED, detail=f"`{name}` is a whole number from {least} to {most}.")
    return int(text)


def check_query(request: Visitor, *names: str) -> None:
    """ProblemError if the query holds anything else: a name that is misspelled is not passed over."""
    if unknown := sorted(set(request.query_params) - set(names)):
        raise ProblemError(problems.MALFORMED, detail=f"There is no parameter `{unknown[0][:40]}`.")
