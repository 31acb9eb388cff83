"""Signed tokens: JWTs by Ed25519. The bot and the command line sign; the gateway holds public keys only.

    header  {"alg": "EdDSA", "typ": <kind>, "kid": <key id>}
    claims  iss, aud, sub, jti, iat, nbf, exp   as RFC 7519, and those of the kind

There are two kinds, links (contracts.links) and access to the API (contracts.access); by type and audience the one
never passes for the other. The verifier takes nothing from a token but the `kid` that picks one of its own keys (RFC
8725 §3.1), requires every claim and the explicit type (§3.11), caps length and lifetime, and knows one spelling only.
"""

from __future__ import annotations

from typing import Any, Final

import jwt
import msgspec
from jwt.utils import base64url_decode, base64url_encode

from contracts.errors import RetoldError
from contracts.keys import PrivateKey, PublicKeys

ALGORITHM: Final = "EdDSA"
ISSUER: Final = "retold"
MAX_TOKEN_CHARACTERS: Final = 1024
LEEWAY_S: Final = 5
MAX_TIME_S: Final = 1 << 40
REGISTERED: Final = ("iss", "aud", "sub", "jti", "iat", "nbf", "exp")


class TokenError(RetoldError):
    """The token cannot be used; ask for a new one.

    Attributes
    ----------
    code
        `expired`, `not_yet`, `invalid`.
    """

    code: str = "invalid"

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class TokenKind(msgspec.Struct, frozen=True, kw_only=True):
    """What tells one kind of token from another.

    Attributes
    ----------
    name
        What people call it.
    required
        Claims beside the registered ones.
    error
        What is raised for it.
    """

    name: str
    typ: str
    audience: str
    required: tuple[str, ...]
    max_lifetime_s: int
    error: type[TokenError]

    def refuse(self, why: str) -> TokenError:
        """The error of a token that is not ours, or not whole."""
        return self.error("invalid", f"This {self.name} does not open anything: {why}.")


def sign(kind: TokenKind, claims: dict[str, Any], key: PrivateKey) -> str:
    """The token; it is valid from `iat` on."""
    payload = {"iss": ISSUER, "aud": kind.audience, "nbf": claims["iat"], **claims}
    return jwt.encode(payload, key.key, algorithm=ALGORITHM, headers={"typ": kind.typ, "kid": key.kid})


def verify(kind: TokenKind, token: str, keys: PublicKeys, *, now_s: int) -> dict[str, Any]:
    """Every claim of a token that is of this kind, ours, whole and in time.

    Parameters
    ----------
    keys
        Public keys by `kid`.
    now_s
        Unix seconds.

    Raises
    ------
    TokenError
        The kind's own, with a code and words that give nothing away about the keys.
    """
    payload = _signed_payload(kind, token, keys)
    issued, not_before, expires = payload["iat"], payload["nbf"], payload["exp"]
    if not all(type(moment) is int for moment in (issued, not_before, expires)):
        raise kind.refuse("its times make no sense")
    if not 0 <= issued <= expires <= MAX_TIME_S:
        raise kind.refuse("its times make no sense")
    if expires - min(issued, not_before) > kind.max_lifetime_s + LEEWAY_S:
        raise kind.refuse(f"it claims to live longer than any {kind.name} of ours")
    if now_s >= expires + LEEWAY_S:
        raise kind.error("expired", f"This {kind.name} has expired. Ask for a new one.")
    if now_s < max(not_before, issued) - LEEWAY_S:
        raise kind.error(
            "not_yet", f"This {kind.name} is not valid yet. Check the clocks of the bot and of this server."
        )
    return payload


def signer_of(token: str) -> str:
    """The `kid` of a token that was verified."""
    return str(jwt.get_unverified_header(token)["kid"])


def peek_jti(token: str) -> str:
    """The id that a token claims to have, to withdraw it by; whether it is genuine does not matter for that.

    Raises
    ------
    TokenError
        If it is no token.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return str(claims["jti"])
    except (jwt.PyJWTError, ValueError, KeyError) as error:
        raise TokenError("invalid", "this is no token: its id cannot be read") from error


def _signed_payload(kind: TokenKind, token: str, keys: PublicKeys) -> dict[str, Any]:
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise kind.refuse("it is too long")
    if not _is_canonical(token):
        raise kind.refuse("it is not spelled as we spell it")
    try:
        header = jwt.get_unverified_header(token)
        key = keys.get(str(header.get("kid")))
        if key is None or header.get("typ") != kind.typ:
            raise kind.refuse("it was not made by this installation")
        payload: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            audience=kind.audience,
            issuer=ISSUER,
            options={
                "require": [*REGISTERED, *kind.required],
                "strict_aud": True,
                "verify_exp": False,  # by our own clock
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except (jwt.PyJWTError, ValueError) as error:
        raise kind.refuse("its signature or claims do not hold") from error
    return payload


def _is_canonical(token: str) -> bool:
    """Whether every part is base64url in its one spelling; PyJWT takes padding, other characters, stray last bits."""
    try:
        return all(base64url_encode(base64url_decode(part)).decode() == part for part in token.split("."))
    except ValueError:
        return False
