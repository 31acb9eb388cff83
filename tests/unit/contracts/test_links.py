"""A link opens what it says, for as long as it says, and nothing else opens anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from contracts.keys import KeyFileError, PrivateKey, PublicKeys, key_id, load_public_keys, load_signing_key, make_keys
from contracts.links import (
    AUDIENCE,
    ISSUER,
    LEEWAY_S,
    MAX_LIFETIME_S,
    MAX_TOKEN_CHARACTERS,
    REQUIRED,
    TOKEN_TYPE,
    LinkClaims,
    LinkError,
    download_path,
    new_claims,
    page_path,
    sign_link,
    verify_link,
)
from tests.strategies import session_ids

NOW_S = 1_790_000_000
RAW = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = PrivateKey(key_id(RAW.public_key()), RAW)
KEYS: PublicKeys = {KEY.kid: RAW.public_key()}
CLAIMS = LinkClaims(sub="1", ses="0123456789abcdef", act="download", obj="a.mp3", iat=NOW_S, exp=NOW_S + 3600, jti="j")
PAYLOAD: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "nbf": NOW_S, **msgspec.to_builtins(CLAIMS)}
HEADERS = {"typ": TOKEN_TYPE, "kid": KEY.kid}
TOKEN = sign_link(CLAIMS, KEY)
words = st.text("abc/:. é\n", max_size=20)


def signed(payload: dict[str, Any] = PAYLOAD, **changes: Any) -> str:
    headers = {**HEADERS, **changes.pop("headers", {})}
    return jwt.encode({**payload, **changes}, RAW, algorithm="EdDSA", headers=headers)


def refused(token: str, *, now_s: int = NOW_S + 1, keys: PublicKeys = KEYS) -> str:
    with pytest.raises(LinkError) as caught:
        verify_link(token, keys, now_s=now_s)
    assert KEY.kid not in str(caught.value)
    assert caught.value.code == "invalid" or "invalid" not in str(caught.value)
    return caught.value.code


@given(words, session_ids, st.sampled_from(["page", "download"]), words, st.integers(1, MAX_LIFETIME_S))
def test_a_link_verifies_to_its_claims(sub: str, session: str, action: Any, obj: str, lifetime_s: int):
    """verify(sign(claims)) is the claims, from the first second to the last."""
    claims = new_claims(sub=sub, session=session, action=action, obj=obj, now_s=NOW_S, lifetime_s=lifetime_s)
    token = sign_link(claims, KEY)
    for now_s in (NOW_S, NOW_S + lifetime_s, NOW_S - LEEWAY_S, NOW_S + lifetime_s + LEEWAY_S - 1):
        assert verify_link(token, KEYS, now_s=now_s) == claims


def test_time_ends_a_link():
    """Before and after its time it says so; leeway is a few seconds and no more."""
    assert refused(TOKEN, now_s=CLAIMS.exp + LEEWAY_S) == "expired"
    assert refused(TOKEN, now_s=NOW_S - LEEWAY_S - 1) == "not_yet"


def test_a_lifetime_is_capped_by_both_sides():
    """The signer shortens, and the verifier refuses what a careless signer made."""
    claims = new_claims(sub="", session="0" * 16, action="page", obj="", now_s=NOW_S, lifetime_s=10 * MAX_LIFETIME_S)
    assert claims.exp == NOW_S + MAX_LIFETIME_S
    assert refused(signed(exp=NOW_S + MAX_LIFETIME_S + LEEWAY_S + 1)) == "invalid"
    assert refused(signed(nbf=NOW_S - MAX_LIFETIME_S, exp=NOW_S + 3600)) == "invalid"


def test_ids_are_fresh():
    """Each link has an id of its own, by which it can be withdrawn."""
    ids = {new_claims(sub="", session="0" * 16, action="page", obj="", now_s=0, lifetime_s=1).jti for _ in range(200)}
    assert len(ids) == 200


@pytest.mark.parametrize("name", REQUIRED)
def test_every_claim_is_required(name: str):
    """A token without one of them opens nothing."""
    assert refused(signed({key: value for key, value in PAYLOAD.items() if key != name})) == "invalid"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"aud": "somebody"},
        {"aud": [AUDIENCE]},
        {"aud": [AUDIENCE, "more"]},
        {"act": "delete"},
        {"act": None},
        {"ses": 5},
        {"ses": "*"},
        {"ses": ""},
        {"obj": None},
        {"sub": 1},
        {"exp": str(NOW_S)},
        {"exp": 1e300},
        {"exp": NOW_S - 1},
        {"exp": 2**70},
        {"iat": -1},
        {"nbf": "soon"},
        {"nbf": None},
        {"nbf": 1.5},
        {"jti": 7},
        {"headers": {"typ": "JWT"}},
        {"headers": {"typ": None}},
        {"headers": {"kid": "other"}},
        {"headers": {"kid": ""}},
    ],
    ids=str,
)
def test_a_wrong_claim_opens_nothing(changes: dict[str, Any]):
    """Even under our own signature."""
    assert refused(signed(**changes)) == "invalid"


def test_another_key_opens_nothing():
    """A stranger's key, under our key's id or its own."""
    stranger = Ed25519PrivateKey.generate()
    for kid in (KEY.kid, key_id(stranger.public_key())):
        token = jwt.encode(PAYLOAD, stranger, algorithm="EdDSA", headers={**HEADERS, "kid": kid})
        assert refused(token) == "invalid"
    assert refused(TOKEN, keys={}) == "invalid"


def test_another_algorithm_opens_nothing():
    """`none`, and HMAC with our public key as its secret (RFC 8725 §2.1), and another curve."""
    public = RAW.public_key()
    raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    curve = ec.generate_private_key(ec.SECP256R1())
    for token in (
        jwt.encode(PAYLOAD, None, algorithm="none", headers=HEADERS),
        jwt.encode(PAYLOAD, raw, algorithm="HS256", headers=HEADERS),
        jwt.encode(PAYLOAD, curve, algorithm="ES256", headers=HEADERS),
    ):
        assert refused(token) == "invalid"


def test_any_changed_character_opens_nothing():
    """Every position matters, and no position takes a second spelling: not the last bits, not padding, not noise."""
    for position, old in enumerate(TOKEN):
        for new in "AQgwz9-_.":
            if new != old:
                assert refused(TOKEN[:position] + new + TOKEN[position + 1 :]) == "invalid"
        for noise in "=!\n ":
            assert refused(TOKEN[:position] + noise + TOKEN[position:]) == "invalid"
        assert refused(TOKEN[:position]) == "invalid"
    assert refused(TOKEN + "=") == "invalid"
    assert refused(TOKEN + "A" * MAX_TOKEN_CHARACTERS) == "invalid"


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_other_text_opens_nothing(text: str):
    """LinkError, never anything else."""
    assert refused(text) == "invalid"


def test_paths_carry_token_and_name():
    """The name is quoted, so that it is one segment of the path."""
    assert page_path("t") == "/s/t"
    name = "Général / ../50%?.mp3"
    path = download_path("t", name)
    assert path.count("/") == 3
    assert unquote(path.rsplit("/", 1)[1]) == name


def test_keys_are_made_once_and_found_again(tmp_path: Path):
    """The first signer makes the pair; the verifier finds its public half, and the private half is the owner's only."""
    key = load_signing_key(tmp_path)
    assert load_signing_key(tmp_path).kid == key.kid
    assert list(load_public_keys(tmp_path)) == [key.kid]
    assert verify_link(sign_link(CLAIMS, key), load_public_keys(tmp_path), now_s=NOW_S) == CLAIMS
    private = tmp_path / "private"
    assert private.stat().st_mode & 0o777 == 0o700
    assert (private / f"{key.kid}.pem").stat().st_mode & 0o777 == 0o600


