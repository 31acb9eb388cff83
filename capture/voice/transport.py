"""One voice datagram: RTP inside AEAD (`*_rtpsize`).

    0                   1                   2                   3
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    |                           timestamp                           |
    |                             SSRC                              |
    |  [CC x CSRC]  [X: profile | length in words]                  |  <- clear, and authenticated
    |  [length x 4 bytes of extension elements]                     |  <- encrypted from here on
    |  payload   [P: padding, its last byte is the count]           |
    |  tag (16 bytes)                                               |
    |  nonce counter (4 bytes), clear                               |

The extension's elements and the padding are inside the encryption: first the elements come off, then the padding, then
what is left is the (DAVE-encrypted) frame. An unstripped padding looks like a frame that is not encrypted at all.

RTCP has the same envelope behind its first eight bytes (version, type, length, SSRC).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl._sodium import ffi, lib  # type: ignore[import-not-found]  # compiled; see `_open_xchacha`

from contracts.errors import MalformedError
from contracts.packets import NO_LEVEL

RTP_VERSION: Final = 2
OPUS_PAYLOAD_TYPE: Final = 120
HEADER: Final = struct.Struct(">BBHII")
EXTENSION: Final = struct.Struct(">HH")
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 4
TAG_BYTES: Final = 16
ROOM_BYTES: Final = 1 << 16  # no UDP datagram is longer
RTCP_CLEAR_BYTES: Final = 8
SENDER_REPORT: Final = 200  # RFC 3550 §6.4.1
RTCP_TYPES: Final = range(192, 224)  # RFC 5761 §4: as a payload type with marker these are 64-95, which RTP avoids
ONE_BYTE_PROFILE: Final = 0xBEDE  # RFC 8285 §4.2
TWO_BYTE_PROFILE: Final = 0x1000  # RFC 8285 §4.3, lower four bits free
AUDIO_LEVEL_ID: Final = 1
LEVEL_OF_ONE_BYTE: Final = AUDIO_LEVEL_ID << 4  # a one-byte element's id and its length less one
XCHACHA20: Final = "aead_xchacha20_poly1305_rtpsize"
AES256_GCM: Final = "aead_aes256_gcm_rtpsize"

Open = Callable[[bytes, int], bytes]


class TransportError(MalformedError):
    """The datagram's authentication failed."""


class Header(msgspec.Struct, frozen=True, gc=False):
    """The clear part of an RTP packet.

    Attributes
    ----------
    clear_bytes
        Length of header, CSRCs and extension preamble: what is authenticated but not encrypted.
    extension_bytes
        Length of the extension elements at the start of the plaintext.
    """

    padding: bool
    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    clear_bytes: int
    extension_profile: int
    extension_bytes: int


class Frame(NamedTuple):
    """What one datagram carried.

    Attributes
    ----------
    payload
        Without extension and padding; empty if there was nothing but padding.
    level
        Audio level in -dBov, or NO_LEVEL.
    """

    payload: bytes
    level: int = NO_LEVEL


def is_rtp(data: bytes) -> bool:
    """Whether this can be RTP or RTCP at all (RFC 3550 §5.1); IP discovery and pings are not."""
    return len(data) >= HEADER.size and data[0] >> 6 == RTP_VERSION


def is_rtcp(data: bytes) -> bool:
    """Whether an RTP-like datagram is RTCP (RFC 5761 §4)."""
    return data[1] in RTCP_TYPES


def parse_header(data: bytes) -> Header:
    """The clear part of an RTP packet.

    Raises
    ------
    MalformedError
        If it is shorter than it says.
    """
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    clear = HEADER.size + 4 * (first & 0x0F)
    profile = words = 0
    if first & 0x10:
        if len(data) < clear + EXTENSION.size:
            raise MalformedError("an RTP packet ends inside its extension preamble")
        profile, words = EXTENSION.unpack_from(data, clear)
        clear += EXTENSION.size
    return Header(bool(first & 0x20), second & 0x7F, sequence, timestamp, ssrc, clear, profile, 4 * words)


