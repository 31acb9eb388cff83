"""What was sent, frame by frame: the truth against which a recording is proved."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

import msgspec

Fate = Literal["sent", "dropped", "withheld", "no_listener"]
Kind = Literal["voice", "silence", "padding"]
FRAME_NS = 20_000_000
MERGE_GAP_NS = 200_000_000  # frames lost or withheld for less than this do not end a talkspurt
NS_PER_S = 1e9


class SentFrame(msgspec.Struct, frozen=True, kw_only=True):
    """
    One RTP packet of one person.

    Attributes
    ----------
    sequence, timestamp
        As in the RTP header; the timestamp is in ticks of 1/48000 s modulo 2^32.
    opus
        The Opus frame before any encryption; empty for padding.
    sent_unix_ns, sent_monotonic_ns
        When it left the server, before the network's delay.
    in_group
        Whether the bot was a member of the group at the epoch the frame was encrypted for; without DAVE, connected.
    fate
        ``sent``; ``dropped`` by the network; ``withheld`` because its sender had no key yet; or ``no_listener``.
    delay_ns, copies, padding_bytes
        What the network did to it: delay, how many times it was delivered, bytes of RTP padding.
    """

    user_id: str
    ssrc: int
    sequence: int
    timestamp: int
    opus: bytes
    sent_unix_ns: int
    sent_monotonic_ns: int
    in_group: bool
    fate: Fate
    kind: Kind
    delay_ns: int = 0
    copies: int = 1
    padding_bytes: int = 0

    @property
    def owed(self) -> bool:
        """The bot must get it and be able to read it."""
        return self.in_group and self.fate == "sent"


class Journal:
    """
    The frames of one talk in the order of sending.

    `started_unix_ns` and `started_monotonic_ns` are the talk's zero, None before it began. `late_ns` says, by SSRC and
    sequence number, how much later than planned a datagram really left, because this process was busy.
    """

    def __init__(self) -> None:
        self.frames: list[SentFrame] = []
        self.late_ns: dict[tuple[int, int], int] = {}
        self.started_unix_ns: int | None = None
        self.started_monotonic_ns: int | None = None

    def add(self, frame: SentFrame) -> None:
        """Write down one more frame."""
        self.frames.append(frame)

    def left_unix_ns(self, frame: SentFrame) -> int:
        """When the (last copy of the) datagram really set out for the bot's socket."""
        return frame.sent_unix_ns + frame.delay_ns + self.late_ns.get((frame.ssrc, frame.sequence), 0)

    def owed(self, user_id: str | None = None) -> Iterator[SentFrame]:
        """Every packet that the bot must have got and could read, of one person or all."""
        return (frame for frame in self.frames if frame.owed and user_id in {None, frame.user_id})

    def owed_opus(self) -> dict[str, list[SentFrame]]:
        """The Opus frames (speech and final silence, no padding) owed to the bot, by person."""
        frames = defaultdict(list)
        for frame in self.owed():
            if frame.kind != "padding":
                frames[frame.user_id].append(frame)
        return dict(frames)

    @property
    def spoke_unix_s(self) -> dict[str, list[tuple[float, float]]]:
        """When each person was speaking towards the bot, as half-open intervals in seconds since 1970."""
        spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for frame in self.frames:
            if frame.kind == "voice" and frame.in_group:
                start, own = frame.sent_unix_ns, spans[frame.user_id]
                if own and start - own[-1][1] < MERGE_GAP_NS:
                    start = own.pop()[0]
                own.append((start, frame.sent_unix_ns + FRAME_NS))
        return {user: [(start / NS_PER_S, stop / NS_PER_S) for start, stop in own] for user, own in spans.items()}
