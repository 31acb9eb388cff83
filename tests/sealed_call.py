"""A call as the packet path sees it: datagrams sealed with real keys, and the connection that opens them.

The group is a real DAVE group of davey sessions behind the loopback's external sender; there is no socket and no clock.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Final, cast

import davey

from ops.loopback import rtp
from ops.loopback.dave_client import DaveClient
from ops.loopback.group import DaveGroup, Outgoing
from ops.loopback.opcodes import Dave
from ops.loopback.transport import XCHACHA, TransportCipher

CHANNEL: Final = 77
RECORDER: Final = 1000
REPORT_CLEAR_BYTES: Final = 8


class SealedCall:
    """People with keys in one group with the recorder, and a transport cipher.

    Attributes
    ----------
    connection
        The recorder's end, as `capture.voice.tap` reads it.
    """

    def __init__(self, *users: int, mode: str = XCHACHA) -> None:
        self._group = DaveGroup(channel_id=CHANNEL)
        self._clients: dict[int, DaveClient] = {}
        self._outgoing: list[Outgoing] = []
        self.cipher = TransportCipher.fresh(mode)
        self.join(RECORDER, *users)
        self.connection = Connection(self.cipher, self._clients[RECORDER]._session)

    def join(self, *users: int) -> None:
        """They come, and everybody has new keys."""
        for user in users:
            self._clients[user] = DaveClient(user_id=user, channel_id=CHANNEL, reply=self._reply_of(user))
            self._outgoing += self._group.join(user)
        self._settle()

    def leave(self, user: int) -> None:
        """One goes, and everybody else has new keys."""
        del self._clients[user]
        self._outgoing += self._group.leave(user)
        self._settle()

    def say(self, user: int, opus: bytes) -> bytes:
        """A frame as its sender encrypts it end to end."""
        return self._clients[user].encrypt(opus)

    def datagram(
        self,
        frame: bytes,
        *,
        sequence: int,
        ssrc: int,
        timestamp: int | None = None,
        padding: int = 0,
        payload_type: int = rtp.AUDIO_PAYLOAD_TYPE,
    ) -> bytes:
        """A frame as Discord sends it: header, extension, padding, transport encryption."""
        elements = rtp.voice_elements(30)
        header = rtp.Header(
            sequence % 2**16,
            (sequence * 960 if timestamp is None else timestamp) % 2**32,
            ssrc,
            payload_type=payload_type,
            padding=padding > 0,
            extension=True,
        )
        clear = header.pack() + rtp.extension_preamble(elements)
        return self.cipher.seal(clear, elements + (rtp.pad(frame, padding) if padding else frame))

    def report(self, ssrc: int, *, kind: int = rtp.SENDER_REPORT_TYPE) -> tuple[bytes, bytes]:
        """An RTCP report, before encryption and after."""
        raw = bytearray(rtp.sender_report(ssrc=ssrc, unix_ns=10**18, rtp_time=960, packets=50, octets=6000))
        raw[1] = kind
        return bytes(raw), self.cipher.seal(bytes(raw[:REPORT_CLEAR_BYTES]), bytes(raw[REPORT_CLEAR_BYTES:]))

    def sealed(self, clear: bytes, plain: bytes) -> bytes:
        """Any clear part and plaintext, as a careless sender might make it."""
        return self.cipher.seal(clear, plain)

    def _reply_of(self, user: int) -> Any:
        def reply(opcode: Dave, payload: dict[str, Any] | bytes) -> None:
            match opcode:
                case Dave.KEY_PACKAGE:
                    self._outgoing += self._group.key_package(user, cast("bytes", payload))
                case Dave.COMMIT_WELCOME:
                    self._outgoing += self._group.commit(user, cast("bytes", payload))
                case Dave.READY_FOR_TRANSITION:
                    number = cast("dict[str, Any]", payload)["transition_id"]
                    self._outgoing += self._group.ready(user, number)

        return reply

    def _settle(self) -> None:
        while self._outgoing or (proposed := self._group.propose()):
            if not self._outgoing:
                self._outgoing += proposed
            message = self._outgoing.pop(0)
            if message.to in self._clients:
                self._clients[message.to].receive(message.opcode, message.payload)
        assert self._group.settled


class Connection:
    """A live connection that changes only when told."""

    own_ssrc = 1
    earlier_session = None
    plain_allowed = False
    keys_changed_ns = 0

    def __init__(self, cipher: TransportCipher, session: davey.DaveSession | None) -> None:
        self.mode = cipher.mode
        self.key = cipher.key
        self.session = session
        self.named: dict[int, int] = {}
        self.video: set[int] = set()

    def unclaimed(self) -> Iterable[int]:
        """Members of the group without an SSRC."""
        users = [] if self.session is None else map(int, self.session.get_user_ids())
        return [user for user in users if user != RECORDER and user not in self.named.values()]

    def user_of(self, ssrc: int) -> int | None:
        """As the gateway said."""
        return self.named.get(ssrc)

    def is_video(self, ssrc: int) -> bool:
        """As the gateway said."""
        return ssrc in self.video


def opus(number: int, size: int = 60) -> bytes:
    """A frame that is like no other; the path never looks inside."""
    return b"\xfc" + struct.pack(">I", number) * (size // 4)