def opener(mode: str, key: bytes) -> Open:
    """A function (datagram, how many of its first bytes are clear) -> plaintext; it raises TransportError.

    Raises
    ------
    MalformedError
        If the mode is none that Discord offers now, or the key has not 32 bytes.
    """
    if len(key) != KEY_BYTES:
        raise MalformedError(f"a transport key of {len(key)} bytes; it must have {KEY_BYTES}")
    if mode == XCHACHA20:
        return _open_xchacha(key)
    if mode == AES256_GCM:
        return _open_gcm(key)
    raise MalformedError(f"Discord chose a transport encryption we do not know: {mode}")


def _open_xchacha(key: bytes) -> Open:
    """XChaCha20-Poly1305 by libsodium itself, into one buffer.

    Notes
    -----
    PyNaCl's function allocates two C objects and checks five types per call: 4.1 us against 1.2 us of this, measured.
    """
    room = ffi.new("unsigned char[]", ROOM_BYTES)
    view = ffi.buffer(room)
    decrypt, nothing, zeros = lib.crypto_aead_xchacha20poly1305_ietf_decrypt, ffi.NULL, bytes(24 - NONCE_BYTES)

    def unseal(data: bytes, clear_bytes: int) -> bytes:
        sealed, nonce = data[clear_bytes:-NONCE_BYTES], data[-NONCE_BYTES:] + zeros
        size = len(sealed)
        if size < TAG_BYTES or decrypt(room, nothing, nothing, sealed, size, data, clear_bytes, nonce, key):
            raise TransportError
        plain: bytes = view[: size - TAG_BYTES]
        return plain

    return unseal


def _open_gcm(key: bytes) -> Open:
    """AES-256-GCM."""
    decrypt, zeros = AESGCM(key).decrypt, bytes(12 - NONCE_BYTES)

    def unseal(data: bytes, clear_bytes: int) -> bytes:
        try:
            return decrypt(data[-NONCE_BYTES:] + zeros, data[clear_bytes:-NONCE_BYTES], data[:clear_bytes])
        except (InvalidTag, ValueError) as error:
            raise TransportError from error

    return unseal


def open_datagram(data: bytes, header: Header, unseal: Open) -> Frame:
    """What an RTP datagram carries.

    Raises
    ------
    TransportError
        If the authentication fails.
    MalformedError
        If extension or padding are longer than what is there.
    """
    plain = unseal(data, header.clear_bytes)
    level, size = NO_LEVEL, header.extension_bytes
    if size:
        if size > len(plain):
            raise MalformedError("an RTP header extension is longer than its packet")
        level = audio_level(header.extension_profile, plain[:size])
        plain = plain[size:]
    return Frame(strip_padding(plain) if header.padding else plain, level)


def open_report(data: bytes, unseal: Open) -> bytes:
    """An RTCP datagram as it was before encryption: one packet, or several behind each other (RFC 3550 §6.1).

    Raises
    ------
    TransportError
        If the authentication fails.
    """
    return data[:RTCP_CLEAR_BYTES] + unseal(data, RTCP_CLEAR_BYTES)


def strip_padding(payload: bytes) -> bytes:
    """The payload without RTP padding (RFC 3550 §5.1): its last byte counts the padding, itself included."""
    count = payload[-1] if payload else 0
    if not 0 < count <= len(payload):
        raise MalformedError(f"RTP padding of {count} bytes in {len(payload)}")
    return payload[:-count]


def audio_level(profile: int, elements: bytes) -> int:
    """The audio level (RFC 6464) among extension elements of either form, in -dBov; NO_LEVEL if it is not there."""
    one_byte = profile == ONE_BYTE_PROFILE
    if not one_byte and profile & 0xFFF0 != TWO_BYTE_PROFILE:
        return NO_LEVEL
    if one_byte and elements and elements[0] == LEVEL_OF_ONE_BYTE:  # Discord's usual word: level, then speaker flags
        return elements[1] & 0x7F
    position = 0
    while position < len(elements):
        first = elements[position]
        if first == 0:  # padding between elements
            position += 1
            continue
        if one_byte:
            identifier, length, position = first >> 4, (first & 0x0F) + 1, position + 1
        else:
            identifier, length, position = first, int.from_bytes(elements[position + 1 : position + 2]), position + 2
        if identifier == AUDIO_LEVEL_ID and length and position < len(elements):
            return elements[position] & 0x7F
        position += length
    return NO_LEVEL
