"""The bot's voice connection: numbered messages, which outlive the socket until the session is resumed or ended.

    JSON    {"op", "d", "seq"}                  binary    u16 seq | u8 opcode | payload

Both share one 16-bit counter. Heartbeat answers, hello and resumed are not numbered.
"""

import asyncio
import json
from collections import deque
from typing import Any

from aiohttp import web

from ops.loopback.media import Address
from ops.loopback.transport import TransportCipher

HISTORY = 512  # messages kept for a resume
SEQUENCES = 2**16
RECEIVED = 4_096  # datagrams of the bot's own voice that are kept


class VoiceSession:
    """One voice session of the bot in one room."""

    def __init__(self, *, user_id: int, guild_id: int, session_id: str, token: str, ssrc: int) -> None:
        self.user_id = user_id
        self.guild_id = guild_id
        self.session_id = session_id
        self.token = token
        self.ssrc = ssrc
        self.address: Address | None = None
        self.cipher: TransportCipher | None = None
        self.received_packets = 0
        self.received: deque[bytes] = deque(maxlen=RECEIVED)
        self.seq_ack = -1
        self.speaking = 0
        self.close_code: int | None = None
        self._parked: Address | None = None
        self._socket: web.WebSocketResponse | None = None
        self._sequence = 0
        self._history: deque[tuple[int, str | bytes]] = deque(maxlen=HISTORY)
        self._outbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()

    def send(self, opcode: int, data: Any) -> None:
        """Queue a numbered JSON message."""
        number = self._number()
        self._queue(number, json.dumps({"op": int(opcode), "d": data, "seq": number}))

    def send_binary(self, opcode: int, payload: bytes) -> None:
        """Queue a numbered binary message."""
        number = self._number()
        self._queue(number, number.to_bytes(2, "big") + bytes([opcode]) + payload)

    def send_unnumbered(self, opcode: int, data: Any) -> None:
        """Queue a JSON message that a resume does not repeat."""
        self._outbox.put_nowait(json.dumps({"op": int(opcode), "d": data}))

    def close(self, code: int) -> None:
        """Close the socket with `code` after what is queued."""
        self.close_code = code
        self._outbox.put_nowait(None)

    def crash(self, code: int) -> None:
        """The server crashed: no media until the client resumes."""
        self._parked, self.address = self.address, None
        self.close(code)

    def resume(self, seq_ack: int) -> None:
        """Queue again what the client has not seen after `seq_ack`."""
        self.address = self.address or self._parked
        self.close_code = None
        self._outbox = asyncio.Queue()
        for number, message in self._history:
            if 0 < (number - seq_ack) % SEQUENCES < SEQUENCES // 2:
                self._outbox.put_nowait(message)

    def drop(self) -> None:
        """Cut the socket without a word; the client sees 1006."""
        if self._socket is not None and (transport := self._socket._req and self._socket._req.transport):  # noqa: SLF001  # no public way
            transport.abort()

    async def write(self, socket: web.WebSocketResponse) -> None:
        """Send queued messages until `close`."""
        self._socket = socket
        outbox = self._outbox
        while (message := await outbox.get()) is not None:
            if isinstance(message, str):
                await socket.send_str(message)
            else:
                await socket.send_bytes(message)
        await socket.close(code=self.close_code or 1000)

    def _number(self) -> int:
        number = self._sequence
        self._sequence = (number + 1) % SEQUENCES
        return number

    def _queue(self, number: int, message: str | bytes) -> None:
        self._history.append((number, message))
        self._outbox.put_nowait(message)
