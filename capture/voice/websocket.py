"""The voice websocket: discord.py's, but nothing that it reads can end the reading, and DAVE is handled elsewhere.

discord.py's own ends its poll task on the first message it cannot handle, and the call goes deaf at the next change of
keys. Here a message that cannot be handled is logged and counted; only what comes before the connection stands may fail
it. Heartbeats are sent from the event loop, not from a thread per connection.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import structlog
from discord.errors import ConnectionClosed
from discord.gateway import DiscordVoiceWebSocket

from capture.errors import VoiceEndedError
from capture.voice.group import DAVE_JSON_OPS

if TYPE_CHECKING:
    from capture.voice.connection import RecordingConnection

log = structlog.get_logger()

READY, SESSION_DESCRIPTION, HELLO = 2, 4, 8
SILENCE_S: Final = 30.0  # heartbeats are answered every 5 s; a websocket that says nothing for so long is dead
BEAT_S: Final = (0.5, 5.0)  # bounds of what Discord may ask for
DISCOVERY_RETRY_S: Final = 0.2  # UDP may lose the question or the answer
DISCOVERY: Final = struct.Struct(">HHI64sH")
DISCOVERY_REQUEST, DISCOVERY_RESPONSE, DISCOVERY_LENGTH = 1, 2, 70


class Heartbeat:
    """Beats on the event loop, behind the methods of discord.py's keep-alive thread."""

    def __init__(self, ws: RecordingWebSocket, interval_s: float) -> None:
        self._ws = ws
        self._task = asyncio.create_task(self._beat(interval_s), name="voice heartbeat")
        self._sent_s = time.monotonic()
        self.acked_s = self._sent_s
        self.latency = float("inf")
        self.recent_ack_latencies: deque[float] = deque(maxlen=20)

    def ack(self) -> None:
        """The server answered."""
        self.acked_s = time.monotonic()
        self.latency = self.acked_s - self._sent_s
        self.recent_ack_latencies.append(self.latency)

    def stop(self) -> None:
        """Beat no more."""
        self._task.cancel()

    async def _beat(self, interval_s: float) -> None:
        try:
            while True:
                await asyncio.sleep(interval_s)
                self._sent_s = time.monotonic()
                beat = {"t": int(time.time() * 1000), "seq_ack": self._ws.seq_ack}
                await self._ws.send_heartbeat({"op": self._ws.HEARTBEAT, "d": beat})
        except (OSError, RuntimeError, aiohttp.ClientError) as error:  # the reader notices, too, and acts
            log.debug("voice_heartbeat_ended", error=str(error))


