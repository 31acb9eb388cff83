"""A world of two sessions, and every kind of token that somebody might try on it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization

from contracts.access import ACCESS, SCOPES, new_access, sign_access
from contracts.artifacts import Artifact
from contracts.keys import PrivateKey, make_keys
from contracts.links import AUDIENCE, ISSUER, MAX_TOKEN_CHARACTERS, TOKEN_TYPE, new_claims, sign_link
from contracts.tokens import REGISTERED
from tests.gateway_server import RunningGateway

REVOKED: Final = "withdrawn-already-01234"


class World:
    """Two sessions; in the first two files. A link was withdrawn, and a key retired."""

    def __init__(self, gateway: RunningGateway, first: Artifact, second: Artifact, other: Artifact) -> None:
        self.gateway, self.first, self.second, self.other = gateway, first, second, other
        self.stranger = make_keys(gateway.folder / "stranger")
        self.retired = make_keys(gateway.settings.data / "keys")
        (gateway.settings.data / "keys" / "public" / f"{self.retired.kid}.pem").unlink()
        self.public_raw = gateway.key.key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )

    def payload(self, action: str, obj: str, **changes: Any) -> dict[str, Any]:
        """Good claims, with changes; None leaves one out."""
        now_s = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "1",
            "jti": "abcdefghijklmnop",
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + 600,
            "ses": self.first.session,
            "act": action,
            "obj": obj,
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def sign(self, payload: dict[str, Any], **headers: Any) -> str:
        """Signed with the installation's key."""
        key = self.gateway.key
        header = {"typ": TOKEN_TYPE, "kid": key.kid} | headers
        return jwt.encode(payload, key.key, algorithm="EdDSA", headers=header)

    def unsigned(self, payload: dict[str, Any], algorithm: str, signature: bytes = b"") -> str:
        """A token by hand, with any algorithm in its header."""
        parts = [{"alg": algorithm, "typ": TOKEN_TYPE, "kid": self.gateway.key.kid}, payload]
        texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
        return ".".join([*texts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])

    def hs256(self, payload: dict[str, Any], secret: bytes) -> str:
        """Signed with a public thing as if it were a secret."""
        header = {"typ": TOKEN_TYPE, "kid": self.gateway.key.kid}
        return jwt.encode(payload, secret, algorithm="HS256", headers=header)


def right(world: World, action: str, obj: str) -> str:
    return world.sign(world.payload(action, obj))


def bad_tokens(world: World, action: str, obj: str, *, may: tuple[str, ...] = ()) -> dict[str, tuple[str, int]]:
    """Tokens for this action and object that must not open it, with the status that says so."""

    def payload(action: str, obj: str, **changes: Any) -> dict[str, Any]:
        usual: dict[str, Any] = {"may": list(may)} if may else {}
        if action == "list":
            usual["ses"] = ""
        return world.payload(action, obj, **(usual | changes))

    good = world.sign(payload(action, obj))
    header, _, signature = good.split(".")
    now_s = int(time.time())
    stranger = world.stranger
    claims = new_claims(sub="1", session=world.first.session, action="page", obj="", now_s=now_s, lifetime_s=600)
    key_pem = world.gateway.key.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(world.public_raw).rstrip(b"=").decode()}
    other_action = {"page": "download", "download": "page", "list": "page"}[action]
    wider = base64.urlsafe_b64encode(json.dumps(payload(action, world.second.name)).encode()).rstrip(b"=").decode()
    return {
        "expired": (world.sign(payload(action, obj, iat=now_s - 900, nbf=now_s - 900, exp=now_s - 60)), 410),
        "not yet": (world.sign(payload(action, obj, iat=now_s + 300, nbf=now_s + 300)), 403),
        "other action": (world.sign(payload(other_action, "" if action != "page" else world.first.name)), 403),
        "what it may do that nobody may": (world.sign(payload(action, obj, may=["everything"])), 403),
        "no uses": (world.sign(payload(action, obj, uses=0)), 403),
        "endless uses": (world.sign(payload(action, obj, uses=10**9)), 403),
        "a token of the API": (_api_token(world), 403),
        "unknown action": (world.sign(payload("delete", obj)), 403),
        "other audience": (world.sign(payload(action, obj, aud="other")), 403),
        "list of audiences": (world.sign(payload(action, obj, aud=[AUDIENCE])), 403),
        "other issuer": (world.sign(payload(action, obj, iss="other")), 403),
        "no jti": (world.sign(payload(action, obj, jti=None)), 403),
        "strange jti": (world.sign(payload(action, obj, jti="a.b>*")), 410),
        "no exp": (world.sign(payload(action, obj, exp=None)), 403),
        "endless": (world.sign(payload(action, obj, exp=now_s + 90 * 86_400)), 403),
        "exp of 1e308": (world.sign(payload(action, obj, exp=1e308)), 403),
        "unknown kid": (world.sign(payload(action, obj), kid="0" * 16), 403),
        "no kid": (world.sign(payload(action, obj), kid=""), 403),
        "kid of a path": (world.sign(payload(action, obj), kid="../private/x"), 403),
        "other type": (world.sign(payload(action, obj), typ="JWT"), 403),
        "a stranger's key": (sign_link(claims, stranger), 403),
        "a stranger's key, our kid": (
            jwt.encode(
                payload(action, obj),
                stranger.key,
                algorithm="EdDSA",
                headers={"typ": TOKEN_TYPE, "kid": world.gateway.key.kid, "jwk": jwk},
            ),
            403,
        ),
        "alg none": (world.unsigned(payload(action, obj), "none"), 403),
        "alg None, with a signature": (world.unsigned(payload(action, obj), "None", b"x" * 64), 403),
        "HS256 with the raw public key": (world.hs256(payload(action, obj), world.public_raw), 403),
        "HS256 with the public key's PEM": (_hs256_by_hand(world, payload(action, obj), key_pem), 403),
        "another payload": (f"{header}.{wider}.{signature}", 403),
        "cut off": (good[:-4], 403),
        "padded": (good + "=", 403),
        "three parts missing": ("abc", 403),
        "dots": ("a.b.c", 403),
        "oversized": (good + "A" * MAX_TOKEN_CHARACTERS, 403),
        "not ASCII": (good[:-2] + "é💥", 403),
        "deleted session": (world.sign(payload(action, obj, ses="0" * 16)), 410),
        "withdrawn": (world.sign(payload(action, obj, jti=REVOKED)), 410),
        "a retired key": (
            jwt.encode(
                payload(action, obj),
                world.retired.key,
                algorithm="EdDSA",
                headers={"typ": TOKEN_TYPE, "kid": world.retired.kid},
            ),
            403,
        ),
    }


