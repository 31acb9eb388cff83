"""A sealer of voice datagrams for tests: every form that RTP allows, as the RFCs and Discord describe it."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

XCHACHA20, AES256_GCM = "aead_xchacha20_poly1305_rtpsize", "aead_aes256_gcm_rtpsize"
KEY = bytes(range(32))


def one_byte_elements(elements: list[tuple[int, bytes]]) -> bytes:
    """RFC 8285 §4.2, padded with zeros to a word."""
    packed = b"".join(bytes([identifier << 4 | len(data) - 1]) + data for identifier, data in elements)
    return packed + bytes(-len(packed) % 4)


def two_byte_elements(elements: list[tuple[int, bytes]]) -> bytes:
    """RFC 8285 §4.3, padded with zeros to a word."""
    packed = b"".join(bytes([identifier, len(data)]) + data for identifier, data in elements)
    return packed + bytes(-len(packed) % 4)


def seal(
    payload: bytes,
    *,
    sequence: int = 1,
    timestamp: int = 2,
    ssrc: int = 3,
    mode: str = XCHACHA20,
    key: bytes = KEY,
    counter: int = 0,
    csrcs: tuple[int, ...] = (),
    extension: tuple[int, bytes] | None = None,
    padding: int = 0,
    payload_type: int = 120,
    marker: bool = False,
) -> bytes:
    """A datagram: `extension` is (profile, elements in whole words), `padding` the count of padding bytes."""
    first = 0x80 | (0x20 if padding else 0) | (0x10 if extension else 0) | len(csrcs)
    clear = struct.pack(">BBHII", first, payload_type | (0x80 if marker else 0), sequence, timestamp, ssrc)
    clear += struct.pack(f">{len(csrcs)}I", *csrcs)
    plain = payload + (bytes(padding - 1) + bytes([padding]) if padding else b"")
    if extension:
        profile, elements = extension
        clear += struct.pack(">HH", profile, len(elements) // 4)
        plain = elements + plain
    return seal_raw(clear, plain, mode=mode, key=key, counter=counter)


def seal_raw(clear: bytes, plain: bytes, *, mode: str = XCHACHA20, key: bytes = KEY, counter: int = 0) -> bytes:
    """A datagram with exactly this clear part and plaintext, whether they fit each other or not."""
    nonce = struct.pack(">I", counter)
    if mode == XCHACHA20:
        return clear + crypto_aead_xchacha20poly1305_ietf_encrypt(plain, clear, nonce + bytes(20), key) + nonce
    return clear + AESGCM(key).encrypt(nonce + bytes(8), plain, clear) + nonce
