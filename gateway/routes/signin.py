"""Where people come back to from Discord."""

from __future__ import annotations

from http import HTTPStatus

from litestar import Response, get

from gateway import problems
from gateway.problems import ProblemError
from gateway.services import Visitor, services_of, visit_of
from gateway.signin import CALLBACK, SignInError


@get(CALLBACK)
async def signed_in(request: Visitor) -> Response[bytes]:
    """Back to the link that they wanted to open."""
    visit_of(request, "signed_in")
    signin = services_of(request).signin
    if signin is None:
        raise ProblemError(problems.NOT_FOUND)
    code, state = (request.query_params.get(name, "") for name in ("code", "state"))
    try:
        back, cookie = await signin.finish(request.cookies, code=code, state=state)
    except SignInError as error:
        raise ProblemError(problems.SIGN_IN_FAILED) from error
    return Response(b"", status_code=HTTPStatus.SEE_OTHER, headers={"Location": back, "Set-Cookie": cookie})
