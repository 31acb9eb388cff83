"""Private and public halves of a signing key, which may lie on different volumes."""

from pathlib import Path

from contracts.keys import load_public_keys, load_signing_key, make_keys


def test_a_lost_public_half_comes_back_with_the_next_signer(tmp_path: Path):
    """The volume of the public keys may be lost or new: the private half makes it again, and nothing else changes."""
    key = make_keys(tmp_path)
    public = tmp_path / "public" / f"{key.kid}.pem"
    before = public.read_bytes()
    public.unlink()
    public.parent.rmdir()
    assert load_signing_key(tmp_path).kid == key.kid
    assert public.read_bytes() == before
    assert list(load_public_keys(tmp_path)) == [key.kid]


def test_a_public_half_that_is_there_is_left_alone(tmp_path: Path):
    """Signing does not touch the gateway's folder, which it watches for changes."""
    key = make_keys(tmp_path)
    public = tmp_path / "public" / f"{key.kid}.pem"
    changed = public.stat().st_mtime_ns
    load_signing_key(tmp_path)
    assert public.stat().st_mtime_ns == changed
