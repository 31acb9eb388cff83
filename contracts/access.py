"""Access to the API, for bots and scripts: signed tokens (contracts.tokens) that go into `Authorization: Bearer`.

    scope  what it allows: "read", "render", "note", "record", "delete", "link"
    guild  the only guild whose sessions it may touch; "" = every guild

Never in an address: those end up in histories and logs.
"""

from __future__ import annotations

import secrets
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from contracts import tokens
from contracts.ids import Snowflake
from contracts.keys import PrivateKey, PublicKeys
from contracts.tokens import TokenError, TokenKind

Scope: TypeAlias = Literal["read", "render", "note", "record", "delete", "link"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
MAX_LIFETIME_S: Final = 366 * 86_400


class AccessClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may do what with whose sessions, for so long (Unix seconds)."""

    sub: str
    scope: tuple[Scope, ...]
    iat: int
    exp: int
    jti: str
    guild: Snowflake = ""


class AccessError(TokenError):
    """The token gives no access; make a new one with `retold token`."""


ACCESS: Final = TokenKind(
    name="token",
    typ="retold-access+jwt",
    audience="retold-api",
    required=("scope",),
    max_lifetime_s=MAX_LIFETIME_S,
    error=AccessError,
)


def new_access(
    *, sub: str, scope: tuple[Scope, ...], now_s: int, lifetime_s: int, guild: Snowflake = ""
) -> AccessClaims:
    """Claims from now on for a lifetime in seconds, at most MAX_LIFETIME_S, with a fresh 128-bit id."""
    return AccessClaims(
        sub=sub,
        scope=tuple(dict.fromkeys(scope)),
        guild=guild,
        iat=now_s,
        exp=now_s + min(lifetime_s, MAX_LIFETIME_S),
        jti=secrets.token_urlsafe(16),
    )


def sign_access(claims: AccessClaims, key: PrivateKey) -> str:
    """The token."""
    return tokens.sign(ACCESS, msgspec.to_builtins(claims), key)


def verify_access(token: str, keys: PublicKeys, *, now_s: int) -> AccessClaims:
    """The claims of a token that is ours, whole and in time; AccessError otherwise (see `tokens.verify`)."""
    payload = tokens.verify(ACCESS, token, keys, now_s=now_s)
    try:
        return msgspec.convert(payload, AccessClaims)
    except msgspec.ValidationError as error:
        raise ACCESS.refuse("its claims are not those of a token") from error
