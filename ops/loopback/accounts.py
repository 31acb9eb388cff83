"""Signing in with Discord (OAuth2, RFC 6749 with PKCE, RFC 7636): whoever sits at the browser says yes at once."""

import base64
import hashlib
import secrets
from typing import Any

import msgspec
from aiohttp import web
from yarl import URL

from ops.loopback import guild, members
from ops.loopback.errors import ApiError

CLIENT_ID = str(guild.APPLICATION_ID)
CLIENT_SECRET = "the-loopback's-client-secret"  # noqa: S105  # it guards nothing


class Grant(msgspec.Struct, frozen=True):
    """A code that may be exchanged once."""

    user_id: int
    redirect_uri: str
    challenge: str


class Accounts:
    """Who is signed in, and what was granted to the application.

    Attributes
    ----------
    at_browser
        The account of whoever authorizes next; None refuses.
    """

    def __init__(self) -> None:
        self.at_browser: int | None = None
        self._grants: dict[str, Grant] = {}
        self._tokens: dict[str, int] = {}

    async def authorize(self, request: web.Request) -> web.Response:
        """Back to the application with a code, or with the word that it was refused."""
        asked = request.query
        if asked.get("client_id") != CLIENT_ID or asked.get("response_type") != "code":
            raise ApiError(400, 50035, "Invalid Form Body")
        if asked.get("scope") != "identify" or asked.get("code_challenge_method") != "S256":
            raise ApiError(400, 50035, "Invalid Form Body")
        answer = {"state": asked["state"], "error": "access_denied"}
        if self.at_browser is not None:
            code = secrets.token_urlsafe(16)
            self._grants[code] = Grant(self.at_browser, asked["redirect_uri"], asked["code_challenge"])
            answer = {"state": asked["state"], "code": code}
        return web.Response(status=302, headers={"Location": str(URL(asked["redirect_uri"]).update_query(answer))})

    async def token(self, request: web.Request) -> dict[str, Any]:
        """A token for a code, which is used up by that."""
        form = await request.post()
        grant = self._grants.pop(str(form.get("code")), None)
        digest = hashlib.sha256(str(form.get("code_verifier")).encode()).digest()
        proved = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            raise ApiError(401, 0, "invalid_client")
        if grant is None or (grant.redirect_uri, grant.challenge) != (form.get("redirect_uri"), proved):
            raise ApiError(400, 0, "invalid_grant")
        token = secrets.token_urlsafe(16)
        self._tokens[token] = grant.user_id
        return {"access_token": token, "token_type": "Bearer", "expires_in": 604_800, "scope": "identify"}

    def who(self, authorization: str) -> dict[str, Any] | None:
        """The account that a request speaks for, by its Authorization; None if it does not."""
        scheme, _, token = authorization.partition(" ")
        user_id = self._tokens.get(token) if scheme == "Bearer" else None
        return None if user_id is None else members.user(user_id, f"Person {user_id}")