def test_old_links_outlive_a_new_key(tmp_path: Path):
    """The newest key signs; links of the old one open until its public half is removed."""
    old = load_signing_key(tmp_path)
    new = make_keys(tmp_path)
    assert load_signing_key(tmp_path).kid == new.kid
    keys = load_public_keys(tmp_path)
    assert set(keys) == {old.kid, new.kid}
    assert verify_link(sign_link(CLAIMS, old), keys, now_s=NOW_S) == CLAIMS


def pem_of_p256() -> bytes:
    private = ec.generate_private_key(ec.SECP256R1())
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    "content", [b"", b"noise", b"\xff" * 100, pem_of_p256()], ids=["empty", "noise", "bytes", "P-256"]
)
def test_a_file_that_is_no_key_is_named(tmp_path: Path, content: bytes):
    """KeyFileError names the file."""
    for half, load in (("private", load_signing_key), ("public", load_public_keys)):
        (tmp_path / half).mkdir()
        (tmp_path / half / "wrong.pem").write_bytes(content)
        with pytest.raises(KeyFileError, match=r"wrong\.pem"):
            load(tmp_path)


def test_a_verifier_without_keys_says_so(tmp_path: Path):
    """An empty folder, or none."""
    with pytest.raises(KeyFileError, match="no public key"):
        load_public_keys(tmp_path)
