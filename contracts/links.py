"""Links: signed tokens (contracts.tokens) that open one session's page, one file, or a list of sessions.

act   "page"      ses  the session      obj  ""
      "download"  ses  the session      obj  the artifact
      "list"      ses  ""               obj  whose: "user:<id>", "guild:<id>", or "all"
may   what a page's visitor may do besides listening: "remix", "delete"
who   the only Discord account that may open it, signed in; without it, anybody who has it
uses  by how many clients it may be opened at the most; without it, by anybody who has it
"""

from __future__ import annotations

import secrets
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import Meta

from contracts import tokens
from contracts.errors import MalformedError
from contracts.ids import Snowflake, check_id
from contracts.keys import PrivateKey, PublicKeys
from contracts.tokens import ISSUER, LEEWAY_S, MAX_TOKEN_CHARACTERS, REGISTERED, TokenError, TokenKind

__all__ = ["ISSUER", "LEEWAY_S", "MAX_TOKEN_CHARACTERS"]

TOKEN_TYPE: Final = "retold-link+jwt"  # noqa: S105  # a media type, no secret
AUDIENCE: Final = "retold-gateway"
MAX_LIFETIME_S: Final = 31 * 86_400
REQUIRED: Final = (*REGISTERED, "ses", "act", "obj")
MAX_USES: Final = 1000

Action: TypeAlias = Literal["page", "download", "list"]
Permission: TypeAlias = Literal["remix", "delete"]


class LinkClaims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a link allows: this person, that session, this action on that object, for so long (Unix seconds)."""

    sub: str
    ses: str
    act: Action
    obj: str
    iat: int
    exp: int
    jti: str
    may: tuple[Permission, ...] = ()
    uses: Annotated[int, Meta(ge=1, le=MAX_USES)] | None = None
    who: Snowflake = ""


class LinkError(TokenError):
    """The link cannot be used; ask for a new one."""


LINK: Final = TokenKind(
    name="link",
    typ=TOKEN_TYPE,
    audience=AUDIENCE,
    required=("ses", "act", "obj"),
    max_lifetime_s=MAX_LIFETIME_S,
    error=LinkError,
)


def page_path(token: str) -> str:
    """Where a page link stands, below the gateway's public address."""
    return f"/s/{token}"


def list_path(token: str) -> str:
    """Where a list of sessions stands; each session's page is below it."""
    return f"/l/{token}"


def download_path(token: str, filename: str) -> str:
    """Where a download link stands; the name is there for players and `curl -O`, and has to be the artifact's own."""
    return f"/d/{token}/{quote(filename, safe='')}"


def new_claims(
    *,
    sub: str,
    session: str,
    action: Action,
    obj: str,
    now_s: int,
    lifetime_s: int,
    may: tuple[Permission, ...] = (),
    uses: int | None = None,
    who: Snowflake = "",
) -> LinkClaims:
    """Claims from now on for a lifetime in seconds, at most MAX_LIFETIME_S, with a fresh 128-bit id."""
    return LinkClaims(
        sub=sub,
        ses=session,
        act=action,
        obj=obj,
        iat=now_s,
        exp=now_s + min(lifetime_s, MAX_LIFETIME_S),
        jti=secrets.token_urlsafe(16),
        may=may,
        uses=uses,
        who=who,
    )


def sign_link(claims: LinkClaims, key: PrivateKey) -> str:
    """The token."""
    return tokens.sign(LINK, msgspec.to_builtins(claims), key)


def verify_link(token: str, keys: PublicKeys, *, now_s: int) -> LinkClaims:
    """The claims of a token that is ours, whole and in time.

    Parameters
    ----------
    keys
        Public keys by `kid`.
    now_s
        Unix seconds.

    Raises
    ------
    LinkError
        With a code and words that give nothing away about the keys.
    """
    payload = tokens.verify(LINK, token, keys, now_s=now_s)
    try:
        claims = msgspec.convert(payload, LinkClaims)
        if claims.act != "list":
            check_id(claims.ses)
    except (msgspec.ValidationError, MalformedError) as error:
        raise LINK.refuse("its claims are not those of a link") from error
    return claims
