"""Signing in with Discord, for links that open for one account only (OAuth 2.0, RFC 6749, with PKCE, RFC 7636).

    link, no cookie     a page with a button                    the button adds `?signin=1`
    link?signin=1       303 to Discord                          cookie `state`: where to come back to, and the verifier
    /signin?code&state  code -> token -> account, 303 back      cookie `account`: who it is, for some hours

Nothing is kept here: both cookies are signed with a key made of the client's secret, so any gateway of an installation
reads them. They say who somebody is, never what they may do: that is the link's part, and its holder's alone.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import ssl
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
import structlog

from contracts.errors import RetoldError, SettingsError
from contracts.settings import Settings

log = structlog.get_logger()

DISCORD_API: Final = "https://discord.com/api/v10"
DISCORD_AUTHORIZE: Final = "https://discord.com/oauth2/authorize"
CALLBACK: Final = "/signin"
SCOPE: Final = "identify"
ACCOUNT_S: Final = 12 * 3600  # one evening
STATE_S: Final = 600  # from the button to Discord and back
TIMEOUT_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 64 * 1024


T = TypeVar("T", bound=msgspec.Struct)


class SignInError(RetoldError):
    """Discord did not say who it is; try again."""


class _State(msgspec.Struct, frozen=True, array_like=True):
    nonce: str
    verifier: str
    back: str
    expires_unix_s: int


class _Account(msgspec.Struct, frozen=True, array_like=True):
    user_id: str
    expires_unix_s: int


class _Token(msgspec.Struct, frozen=True):
    access_token: str


class _User(msgspec.Struct, frozen=True):
    id: str


class SignIn:
    """Sends people to Discord, and knows them when they come back. Made by `open_sign_in`.

    Parameters
    ----------
    api, authorize_url
        Discord's.
    public_url
        The gateway's own address, without a slash at the end; Discord sends people back there.
    trust
        Whose certificates are believed.
    now_s
        The clock, Unix seconds.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        api: str,
        authorize_url: str,
        public_url: str,
        trust: ssl.SSLContext,
        now_s: Callable[[], float],
    ) -> None:
        self._client_id, self._client_secret = client_id, client_secret
        self._api, self._authorize_url = api, authorize_url
        self._redirect_uri = public_url + CALLBACK
        self._trust = trust
        self._now_s = now_s
        self._key = hashlib.sha256(b"retold cookies\n" + client_secret.encode()).digest()
        self._prefix = "__Host-retold-" if public_url.startswith("https:") else "retold-"

    def account(self, cookies: Mapping[str, str]) -> str:
        """Whose browser it is: a user id; empty if nobody has signed in."""
        account = self._read("account", cookies, _Account)
        return account.user_id if account is not None and account.expires_unix_s > self._now_s() else ""

    def begin(self, back: str) -> tuple[str, str]:
        """Where to send somebody who wants to sign in and then to go on at the path `back`; a Set-Cookie with it."""
        state = _State(secrets.token_urlsafe(16), secrets.token_urlsafe(48), back, int(self._now_s()) + STATE_S)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(state.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": self._client_id,
            "response_type": "code",
            "scope": SCOPE,
            "redirect_uri": self._redirect_uri,
            "state": state.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._authorize_url}?{urlencode(query)}", self._cookie("state", state, STATE_S)

    async def finish(self, cookies: Mapping[str, str], *, code: str, state: str) -> tuple[str, str]:
        """Where somebody who comes back from Discord goes on, and the Set-Cookie that says who it is.

        Raises
        ------
        SignInError
            If it is not this browser that went there, or Discord does not know the code.
        """
        begun = self._read("state", cookies, _State)
        if begun is None or begun.expires_unix_s <= self._now_s() or not code:
            raise SignInError
        if not hmac.compare_digest(begun.nonce.encode(), state.encode()):
            raise SignInError
        form = {
            "grant_type": "authorization_code",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
            "redirect_uri": self._redirect_uri,
            "code_verifier": begun.verifier,
            "code": code,
        }
        user = await asyncio.to_thread(self._ask_who, urlencode(form).encode())
        account = _Account(user.id, int(self._now_s()) + ACCOUNT_S)
        return begun.back, self._cookie("account", account, ACCOUNT_S)

    def _ask_who(self, form: bytes) -> _User:
        try:
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            token = msgspec.json.decode(self._send("POST", "/oauth2/token", form, kind), type=_Token)
            bearer = {"Authorization": f"Bearer {token.access_token}"}
            return msgspec.json.decode(self._send("GET", "/users/@me", None, bearer), type=_User)
        except (OSError, HTTPException, msgspec.MsgspecError) as error:
            log.warning("sign_in_failed", why=type(error).__name__)
            raise SignInError from error

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        """The body of Discord's answer; no redirect is followed."""
        url = urlsplit(self._api + path)
        host = url.hostname or ""
        connection = (
            HTTPSConnection(host, url.port, timeout=TIMEOUT_S, context=self._trust)
            if url.scheme == "https"
            else HTTPConnection(host, url.port, timeout=TIMEOUT_S)  # the loopback's
        )
        try:
            connection.request(
                method, url.path, body, {"Accept": "application/json", "User-Agent": "Retold", **headers}
            )
            response = connection.getresponse()
            if response.status != 200:  # noqa: PLR2004  # OK
                log.warning("sign_in_refused", path=path, status=response.status)
                raise SignInError
            return response.read(MAX_ANSWER_BYTES)
        finally:
            connection.close()

    def _cookie(self, name: str, value: msgspec.Struct, lifetime_s: int) -> str:
        """A Set-Cookie: for this host alone, out of scripts' reach, not sent with other sites' forms."""
        text = base64.urlsafe_b64encode(msgspec.json.encode(value)).decode()
        secure = "; Secure" if self._prefix.startswith("__Host-") else ""
        signed = f"{self._prefix}{name}={text}.{self._sign(name, text)}"
        return f"{signed}; Path=/; Max-Age={lifetime_s}; HttpOnly; SameSite=Lax{secure}"

    def _sign(self, name: str, text: str) -> str:
        return hmac.new(self._key, f"{name}\n{text}".encode(), hashlib.sha256).hexdigest()

    def _read(self, name: str, cookies: Mapping[str, str], kind: type[T]) -> T | None:
        text, _, signature = cookies.get(self._prefix + name, "").partition(".")
        if not hmac.compare_digest(self._sign(name, text).encode(), signature.encode()):
            return None
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=kind)