class RecordingWebSocket(DiscordVoiceWebSocket):
    """One voice websocket of a `RecordingConnection`.

    Attributes
    ----------
    unhandled
        Messages that could not be handled, by opcode.
    """

    _connection: RecordingConnection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._heart: Heartbeat | None = None
        self.unhandled: Counter[str] = Counter()

    @property
    def acked_s(self) -> float | None:
        """When the server last answered a heartbeat (time.monotonic); None before the first is due."""
        return self._heart.acked_s if self._heart is not None else None

    async def poll_event(self) -> None:
        """Read one message.

        Raises
        ------
        discord.ConnectionClosed, TimeoutError
            The connection is over.
        """
        message = await asyncio.wait_for(self.ws.receive(), SILENCE_S)
        match message.type:
            case aiohttp.WSMsgType.TEXT:
                await self._guarded("json", self._received_text(message.data))
            case aiohttp.WSMsgType.BINARY:
                await self._guarded("binary", self.received_binary_message(message.data))
            case aiohttp.WSMsgType.CLOSE | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.CLOSED:
                raise ConnectionClosed(self.ws, shard_id=None, code=self._close_code)
            case aiohttp.WSMsgType.ERROR:
                raise ConnectionClosed(self.ws, shard_id=None) from message.data

    async def received_message(self, msg: dict[str, Any]) -> None:
        """Handle a JSON message; what comes with the voice connection's own set-up is discord.py's."""
        op, data = msg["op"], msg.get("d") or {}
        if op == READY:
            await self._get_ready(msg, data)
        elif op == HELLO:
            self._begin_beating(data)
        elif op in DAVE_JSON_OPS:
            self.seq_ack = int(msg.get("seq", self.seq_ack))
            await self._connection.keys.said(op, data)
            self._connection.show_keys()
            await self._hook(self, msg)
        elif op == SESSION_DESCRIPTION:
            self.seq_ack = int(msg.get("seq", self.seq_ack))
            await self._describe(data)
            await self._hook(self, msg)
        else:
            await super().received_message(msg)

    async def received_binary_message(self, msg: bytes) -> None:
        """Handle a DAVE message: `u16 seq | u8 opcode | payload`."""
        self.seq_ack = int.from_bytes(msg[:2], "big")
        await self._connection.keys.sent(msg[2], msg[3:])
        self._connection.show_keys()

    async def close(self, code: int = 1000) -> None:
        """Close; the server has a moment to answer."""
        if self._keep_alive is not None:
            self._keep_alive.stop()
        self._close_code = code
        await self.ws.close(code=code)

    async def discover_ip(self) -> tuple[str, int]:
        """Our address as the server sees it; asked again until it answers (UDP)."""
        state = self._connection
        answer: asyncio.Future[bytes] = self.loop.create_future()

        def receive(data: bytes) -> None:
            if len(data) == DISCOVERY.size and data[1] == DISCOVERY_RESPONSE and not answer.done():
                answer.set_result(data)

        state.add_socket_listener(receive)
        try:
            question = DISCOVERY.pack(DISCOVERY_REQUEST, DISCOVERY_LENGTH, state.ssrc, b"", 0)
            while not answer.done():
                await self.loop.sock_sendall(state.socket, question)
                await asyncio.wait({answer}, timeout=DISCOVERY_RETRY_S)
        finally:
            state.remove_socket_listener(receive)
        _kind, _length, _ssrc, address, port = DISCOVERY.unpack(answer.result())
        return address.split(b"\0", 1)[0].decode("ascii"), port

    async def _received_text(self, text: str) -> None:
        await self.received_message(json.loads(text))

    async def _guarded(self, kind: str, handling: Any) -> None:
        try:
            await handling
        except ConnectionClosed:
            raise
        except Exception as error:  # the top of the reading loop: it must not end, or the call goes deaf, silently
            if not self._connection.is_connected():
                raise
            self.unhandled[kind] += 1
            log.warning("voice_message_unhandled", kind=kind, error=repr(error), count=self.unhandled[kind])

    async def _get_ready(self, msg: dict[str, Any], data: dict[str, Any]) -> None:
        if self._connection.is_connected():
            raise ValueError("a second READY")
        if not set(data["modes"]) & set(self._connection.supported_modes):
            raise VoiceEndedError("encryption_mode_unknown")
        await super().received_message(msg)

    async def _describe(self, data: dict[str, Any]) -> None:
        key, version = [int(byte) for byte in bytes(data["secret_key"])], int(data["dave_protocol_version"])
        if data["mode"] not in self._connection.supported_modes:
            raise ValueError(f"an unknown mode: {data['mode']!r}")
        self._connection.mode = data["mode"]
        await self.load_secret_key({**data, "secret_key": key})
        await self._connection.keys.begin(version)
        self._connection.show_keys()

    def _begin_beating(self, data: dict[str, Any]) -> None:
        interval_s = min(max(data["heartbeat_interval"] / 1000, BEAT_S[0]), BEAT_S[1])
        if self._keep_alive is not None:
            self._keep_alive.stop()
        self._heart = Heartbeat(self, interval_s)
        self._keep_alive = self._heart  # type: ignore[assignment]  # same methods, no thread
