"""How every page and everything below it is entered: by a link to the session, or by one to a list that holds it."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar.types import ASGIApp, Receive, Scope, Send

from contracts.directory import SessionEntry
from contracts.errors import MalformedError, RetoldError
from contracts.ids import check_id, id_unix_ms
from contracts.jetstream.directory import get_entry
from contracts.jetstream.keeping import bring_back, standing
from contracts.links import list_path, page_path
from gateway import problems
from gateway.answers import prefers_html
from gateway.links import FETCH_S, Opened, PreviewError
from gateway.problems import ProblemError
from gateway.services import Visitor, client_of, services_of
from gateway.transfers import Transfers

OPEN: Final = "open"  # the query parameter that says: yes, use it
SIGN_IN: Final = "signin"  # ... that says: to Discord, please


class Entrance(msgspec.Struct, frozen=True):
    """A link that opens a session's page.

    Attributes
    ----------
    base
        The page's path; everything of it stands below.
    """

    opened: Opened
    session: str
    base: str


async def enter(request: Visitor, token: str, session: str) -> Entrance:
    """Open the page of a session.

    Parameters
    ----------
    session
        From the path below a list; empty for a link to the session itself.

    Raises
    ------
    ProblemError
        If the link does not open it.
    """
    gate = services_of(request).gate
    if not session:
        opened = await gate.open_page(token)
        await admit(request, opened)
        return Entrance(opened, opened.claims.ses, page_path(token))
    opened = await gate.open_list(token)
    await admit(request, opened)
    await _find_listed(request, opened, session)
    request.scope["state"]["visit"].session = session
    return Entrance(opened, session, f"{list_path(token)}/{session}")


async def admit(request: Visitor, opened: Opened) -> None:
    """Note whose visit it is, turn previewers away, ask who it is if it matters, count the use of a limited link."""
    request.scope["state"]["visit"].show(opened.claims)
    client = client_of(request)
    if client.previews:
        raise PreviewError
    navigates = request.method == "GET" and prefers_html(request.headers.get("accept", ""))
    if opened.claims.who:
        _require_account(request, opened.claims.who, navigates=navigates)
    entering = navigates and request.query_params.get(OPEN) != "1"
    await services_of(request).gate.use(opened, client, entering=entering, method=request.method)


class SignInNeededError(RetoldError):
    """Whoever follows the link in a browser has to sign in first.

    Attributes
    ----------
    other
        Whether they have, with an account that it is not for.
    """

    def __init__(self, *, other: bool) -> None:
        self.other = other
        super().__init__()


class SignInBeginsError(RetoldError):
    """Off to Discord: where to, and the Set-Cookie that knows the way back."""

    def __init__(self, location: str, cookie: str) -> None:
        self.location, self.cookie = location, cookie
        super().__init__()


def _require_account(request: Visitor, who: str, *, navigates: bool) -> None:
    signin = services_of(request).signin
    if signin is None:
        raise ProblemError(problems.SIGN_IN_OFF)
    account = signin.account(request.cookies)
    if account == who:
        return
    if request.method == "GET" and request.query_params.get(SIGN_IN) == "1":
        raise SignInBeginsError(*signin.begin(request.scope["raw_path"].decode("ascii")))
    if navigates:
        raise SignInNeededError(other=bool(account))
    raise ProblemError(problems.SIGN_IN_NEEDED)


def is_listed(whose: str, entry: SessionEntry) -> bool:
    """Whether a session is on a list: of everything, of a server, or of what a person took part in."""
    kind, _, identifier = whose.partition(":")
    match kind:
        case "all":
            return True
        case "guild":
            return entry.guild_id == identifier
        case "user":
            return identifier in entry.people
        case _:
            return False


async def read_entry(request: Visitor, session: str) -> SessionEntry:
    """The directory's entry, or what the id alone says of a session that it does not list yet."""
    return await get_entry(services_of(request).bus, session) or SessionEntry(
        session=session,
        guild_id="",
        guild_name="",
        channel_id="",
        channel_name="",
        started_unix_ns=id_unix_ms(session) * 1_000_000,
    )


async def _find_listed(request: Visitor, opened: Opened, session: str) -> None:
    bus = services_of(request).bus
    try:
        entry = await get_entry(bus, check_id(session))
    except MalformedError as error:
        raise ProblemError(problems.NOT_FOUND) from error
    if entry is None or not is_listed(opened.claims.obj, entry):
        raise ProblemError(problems.NOT_FOUND)
    if await standing(bus, session) == "gone":
        raise ProblemError(problems.SESSION_GONE)
    await bring_back(bus, session, patience_s=FETCH_S, hope_s=0)


class Guarded:
    """A response that takes time, cut as soon as what allowed it ends."""

    def __init__(
        self, response: ASGIApp, transfers: Transfers, opened: Opened, session: str, *, endless: bool = False
    ) -> None:
        self._response, self._transfers = response, transfers
        self._opened, self._session, self._endless = opened, session, endless

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        claims = self._opened.claims
        with self._transfers.running(
            jti=claims.jti, kid=self._opened.kid, session=self._session, endless=self._endless
        ):
            await self._response(scope, receive, send)
