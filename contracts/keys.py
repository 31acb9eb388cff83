"""Ed25519 keys that sign links and tokens, as PEM files: `<kid>.pem`.

Signers read `keys/private`, the gateway only `keys/public`. `kid` is the first 16 hex digits of SHA-256 over the raw
public key. A key's life:

    signing      both halves are there; of several, the newest signs
    verifying    rotated: the private half is gone for good, what it signed opens until it expires
    retired      the public half is gone too: whatever it signed opens nothing, at once
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.errors import RetoldError

PublicKeys: TypeAlias = dict[str, Ed25519PublicKey]
KID_CHARACTERS: Final = 16


class KeyFileError(RetoldError):
    """A key file cannot be read; make keys anew with `retold up`, or restore them from your backup."""


class KeyInUseError(RetoldError):
    """The key signs; rotate first: `retold keys rotate`."""


class KnownKey(msgspec.Struct, frozen=True):
    """A key as the folders tell of it.

    Attributes
    ----------
    signs
        Whether it is the one that signs now.
    made_unix_s
        When its file was written, Unix seconds.
    """

    kid: str
    signs: bool
    made_unix_s: int


class PrivateKey(msgspec.Struct, frozen=True):
    """A signing key with its id."""

    kid: str
    key: Ed25519PrivateKey


def key_id(key: Ed25519PublicKey) -> str:
    """The `kid` of a public key."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:KID_CHARACTERS]


def make_keys(directory: Path) -> PrivateKey:
    """A new key pair below `directory` (`private/`, `public/`); the private half is readable by its owner only."""
    key = Ed25519PrivateKey.generate()
    kid = key_id(key.public_key())
    private = directory / "private"
    private.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    descriptor = os.open(private / f"{kid}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    made = PrivateKey(kid, key)
    _publish(directory / "public", made)
    return made


def load_signing_key(directory: Path) -> PrivateKey:
    """The newest private key below `directory`; made now if there is none.

    Its public half is put where it is missing: the two lie on different volumes where services are apart.

    Raises
    ------
    KeyFileError
        If the file is not an Ed25519 key.
    """
    files = _private_files(directory)
    if not files:
        return make_keys(directory)
    try:
        key = serialization.load_pem_private_key(files[-1].read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{files[-1].name} is not a private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{files[-1].name} is not an Ed25519 private key")
    found = PrivateKey(key_id(key.public_key()), key)
    _publish(directory / "public", found)
    return found


def load_public_keys(directory: Path) -> PublicKeys:
    """Every public key below `directory`, by `kid`.

    Raises
    ------
    KeyFileError
        If a file is not an Ed25519 public key, or none is there.
    """
    keys: PublicKeys = {}
    for path in sorted((directory / "public").glob("*.pem")):
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{path.name} is not a public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{path.name} is not an Ed25519 public key")
        keys[key_id(key)] = key
    if not keys:
        raise KeyFileError("there is no public key in RETOLD_DATA/keys/public; the bot or `retold up` makes one")
    return keys


def installation_name(keys: PublicKeys) -> str:
    """What an installation is known by: a digest of the keys whose links it opens."""
    return hashlib.sha256(" ".join(sorted(keys)).encode()).hexdigest()[:KID_CHARACTERS]


def rotate_keys(directory: Path) -> PrivateKey:
    """A new key that signs from now on; those before it can only verify, for their private halves are deleted."""
    before = _private_files(directory)
    made = make_keys(directory)
    for path in before:
        path.unlink(missing_ok=True)
    return made


def retire_key(directory: Path, kid: str) -> None:
    """Take a key away: every link and token that it signed ends within a second.

    Raises
    ------
    KeyFileError
        If there is no such key.
    KeyInUseError
        If it is the one that signs.
    """
    known = {key.kid: key for key in list_keys(directory)}
    if kid not in known:
        names = ", ".join(known) or "none"
        raise KeyFileError(f"there is no key {kid[:KID_CHARACTERS]!r}; there are: {names}")
    if known[kid].signs:
        raise KeyInUseError
    for half in ("private", "public"):
        (directory / half / f"{kid}.pem").unlink(missing_ok=True)


def list_keys(directory: Path) -> list[KnownKey]:
    """Every key whose public half is there, newest first."""
    private = _private_files(directory)
    signing = private[-1].stem if private else ""
    made = [(path.stat().st_mtime, path.stem) for path in (directory / "public").glob("*.pem")]
    return [KnownKey(kid, kid == signing, int(moment)) for moment, kid in sorted(made, reverse=True)]


def _private_files(directory: Path) -> list[Path]:
    """Oldest first."""
    return sorted((directory / "private").glob("*.pem"), key=lambda path: (path.stat().st_mtime_ns, path.name))


def _publish(directory: Path, key: PrivateKey) -> None:
    path = directory / f"{key.kid}.pem"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            key.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
