"""NKEYs: Ed25519 keys in NATS' own spelling, by which a server knows its users.

    seed     base32(two prefixes of 5 bits each, seed and user; 32 bytes; CRC-16)   58 characters, `SU...`
    public   base32(prefix of a user; 32 bytes; CRC-16)                             56 characters, `U...`

The CRC is CCITT's with a zero start (XMODEM), little-endian; base32 has no padding. The library that nats-py would use
for it comes as source only, and this is all of it that we need.

https://github.com/nats-io/nkeys
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Final, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from contracts.errors import MalformedError

SEED: Final = 18 << 3  # base32 `S`
USER: Final = 20 << 3  # base32 `U`
KEY_BYTES: Final = 32
CRC_BYTES: Final = 2


class NkeySeed(msgspec.Struct, frozen=True):
    """A user's secret half."""

    raw: bytes

    @classmethod
    def new(cls) -> Self:
        """A random one."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `SU...`.

        Raises
        ------
        MalformedError
            If it is no user's seed; what it was is not said.
        """
        try:
            decoded = base64.b32decode(text + "=" * (-len(text) % 8))
        except (binascii.Error, ValueError) as error:
            raise MalformedError("it is not base32") from error
        body, crc = decoded[:-CRC_BYTES], decoded[-CRC_BYTES:]
        if body[:2] != _seed_prefix() or len(body) != CRC_BYTES + KEY_BYTES or crc != _crc(body):
            raise MalformedError("it is not the seed of an NKEY user, which begins with SU")
        return cls(body[2:])

    def __str__(self) -> str:
        """`SU...`."""
        return _spell(_seed_prefix() + self.raw)

    def __repr__(self) -> str:
        """Never the secret."""
        return f"NkeySeed of {self.public}"

    @property
    def public(self) -> str:
        """The public half, `U...`."""
        key = self._key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return _spell(bytes([USER]) + key)

    def sign(self, nonce: str) -> str:
        """The signature of a server's nonce, as CONNECT has it."""
        return base64.b64encode(self._key().sign(nonce.encode())).decode()

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.raw)


def _seed_prefix() -> bytes:
    """Two prefixes of five bits each: a seed, of a user."""
    return bytes([SEED | USER >> 5, (USER & 0b11111) << 3])


def _spell(body: bytes) -> str:
    return base64.b32encode(body + _crc(body)).decode().rstrip("=")


def _crc(body: bytes) -> bytes:
    return binascii.crc_hqx(body, 0).to_bytes(CRC_BYTES, "little")
