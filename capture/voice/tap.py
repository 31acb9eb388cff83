"""The packet path of one take: every datagram becomes a record, a duplicate, or a counted other thing.

    datagram + stamp -> RTP? audio? ours? -> duplicate? -> transport decryption -> order -> DAVE -> record
                          |                     |                |                          |
                       ignored{cause}       duplicates     TRANSPORT, MALFORMED        held until the key comes

No decoding, no waiting, no input or output: what comes out goes to the track that was opened for its SSRC. A packet
that comes in order passes straight through; `tick` looks only at SSRCs where something waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from capture.voice.dave import FrameOpener, Group, Heard, Sealed
from capture.voice.reorder import EPOCH_WAIT_NS, NOBODY, WAIT_NS, Sequencer
from capture.voice.transport import (
    OPUS_PAYLOAD_TYPE,
    RTCP_CLEAR_BYTES,
    SENDER_REPORT,
    Header,
    Open,
    TransportError,
    is_rtcp,
    is_rtp,
    open_datagram,
    open_report,
    opener,
    parse_header,
)
from contracts.errors import MalformedError
from contracts.packets import NO_LEVEL, Outcome

SWITCH_NS: Final = 2_500_000_000  # after our keys changed, senders have changed theirs: Discord waits 2 s at most
SILENT_NS: Final = 100_000_000  # no packet for so long: five frames are missing, nobody speaks there
SSRCS: Final = 4096  # of one take; more can only be an attack or a bug, and are counted


class Connection(Group, Protocol):
    """What the tap reads of the live voice connection, anew for every datagram."""

    @property
    def mode(self) -> str:
        """Transport encryption mode."""

    @property
    def key(self) -> bytes:
        """Transport key; empty until Discord sent it."""

    @property
    def own_ssrc(self) -> int:
        """The recorder's own SSRC."""

    @property
    def keys_changed_ns(self) -> int:
        """When the group's keys changed last, on CLOCK_BOOTTIME."""

    def user_of(self, ssrc: int) -> int | None:
        """Whose SSRC it is, as the gateway said."""

    def is_video(self, ssrc: int) -> bool:
        """Whether the gateway announced it as video or its retransmission."""


Record = Callable[[Heard], None]


class SsrcStream:
    """One SSRC's place in the packet path; `record` takes its packets as they are decided."""

    def __init__(self, ssrc: int, frames: FrameOpener, record: Record) -> None:
        self.ssrc = ssrc
        self.order: Sequencer[Sealed] = Sequencer()
        self.frames = frames
        self.record = record

    @property
    def waits(self) -> bool:
        """Whether any packet waits, for another or for a key."""
        return self.order.waits or self.frames.held > 0


