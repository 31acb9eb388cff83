"""Everything that a request can be refused for: one table, said as problem+json (RFC 9457).

A problem gives its reason and what helps, and nothing else: no token, no name, no trace of the server's inside. A link
is not HTTP authentication, so no status here is 401, which would have to offer a challenge (RFC 9110 §15.5.2).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import msgspec

from contracts.errors import RetoldError

MEDIA_TYPE: Final = "application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """One row of the table.

    Attributes
    ----------
    code
        Stable name, the end of the problem's `type`.
    headers
        What this status has to carry besides.
    """

    code: str
    status: HTTPStatus
    title: str
    detail: str
    headers: dict[str, str] = {}


LINK_INVALID: Final = Problem(
    "link-invalid",
    HTTPStatus.FORBIDDEN,
    "This link is not valid",
    "It is incomplete, was changed, or was not made by this installation. Copy the whole link, or ask for a new one.",
)
LINK_NOT_YET: Final = Problem(
    "link-not-yet",
    HTTPStatus.FORBIDDEN,
    "This link is not valid yet",
    "It begins later than now. If it was made just now, the clocks of the bot and of this server disagree.",
)
LINK_EXPIRED: Final = Problem(
    "link-expired",
    HTTPStatus.GONE,
    "This link has expired",
    "Ask whoever gave it to you for a new one, or make one with the command retold link.",
)
LINK_REVOKED: Final = Problem(
    "link-revoked",
    HTTPStatus.GONE,
    "This link was withdrawn",
    "Whoever gave it to you, or an administrator, has ended it. Ask them for a new one.",
)
LINK_USED_UP: Final = Problem(
    "link-used-up",
    HTTPStatus.GONE,
    "This link was used already",
    "It was made to be opened only so many times. Ask whoever gave it to you for a new one.",
)
NOT_PERMITTED: Final = Problem(
    "not-permitted",
    HTTPStatus.FORBIDDEN,
    "This link does not allow that",
    "It opens the page, but not this action. Ask whoever gave it to you for a link that does.",
)
WRONG_ACTION: Final = Problem(
    "wrong-action",
    HTTPStatus.FORBIDDEN,
    "This link opens something else",
    "A link to a page does not work as a download, and a download does not work as a page.",
)
WRONG_FILE: Final = Problem(
    "wrong-file",
    HTTPStatus.FORBIDDEN,
    "This link is for another file",
    "The file name in the link is not that of the file it was made for. Use the link as it was given.",
)
SESSION_GONE: Final = Problem(
    "session-gone",
    HTTPStatus.GONE,
    "This recording was deleted",
    "The link is genuine, but the recording it belongs to is no longer kept.",
)
FILE_NOT_FOUND: Final = Problem(
    "file-not-found",
    HTTPStatus.NOT_FOUND,
    "There is no such file",
    "The recording is there, but this file is not: it was removed, or is not rendered yet.",
)
NOT_FOUND: Final = Problem(
    "not-found", HTTPStatus.NOT_FOUND, "There is nothing here", "This address does not belong to anything."
)
METHOD_NOT_ALLOWED: Final = Problem(
    "method-not-allowed",
    HTTPStatus.METHOD_NOT_ALLOWED,
    "This method is not allowed",
    "Allow says which are.",
    {"Allow": "GET, HEAD"},
)
JOB_NOT_FOUND: Final = Problem(
    "job-not-found",
    HTTPStatus.NOT_FOUND,
    "There is no such job",
    "It was never asked for here, or so long ago that nobody remembers; its files, if any, are on the page.",
)
TOO_MANY_MIXES: Final = Problem(
    "too-many-mixes",
    HTTPStatus.TOO_MANY_REQUESTS,
    "Enough is being made just now",
    "Wait until one of the mixes of this recording is ready, then ask again.",
    {"Retry-After": "10"},
)
NOT_LIVE: Final = Problem(
    "not-live",
    HTTPStatus.NOT_FOUND,
    "There is nothing to hear right now",
    "The call has ended, or nobody has said anything for two minutes.",
)
STILL_LIVE: Final = Problem(
    "still-live",
    HTTPStatus.CONFLICT,
    "This is still being recorded",
    "Stop the recording first.",
)
MALFORMED: Final = Problem(
    "malformed",
    HTTPStatus.BAD_REQUEST,
    "The request cannot be understood",
    "What was sent does not fit what is expected here.",
)
TOO_LARGE: Final = Problem(
    "too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large", "No request here is this long."
)
UNAUTHENTICATED: Final = Problem(
    "unauthenticated",
    HTTPStatus.UNAUTHORIZED,
    "A token is needed",
    "Send a valid one as `Authorization: Bearer TOKEN`; `retold token` makes them.",
    {"WWW-Authenticate": 'Bearer realm="retold"'},
)
SCOPE_MISSING: Final = Problem(
    "scope-missing",
    HTTPStatus.FORBIDDEN,
    "The token does not allow that",
    "Make one with the scope that this needs: `retold token --scope ...`.",
    {"WWW-Authenticate": 'Bearer realm="retold", error="insufficient_scope"'},
)
SESSION_NOT_FOUND: Final = Problem(
    "session-not-found",
    HTTPStatus.NOT_FOUND,
    "There is no such session",
    "It was never recorded here, was erased, or belongs to a server that the token is not for.",
)
UNSUPPORTED_MEDIA: Final = Problem(
    "unsupported-media",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "JSON is expected",
    "Send the body as `Content-Type: application/json`.",
)
IMPOSSIBLE: Final = Problem(
    "impossible",
    HTTPStatus.UNPROCESSABLE_ENTITY,
    "That cannot be done",
    "The request is well formed, but asks for something that cannot be.",
)
REFUSED: Final = Problem(
    "refused",
    HTTPStatus.CONFLICT,
    "The recorder refused",
    "It says why in the detail.",
)
PRECONDITION_FAILED: Final = Problem(
    "precondition-failed",
    HTTPStatus.PRECONDITION_FAILED,
    "The file is not the one you expect",
    "If-Match or If-Unmodified-Since does not hold for the file that is stored.",
)
RANGE_NOT_SATISFIABLE: Final = Problem(
    "range-not-satisfiable",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    "The range lies outside the file",
    "Content-Range says how long the file is.",
)
ADDRESS_TOO_LONG: Final = Problem(
    "address-too-long", HTTPStatus.REQUEST_URI_TOO_LONG, "This address is too long", "No link of ours is this long."
)
BUSY: Final = Problem(
    "busy",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Too many downloads at once",
    "Try again in a few seconds; what you have already is kept if you resume.",
    {"Retry-After": "5"},
)
UNAVAILABLE: Final = Problem(
    "unavailable",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "The store is not reachable",
    "This passes; try again in a few seconds.",
    {"Retry-After": "5"},
)
SIGN_IN_NEEDED: Final = Problem(
    "sign-in-needed",
    HTTPStatus.FORBIDDEN,
    "This link opens for one Discord account only",
    "Open it in a browser, and sign in there with that account.",
)
SIGN_IN_FAILED: Final = Problem(
    "sign-in-failed",
    HTTPStatus.FORBIDDEN,
    "You are not signed in",
    "Discord did not say who you are, or you went there too long ago. Open your link again.",
)
SIGN_IN_OFF: Final = Problem(
    "sign-in-off",
    HTTPStatus.FORBIDDEN,
    "Nobody can sign in here",
    "The link is bound to a Discord account, but this server is not set up for signing in.",
)
NO_RECORDER: Final = Problem(
    "no-recorder",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Nobody records here just now",
    "The recorder does not run, or does not answer: `retold capture`, or `retold up` with the bot's token, starts it.",
    {"Retry-After": "5"},
)
NO_SIGNER: Final = Problem(
    "no-signer",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Nobody signs links here just now",
    "The recorder signs links for the API, and it does not run or does not answer; `retold link` needs nobody.",
    {"Retry-After": "5"},
)
BEING_FETCHED: Final = Problem(
    "being-fetched",
    HTTPStatus.SERVICE_UNAVAILABLE,
    "This recording is on its way",
    "It was in the archive, and is being brought back. It opens by itself in a moment.",
    {"Retry-After": "5", "Refresh": "5"},
)
INTERNAL: Final = Problem(
    "internal",
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "Something went wrong here",
    "It is not your link. Whoever runs this server finds the reason in its log.",
)


class ProblemError(RetoldError):
    """A request is refused, for this reason."""

    def __init__(self, problem: Problem, headers: dict[str, str] | None = None, *, detail: str = "") -> None:
        self.problem = msgspec.structs.replace(problem, detail=detail) if detail else problem
        self.headers = {**problem.headers, **(headers or {})}
        super().__init__(problem.title)


def encode(problem: Problem) -> bytes:
    """The problem as JSON."""
    return msgspec.json.encode(
        {
            "type": f"urn:retold:problem:{problem.code}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
        }
    )
