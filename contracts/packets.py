"""Packets as capture heard them: one record per datagram of audio, batched per SSRC.

A batch is one message on `rec.<session>.pkt.<take>.<ssrc>`: MessagePack, fields by position.

    batch   [tag, take, ssrc, number, base_ns, [packet, ...]]
    packet  [sequence, timestamp, arrival_us, payload, outcome, level]

Both clocks are stored and neither is improved: `timestamp` is the sender's RTP clock, `arrival_us` the kernel's stamp
on the session clock. Wrapped counters stay wrapped; the mixer unwraps.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from contracts import wire

BATCH_PACKETS: Final = 25  # the knee of cost per packet: 0.6 + 0.7 us (client + server), 135 bytes on disk
BATCH_MS: Final = 500  # at most this much speech waits for its batch to fill
NO_LEVEL: Final = -1
SILENCE_FRAME: Final = b"\xf8\xff\xfe"  # five of these end a talkspurt; never encrypted by DAVE


Sixteen: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 16)]
ThirtyTwo: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 32)]
Count: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 48)]
Arrival: TypeAlias = Annotated[int, Meta(ge=-3600 * 10**9, lt=1 << 55)]  # nanoseconds: an hour early, a year late


class Outcome(IntEnum):
    """What became of a datagram. From UNKNOWN_SPEAKER on it is *undecryptable*, and the name is the reason."""

    VOICE = 0
    SILENCE = 1
    PADDING = 2
    UNKNOWN_SPEAKER = 16  # no member's key opened it, and the gateway never named the SSRC
    NO_KEY = 17  # the sender was not in our group (yet, or any more)
    WRONG_KEY = 18  # no key of ours opens it: mostly sent before our welcome
    PLAINTEXT = 19  # came without DAVE while DAVE was on: kept, but not trusted as Opus
    TRANSPORT = 20  # the transport's authentication failed
    MALFORMED = 21  # not a well-formed RTP packet inside

    @property
    def undecryptable(self) -> bool:
        """Whether there is no Opus to be had from this packet."""
        return self >= Outcome.UNKNOWN_SPEAKER


class Packet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One datagram.

    Attributes
    ----------
    sequence
        RTP sequence number, 16 bits, as sent (RFC 3550 §5.1).
    timestamp
        RTP timestamp, 32 bits, ticks of 1/48000 s, as sent.
    arrival_us
        Kernel arrival in microseconds after the batch's `base_ns`; negative after a reorder.
    payload
        Opus for VOICE and SILENCE, empty for PADDING, what could not be opened otherwise.
    outcome
        See `Outcome`.
    level
        Audio level of the header extension in -dBov (0 loud, 127 silent; RFC 6464), or NO_LEVEL.
    """

    sequence: Sixteen
    timestamp: ThirtyTwo
    arrival_us: Annotated[int, Meta(ge=-3600 * 10**6, lt=1 << 45)]
    payload: bytes
    outcome: Outcome = Outcome.VOICE
    level: int = NO_LEVEL


class PacketBatch(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Up to BATCH_PACKETS packets of one SSRC of one take, in the order they were decided.

    Attributes
    ----------
    take, ssrc
        Whose packets these are; SSRCs mean something only inside a take.
    number
        Counts from 0 per (take, ssrc), without a gap; the log is complete if none is missing.
    base_ns
        Arrival of the first packet on the session clock, nanoseconds.
    """

    take: Count
    ssrc: ThirtyTwo
    number: Count
    base_ns: Arrival
    packets: tuple[Packet, ...]

    @property
    def message_id(self) -> str:
        """The Nats-Msg-Id: a retry with the same id is harmless."""
        return f"{self.take}.{self.ssrc}.{self.number}"

    def arrival_ns(self, packet: Packet) -> int:
        """Arrival of one of this batch's packets on the session clock, nanoseconds."""
        return self.base_ns + packet.arrival_us * 1000


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PacketBatch)


def encode_batch(batch: PacketBatch) -> bytes:
    """The wire form of a batch."""
    return _encoder.encode(batch)


def decode_batch(data: bytes) -> PacketBatch:
    """A batch from its wire form.

    Raises
    ------
    MalformedError
        If it is not a batch of a version we know.
    """
    return wire.decode(_decoder, data, "a packet batch")