class Tap:
    """The packet path of one take.

    Parameters
    ----------
    connection
        The live connection.
    open_track
        Called once for each SSRC that is heard; returns what takes its decided packets.
    identified
        Called with (ssrc, user id) when a key told whose SSRC it is.
    reported
        Called with (ssrc, RTCP datagram as it was before encryption, arrival on CLOCK_BOOTTIME) for each sender report.

    Attributes
    ----------
    ignored
        Datagrams that are not audio, by cause.
    streams
        By SSRC.
    """

    def __init__(
        self,
        connection: Connection,
        open_track: Callable[[int], Record],
        identified: Callable[[int, int], None],
        reported: Callable[[int, bytes, int], None],
    ) -> None:
        self._connection = connection
        self._open_track = open_track
        self._identified = identified
        self._reported = reported
        self._key = b""
        self._unseal: Open | None = None
        self._waiting: set[SsrcStream] = set()
        self.ignored: Counter[str] = Counter()
        self.streams: dict[int, SsrcStream] = {}

    def datagram(self, data: bytes, arrival_ns: int) -> None:
        """Take one datagram that arrived at `arrival_ns` on CLOCK_BOOTTIME."""
        try:
            if not is_rtp(data):
                cause = "not_rtp"
            elif is_rtcp(data):
                cause = self._report(data, arrival_ns)
            else:
                cause = self._audio(data, parse_header(data), arrival_ns)
        except TransportError:
            cause = "unauthentic"
        except MalformedError:
            cause = "malformed_header"
        if cause:
            self.ignored[cause] += 1

    def tick(self, now_ns: int) -> None:
        """Let gaps and missing keys time out; call it every few tens of milliseconds.

        What arrived before `now_ns` must have been handed over, or a packet that is only unread counts as missing.
        """
        for stream in list(self._waiting):
            for sealed in stream.order.release(now_ns, wait_ns=self._wait_ns(stream)):
                self._push(stream, sealed, now_ns)
            if stream.frames.held:
                self._name(stream)
                self._record(stream, stream.frames.retry(now_ns))
            if not stream.waits:
                self._waiting.discard(stream)

    def settle(self, now_ns: int) -> None:
        """Keys may go: open what waits of those who fell silent, without further waiting for gaps."""
        for stream in list(self._waiting):
            for sealed in stream.order.settle(now_ns - SILENT_NS):
                self._push(stream, sealed, now_ns)

    def finish(self, now_ns: int) -> None:
        """The take is over: decide everything that waits."""
        for stream in self.streams.values():
            for sealed in stream.order.flush():
                self._push(stream, sealed, now_ns)
            self._name(stream)
            self._record(stream, stream.frames.give_up())
        self._waiting.clear()

    @property
    def waits(self) -> bool:
        """Whether any packet waits, for another or for a key."""
        return bool(self._waiting)

    @property
    def held(self) -> int:
        """Packets that wait for a key."""
        return sum(stream.frames.held for stream in self._waiting)

    def held_by_ssrc(self) -> dict[int, int]:
        """Packets that wait for a key, of those SSRCs that have any."""
        return {stream.ssrc: stream.frames.held for stream in self._waiting if stream.frames.held}

    @property
    def held_since_ns(self) -> int | None:
        """Arrival of the oldest packet that waits for a key, on CLOCK_BOOTTIME; None if none does."""
        since = (stream.frames.held_since_ns for stream in self._waiting)
        return min((one for one in since if one is not None), default=None)

    def _audio(self, data: bytes, header: Header, arrival_ns: int) -> str:
        """Take a datagram of audio; otherwise, why it is none."""
        ssrc, sequence = header.ssrc, header.sequence
        if header.payload_type != OPUS_PAYLOAD_TYPE or self._connection.is_video(ssrc):
            return "video"
        stream = self.streams.get(ssrc)
        if stream is None:
            return self._first(data, header, arrival_ns)
        order = stream.order
        if sequence != order.expected and order.is_duplicate(sequence):
            return ""
        sealed = Sealed(sequence, header.timestamp, arrival_ns, data, NO_LEVEL)
        try:
            self._open(sealed, data, header)
        except TransportError:  # not authentic: it must not use up the place of the true one
            stream.record(Heard(sealed, data[header.clear_bytes :], Outcome.TRANSPORT))
            return ""
        self._receive(stream, sealed)
        return ""

    def _first(self, data: bytes, header: Header, arrival_ns: int) -> str:
        """The first packet of an SSRC, which exists only if the packet is authentic."""
        if header.ssrc == self._connection.own_ssrc:
            return "own"
        if len(self.streams) >= SSRCS:
            return "too_many_ssrcs"
        sealed = Sealed(header.sequence, header.timestamp, arrival_ns, data, NO_LEVEL)
        self._open(sealed, data, header)
        self._receive(self._admit(header.ssrc), sealed)
        return ""

    def _admit(self, ssrc: int) -> SsrcStream:
        frames = FrameOpener(self._connection, lambda user_id: self._identified(ssrc, user_id))
        stream = self.streams[ssrc] = SsrcStream(ssrc, frames, self._open_track(ssrc))
        return stream

    def _open(self, sealed: Sealed, data: bytes, header: Header) -> None:
        """Undo the transport; raises TransportError."""
        unseal = self._opener()
        try:
            sealed.payload, sealed.level = open_datagram(data, header, unseal)
        except TransportError:
            raise
        except MalformedError:
            sealed.payload, sealed.decided = data[header.clear_bytes :], Outcome.MALFORMED

    def _opener(self) -> Open:
        """What opens with the live key; raises TransportError if there is none."""
        key = self._connection.key
        if key is self._key and self._unseal is not None:
            return self._unseal
        try:
            self._unseal = opener(self._connection.mode, key)
        except MalformedError as error:
            raise TransportError("audio before the key") from error
        self._key = key
        return self._unseal

    def _receive(self, stream: SsrcStream, sealed: Sealed) -> None:
        """An authentic packet, seen for the first time."""
        order, frames = stream.order, stream.frames
        if frames.user_id is None:
            self._name(stream)
        if sealed.sequence == order.expected:
            order.pass_next()
            self._push(stream, sealed, sealed.arrival_ns)
        else:
            for ready in order.push(sealed.sequence, sealed.arrival_ns, sealed):
                self._push(stream, ready, sealed.arrival_ns)
        if order.expected == NOBODY or frames.held:
            self._waiting.add(stream)

    def _push(self, stream: SsrcStream, sealed: Sealed, now_ns: int) -> None:
        for heard in stream.frames.push(sealed, now_ns):
            stream.record(heard)

    def _report(self, data: bytes, arrival_ns: int) -> str:
        """Take a sender report; other RTCP is counted by its type."""
        if data[1] != SENDER_REPORT:
            return f"rtcp_{data[1]}"
        raw = open_report(data, self._opener())
        self._reported(int.from_bytes(raw[4:RTCP_CLEAR_BYTES]), raw, arrival_ns)
        return ""

    def _wait_ns(self, stream: SsrcStream) -> int:
        """How long a gap is waited for: longer while the next frame may be the first that its key opens."""
        begins = stream.frames.opened_ns < self._connection.keys_changed_ns + SWITCH_NS
        return EPOCH_WAIT_NS if begins else WAIT_NS

    def _name(self, stream: SsrcStream) -> None:
        user_id = self._connection.user_of(stream.ssrc)
        if user_id is not None:
            stream.frames.user_id = user_id

    @staticmethod
    def _record(stream: SsrcStream, decided: list[Heard]) -> None:
        for heard in decided:
            stream.record(heard)
