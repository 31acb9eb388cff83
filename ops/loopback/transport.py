"""Transport encryption of the voice socket: the two `rtpsize` modes that are alive.

    RTP   header 12 | BE DE words (if X)  || sealed(elements, payload, padding) | tag 16 | u32 counter
          └──────── authenticated ───────┘
    RTCP  first 8 bytes                   || sealed(the rest)                   | tag 16 | u32 counter

The nonce is the counter, followed by zeros up to 24 bytes (XChaCha20-Poly1305) or 12 (AES-256-GCM).
"""

import secrets

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt as xchacha_open,
)
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_encrypt as xchacha_seal,
)

XCHACHA = "aead_xchacha20_poly1305_rtpsize"
AES_GCM = "aead_aes256_gcm_rtpsize"
NONCE_BYTES = {XCHACHA: 24, AES_GCM: 12}
COUNTER_BYTES = 4
KEY_BYTES = 32


class TransportCipher:
    """One direction of one connection's transport encryption, with its own counter."""

    def __init__(self, *, mode: str, key: bytes) -> None:
        self.mode = mode
        self.key = key
        self._gcm = AESGCM(key)
        self._counter = 0

    @classmethod
    def fresh(cls, mode: str) -> "TransportCipher":
        """A cipher with a random key."""
        return cls(mode=mode, key=secrets.token_bytes(KEY_BYTES))

    def seal(self, clear: bytes, payload: bytes) -> bytes:
        """The datagram: `clear` (authenticated), `payload` (encrypted), tag and counter."""
        counter = self._counter.to_bytes(COUNTER_BYTES, "big")
        self._counter = (self._counter + 1) % 2**32
        nonce = counter.ljust(NONCE_BYTES[self.mode], b"\0")
        if self.mode == XCHACHA:
            return clear + xchacha_seal(payload, clear, nonce, self.key) + counter
        return clear + self._gcm.encrypt(nonce, payload, clear) + counter

    def open(self, datagram: bytes, *, clear_bytes: int) -> bytes:
        """The payload of a sealed `datagram` whose first `clear_bytes` are authenticated only."""
        clear, counter = datagram[:clear_bytes], datagram[-COUNTER_BYTES:]
        sealed, nonce = datagram[clear_bytes:-COUNTER_BYTES], counter.ljust(NONCE_BYTES[self.mode], b"\0")
        if self.mode == XCHACHA:
            return xchacha_open(sealed, clear, nonce, self.key)
        return self._gcm.decrypt(nonce, sealed, clear)
