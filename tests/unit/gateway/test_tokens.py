"""A token has one spelling: whatever is changed in it, it is refused."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.keys import load_public_keys, make_keys
from contracts.links import LinkError, new_claims, sign_link, verify_link

NOW_S = 1_790_000_000
BASE64URL = string.ascii_letters + string.digits + "-_"


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    directory = tmp_path_factory.mktemp("keys")
    key = make_keys(directory)
    claims = new_claims(sub="1", session="0" * 16, action="download", obj="a.mp3", now_s=NOW_S, lifetime_s=60)
    return sign_link(claims, key), directory


@given(st.data())
def test_no_changed_character_goes_unnoticed(signed: tuple[str, Path], data: st.DataObject) -> None:
    """Replace any one character by any other: the token opens nothing, not even by unused bits of the last."""
    token, directory = signed
    position = data.draw(st.integers(0, len(token) - 1) | st.just(len(token) - 1))
    other = data.draw(st.sampled_from(BASE64URL + ".=! ").filter(lambda character: character != token[position]))
    changed = token[:position] + other + token[position + 1 :]
    with pytest.raises(LinkError):
        verify_link(changed, load_public_keys(directory), now_s=NOW_S)


@pytest.mark.parametrize("tail", ["=", "==", "!", "\n", " ", "\u00e9"])
def test_nothing_can_be_added(signed: tuple[str, Path], tail: str) -> None:
    """Padding and characters that base64 decoders skip are refused."""
    token, directory = signed
    assert verify_link(token, load_public_keys(directory), now_s=NOW_S).obj == "a.mp3"
    with pytest.raises(LinkError):
        verify_link(token + tail, load_public_keys(directory), now_s=NOW_S)
