"""NKEYs as nats-server spells them."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import MalformedError
from contracts.nkeys import NkeySeed

# A pair of nats-io/nkeys' own documentation (README, `nk -gen user -pubout`).
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def test_a_seed_has_the_public_half_that_nats_gives_it():
    """The pair of NATS' own documentation."""
    assert NkeySeed.parse(SEED).public == PUBLIC


@given(st.binary(min_size=32, max_size=32))
def test_spelling_and_parsing_are_inverse(raw: bytes):
    """Every seed begins with SU, every public half with U, and its last characters prove the rest."""
    seed = NkeySeed(raw)
    assert NkeySeed.parse(str(seed)) == seed
    assert str(seed).startswith("SU")
    assert seed.public.startswith("U")
    assert len(str(seed)) == len(SEED)
    assert len(seed.public) == len(PUBLIC)


@given(st.text(max_size=80))
def test_what_is_no_seed_is_refused(text: str):
    """Never taken for one, and never said back: it may be half of a secret."""
    with pytest.raises(MalformedError) as refused:
        NkeySeed.parse(text)
    assert str(refused.value).removeprefix("it is not ") in {"base32", "the seed of an NKEY user, which begins with SU"}


@pytest.mark.parametrize("changed", [SEED[:-1] + "A", SEED[:20] + "B" + SEED[21:], "SA" + SEED[2:], SEED[:-2], PUBLIC])
def test_a_seed_with_a_slip_is_refused(changed: str):
    """A character, its length, its kind."""
    with pytest.raises(MalformedError):
        NkeySeed.parse(changed)


def test_a_nonce_is_signed_with_ed25519():
    """As the public half verifies."""
    seed = NkeySeed.parse(SEED)
    key = base64.b32decode(seed.public)[1:33]
    Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(seed.sign("nonce")), b"nonce")
    assert SEED not in repr(seed)
