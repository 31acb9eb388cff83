"""RTP and its neighbours on Discord's voice socket, as bytes.

RTP        V2 P X CC | M PT | u16 sequence | u32 timestamp | u32 ssrc                       (RFC 3550 §5.1)
extension  BE DE | u16 words | (id:4 len-1:4, data)* padded with zeros to a word            (RFC 8285 §4.2)
padding    zeros ... | u8 count, the count byte included                                    (RFC 3550 §5.1)
discovery  u16 1 ask, 2 answer | u16 70 | u32 ssrc | 64 s address | u16 port
ping       13 37 CA FE | u32 counter, answered by 13 37 F0 0D | the same counter
report     V2, PT 200 | u16 6 | u32 ssrc | u64 NTP time | u32 RTP time | u32 packets | u32 octets (RFC 3550 §6.4.1)
"""

import struct
from typing import NamedTuple

from ops.loopback.errors import MalformedMessageError

VERSION = 0x80  # RTP version 2 in the top bits
PADDING, EXTENSION = 0x20, 0x10  # the P and X bits
AUDIO_PAYLOAD_TYPE = 0x78
HEADER = struct.Struct(">BBHII")
EXTENSION_PROFILE = b"\xbe\xde"
AUDIO_LEVEL_ID, SPEAKER_FLAGS_ID = 1, 9
VOICE_ACTIVE = 0x80  # top bit of the audio level (RFC 6464 §3)
SPEAKER_FLAG_VOICE = 0x02
WORD = 4
SILENCE = b"\xf8\xff\xfe"  # the Opus frame that ends a spurt; DAVE passes it in clear
MAX_PADDING = 255  # the count is one byte
DISCOVERY = struct.Struct(">HHI64sH")
DISCOVERY_ASK, DISCOVERY_ANSWER, DISCOVERY_LENGTH = 1, 2, 70
PING, PONG = b"\x13\x37\xca\xfe", b"\x13\x37\xf0\x0d"
SENDER_REPORT = struct.Struct(">BBHIQIII")
SENDER_REPORT_TYPE, SENDER_REPORT_WORDS = 200, 6
NTP_EPOCH_S = 2_208_988_800  # from 1900 to 1970
NS_PER_S = 1_000_000_000


class Header(NamedTuple):
    """The fixed RTP header; timestamps are ticks of 1/48000 s modulo 2^32."""

    sequence: int
    timestamp: int
    ssrc: int
    payload_type: int = AUDIO_PAYLOAD_TYPE
    padding: bool = False
    extension: bool = False

    def pack(self) -> bytes:
        """The 12 bytes on the wire."""
        first = VERSION | (PADDING if self.padding else 0) | (EXTENSION if self.extension else 0)
        return HEADER.pack(first, self.payload_type, self.sequence, self.timestamp, self.ssrc)


def unpack_header(datagram: bytes) -> Header:
    """The fixed header at the start of `datagram`, which must be RTP version 2 without contributing sources."""
    if len(datagram) < HEADER.size or datagram[0] & 0xCF != VERSION:
        raise MalformedMessageError("not an RTP packet")
    first, payload_type, sequence, timestamp, ssrc = HEADER.unpack_from(datagram)
    return Header(sequence, timestamp, ssrc, payload_type & 0x7F, bool(first & PADDING), bool(first & EXTENSION))


def pack_elements(elements: dict[int, bytes]) -> bytes:
    """One-byte-header extension elements by id, padded with zeros to whole words, without the preamble."""
    packed = b"".join(bytes([key << 4 | len(data) - 1]) + data for key, data in elements.items())
    return packed + bytes(-len(packed) % WORD)


def unpack_elements(packed: bytes) -> dict[int, bytes]:
    """The elements of `packed`, padding skipped (RFC 8285 §4.2)."""
    elements, position = {}, 0
    while position < len(packed):
        first = packed[position]
        position += 1
        if not first:
            continue
        size = (first & 0xF) + 1
        elements[first >> 4] = packed[position : position + size]
        position += size
    return elements


def extension_preamble(elements: bytes) -> bytes:
    """The clear four bytes before packed `elements`: profile and length in words."""
    return EXTENSION_PROFILE + (len(elements) // WORD).to_bytes(2, "big")


def voice_elements(level_dbov: int) -> bytes:
    """The word that accompanies speech: audio level (`level_dbov` below full scale, 0..127) and speaker flags."""
    return pack_elements(
        {AUDIO_LEVEL_ID: bytes([VOICE_ACTIVE | level_dbov]), SPEAKER_FLAGS_ID: bytes([SPEAKER_FLAG_VOICE])}
    )


def pad(payload: bytes, count: int) -> bytes:
    """`payload` with `count` bytes of RTP padding (1..255), the count byte included."""
    if not 1 <= count <= MAX_PADDING:
        raise MalformedMessageError(f"{count} bytes of padding have no form")
    return payload + bytes(count - 1) + bytes([count])


def unpad(padded: bytes) -> bytes:
    """What stands before the RTP padding that ends `padded`."""
    count = padded[-1] if padded else 0
    if not 1 <= count <= len(padded):
        raise MalformedMessageError("the padding count does not fit the packet")
    return padded[:-count]


def discovery_question(ssrc: int) -> bytes:
    """What a client sends to learn its own address."""
    return DISCOVERY.pack(DISCOVERY_ASK, DISCOVERY_LENGTH, ssrc, b"", 0)


def read_discovery_question(datagram: bytes) -> int | None:
    """The SSRC that asks, or None if `datagram` is something else."""
    if len(datagram) != DISCOVERY.size:
        return None
    kind, length, ssrc, _, _ = DISCOVERY.unpack(datagram)
    return ssrc if (kind, length) == (DISCOVERY_ASK, DISCOVERY_LENGTH) else None


def discovery_answer(ssrc: int, address: str, port: int) -> bytes:
    """The answer: the address from which the question came."""
    return DISCOVERY.pack(DISCOVERY_ANSWER, DISCOVERY_LENGTH, ssrc, address.encode(), port)


def read_discovery_answer(datagram: bytes) -> tuple[int, str, int]:
    """SSRC, address and port of a discovery answer."""
    if len(datagram) != DISCOVERY.size:
        raise MalformedMessageError("not a discovery answer")
    _, _, ssrc, address, port = DISCOVERY.unpack(datagram)
    return ssrc, address.rstrip(b"\0").decode(), port


def sender_report(*, ssrc: int, unix_ns: int, rtp_time: int, packets: int, octets: int) -> bytes:
    """An RTCP sender report without report blocks (RFC 3550 §6.4.1)."""
    seconds, rest_ns = divmod(unix_ns, NS_PER_S)
    ntp = ((seconds + NTP_EPOCH_S) << 32) | (rest_ns << 32) // NS_PER_S
    return SENDER_REPORT.pack(
        VERSION, SENDER_REPORT_TYPE, SENDER_REPORT_WORDS, ssrc, ntp, rtp_time % 2**32, packets, octets
    )