def bad_bearers(world: World) -> dict[str, str]:
    """Tokens for the API, of every scope, that must not give access to anything."""
    now_s = int(time.time())
    good = access_claims(world)

    def sign(key: PrivateKey | None = None, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        signer = key or world.gateway.key
        header = {"typ": ACCESS.typ, "kid": signer.kid} | (headers or {})
        payload = {name: value for name, value in (good | changes).items() if value is not None}
        return jwt.encode(payload, signer.key, algorithm="EdDSA", headers=header)

    right = sign()
    header, payload, signature = right.split(".")
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(world.public_raw).rstrip(b"=").decode()}
    ours = {"kid": world.gateway.key.kid}
    return {
        "nonsense": "x.y.z",
        "expired": sign(iat=now_s - 900, nbf=now_s - 900, exp=now_s - 60),
        "not yet": sign(iat=now_s + 300, nbf=now_s + 300),
        "endless": sign(exp=now_s + 400 * 86_400),
        "exp of 1e308": sign(exp=1e308),
        "no exp": sign(exp=None),
        "no jti": sign(jti=None),
        "strange jti": sign(jti="a.b>*"),
        "withdrawn": sign(jti=REVOKED),
        "other audience": sign(aud=AUDIENCE),
        "list of audiences": sign(aud=[ACCESS.audience]),
        "other issuer": sign(iss="other"),
        "no scope": sign(scope=None),
        "unknown scope": sign(scope=["everything"]),
        "scope as text": sign(scope="read"),
        "other type": sign(headers={"typ": "JWT"}),
        "a link's type": sign(headers={"typ": TOKEN_TYPE}),
        "a link": right_link(world),
        "unknown kid": sign(headers={"kid": "0" * 16}),
        "kid of a path": sign(headers={"kid": "../private/x"}),
        "a stranger's key": sign(world.stranger),
        "a stranger's key, our kid": sign(world.stranger, ours | {"jwk": jwk}),
        "a retired key": sign(world.retired),
        "alg none": _renamed(world.unsigned(good, "none"), ACCESS.typ),
        "HS256 with the raw public key": jwt.encode(
            good, world.public_raw, algorithm="HS256", headers={"typ": ACCESS.typ} | ours
        ),
        "cut off": right[:-4],
        "padded": right + "=",
        "another payload": f"{header}.{payload[:-4]}AAAA.{signature}",
        "oversized": right + "A" * MAX_TOKEN_CHARACTERS,
    }


def access_claims(world: World) -> dict[str, Any]:
    """Good claims of a token for the API, of every scope."""
    registered = {name: value for name, value in world.payload("", "").items() if name in REGISTERED}
    return registered | {"aud": ACCESS.audience, "scope": list(SCOPES)}


def right_link(world: World) -> str:
    """A link that opens the first session's page."""
    return world.sign(world.payload("page", ""))


def _renamed(token: str, typ: str) -> str:
    """The token with another type in its header, by hand."""
    header, _, rest = token.partition(".")
    fields = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    text = base64.urlsafe_b64encode(json.dumps(fields | {"typ": typ}).encode()).rstrip(b"=").decode()
    return f"{text}.{rest}"


def _api_token(world: World) -> str:
    """By our own key, and for something else."""
    claims = new_access(sub="1", scope=SCOPES, now_s=int(time.time()), lifetime_s=60)
    return sign_access(claims, world.gateway.key)


def _hs256_by_hand(world: World, payload: dict[str, Any], secret: bytes) -> str:
    """PyJWT refuses to sign with a PEM as a secret, so an attacker would not ask it."""
    text = world.unsigned(payload, "HS256").rpartition(".")[0]
    signature = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return text + "." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