def open_sign_in(settings: Settings, *, now_s: Callable[[], float]) -> SignIn | None:
    """Signing in as the settings have it; None if they do not.

    Raises
    ------
    SettingsError
        If something of it is missing, or the file of certificates cannot be read.
    """
    if not settings.discord_client_id:
        if settings.bind_links:
            raise SettingsError(["RETOLD_BIND_LINKS: needs RETOLD_DISCORD_CLIENT_ID, to sign people in"])
        return None
    if not settings.discord_client_secret:
        raise SettingsError(["RETOLD_DISCORD_CLIENT_SECRET: required with RETOLD_DISCORD_CLIENT_ID, and not set"])
    try:
        trust = ssl.create_default_context()
        if settings.discord_ca_file:
            trust.load_verify_locations(settings.discord_ca_file)
    except OSError as error:
        raise SettingsError([f"RETOLD_DISCORD_CA_FILE: {error}"]) from error
    api = settings.discord_api_url.rstrip("/")
    return SignIn(
        client_id=settings.discord_client_id,
        client_secret=settings.discord_client_secret,
        api=api or DISCORD_API,
        authorize_url=f"{api}/oauth2/authorize" if api else DISCORD_AUTHORIZE,
        public_url=settings.public_url.rstrip("/"),
        trust=trust,
        now_s=now_s,
    )
