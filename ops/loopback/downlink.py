"""The way of people's packets to the bot: end-to-end encryption, RTP, transport encryption, the network, the journal.

Opus ─► DAVE ─► header, extension, padding ─► transport ─► lost? late? twice? ─► UDP
└──────────► journal
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from ops.loopback import rtp
from ops.loopback.journal import Fate, Journal, Kind, SentFrame
from ops.loopback.media import Address
from ops.loopback.network import Passage
from ops.loopback.speaker import Speaker
from ops.loopback.transport import TransportCipher

SPEECH_LEVEL_DBOV = 30
REPORT_CLEAR_BYTES = 8  # of RTCP stay authenticated only
VIDEO_PAYLOAD_TYPE = 103
NS_PER_S = 1e9
LATE_NS = 5_000_000  # what is later than this is written down


class BotConnection(Protocol):
    """The bot's voice connection, as the room sees it."""

    user_id: int
    address: Address | None
    cipher: TransportCipher | None

    def send(self, opcode: int, data: Any) -> None:
        """Queue a JSON message."""

    def send_binary(self, opcode: int, payload: bytes) -> None:
        """Queue a binary message."""


class Downlink:
    """
    One room's packets to its bot; `down` loses them all, `deafened` withholds them.

    Parameters
    ----------
    journal
        Where every frame is written down.
    send_datagram
        Sends now.
    is_hole
        Whether everything to an address vanishes.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        send_datagram: Callable[[bytes, Address], None],
        is_hole: Callable[[Address], bool] = lambda _address: False,
    ) -> None:
        self.down = self.deafened = False
        self._is_hole = is_hole
        self._journal = journal
        self._send_datagram = send_datagram

    def send_frame(
        self,
        speaker: Speaker,
        opus: bytes,
        kind: Kind,
        due_ns: int,
        *,
        bot: BotConnection | None,
        bot_reads: Callable[[int | None], bool],
    ) -> None:
        """One frame, and maybe a packet of pure padding behind it, as the speaker's path decides."""
        passage = speaker.path.next()
        self._send(speaker, opus, kind, due_ns, passage, bot, bot_reads)
        if passage.padding_only_follows:
            only = passage._replace(padding_bytes=passage.padding_bytes or rtp.MAX_PADDING)
            self._send(speaker, b"", "padding", due_ns, only, bot, bot_reads)

    def send_sender_report(self, speaker: Speaker, *, bot: BotConnection) -> None:
        """An RTCP sender report about the speaker's stream."""
        if bot.address is not None and bot.cipher is not None:
            report = rtp.sender_report(
                ssrc=speaker.ssrc,
                unix_ns=time.time_ns(),
                rtp_time=speaker.timestamp(time.monotonic_ns()),
                packets=speaker.packets,
                octets=speaker.octets,
            )
            clear, rest = report[:REPORT_CLEAR_BYTES], report[REPORT_CLEAR_BYTES:]
            self._send_datagram(bot.cipher.seal(clear, rest), bot.address)

    def send_video(self, speaker: Speaker, ssrc: int, payload: bytes, *, bot: BotConnection) -> None:
        """One packet of a camera or a screen; no recorder of voices wants it, and the journal does not know it."""
        if bot.address is not None and bot.cipher is not None:
            header = rtp.Header(speaker.packets % 2**16, speaker.timestamp(time.monotonic_ns()), ssrc)
            first, _, *rest = header.pack()
            clear = bytes([first, VIDEO_PAYLOAD_TYPE, *rest])
            self._send_datagram(bot.cipher.seal(clear, payload), bot.address)

    def _send(
        self,
        speaker: Speaker,
        opus: bytes,
        kind: Kind,
        due_ns: int,
        passage: Passage,
        bot: BotConnection | None,
        bot_reads: Callable[[int | None], bool],
    ) -> None:
        header, epoch = speaker.peek(due_ns), speaker.dave.epoch if speaker.dave is not None else None
        sent_unix_ns, sent_monotonic_ns = time.time_ns(), time.monotonic_ns()
        fate = self._forward(speaker, header, opus, kind, passage, bot)
        self._journal.add(
            SentFrame(
                user_id=str(speaker.person.user_id),
                ssrc=header.ssrc,
                sequence=header.sequence,
                timestamp=header.timestamp,
                opus=opus,
                sent_unix_ns=sent_unix_ns,
                sent_monotonic_ns=sent_monotonic_ns,
                in_group=fate in {"sent", "dropped"} and bot_reads(epoch),
                fate=fate,
                kind=kind,
                delay_ns=passage.delay_ns,
                copies=passage.copies if fate == "sent" else 0,
                padding_bytes=passage.padding_bytes,
            )
        )

    def _forward(
        self,
        speaker: Speaker,
        header: rtp.Header,
        opus: bytes,
        kind: Kind,
        passage: Passage,
        bot: BotConnection | None,
    ) -> Fate:
        """Encrypt and send; what is lost on the way is encrypted, too, and leaves its gap in all counters."""
        if bot is None or bot.address is None or bot.cipher is None:
            return "no_listener"
        encrypts = speaker.dave is not None and speaker.dave.epoch is not None
        if self.deafened or not (encrypts or speaker.dave is None or speaker.plain):
            return "withheld"
        payload = speaker.dave.encrypt(opus) if speaker.dave is not None and encrypts and opus else opus
        datagram = self._seal(bot.cipher, header, payload, kind, passage.padding_bytes)
        speaker.count(len(payload))
        if passage.lost or self.down or self._is_hole(bot.address):
            return "dropped"
        for _ in range(passage.copies):
            self._deliver(datagram, bot.address, passage.delay_ns, (header.ssrc, header.sequence))
        return "sent"

    @staticmethod
    def _seal(cipher: TransportCipher, header: rtp.Header, payload: bytes, kind: Kind, padding_bytes: int) -> bytes:
        """The datagram: the final silence and pure padding carry no extension, as on Discord."""
        elements = rtp.voice_elements(SPEECH_LEVEL_DBOV) if kind == "voice" else b""
        header = header._replace(padding=padding_bytes > 0, extension=bool(elements))
        clear = header.pack() + (rtp.extension_preamble(elements) if elements else b"")
        return cipher.seal(clear, elements + (rtp.pad(payload, padding_bytes) if padding_bytes else payload))

    def _deliver(self, datagram: bytes, address: Address, delay_ns: int, key: tuple[int, int]) -> None:
        if delay_ns:
            loop, due_ns = asyncio.get_running_loop(), time.monotonic_ns() + delay_ns
            loop.call_later(delay_ns / NS_PER_S, self._send_delayed, datagram, address, due_ns, key)
        else:
            self._send_datagram(datagram, address)

    def _send_delayed(self, datagram: bytes, address: Address, due_ns: int, key: tuple[int, int]) -> None:
        late_ns = time.monotonic_ns() - due_ns
        if late_ns > LATE_NS:
            self._journal.late_ns[key] = late_ns
        self._send_datagram(datagram, address)
