"""The voice gateway, version 8: one websocket per voice connection.

client                          server
  identify 0  ────────────────►   hello 8 (at once)
              ◄────────────────   ready 2
  (IP discovery over UDP)
  select protocol 1  ─────────►
              ◄────────────────   session description 4, clients connect 11, DAVE 25 ...
  heartbeat 3 ────────────────►   heartbeat ack 6
  resume 7    ────────────────►   resumed 9, then what was missed
"""

import asyncio
import contextlib
import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog
from aiohttp import WSMsgType, web

from ops.loopback.media import Address
from ops.loopback.opcodes import Dave, Voice
from ops.loopback.room import Room
from ops.loopback.transport import AES_GCM, XCHACHA, TransportCipher
from ops.loopback.voice_session import VoiceSession

HEARTBEAT_MS = 13_750  # as Discord's
NOT_AUTHENTICATED, AUTHENTICATION_FAILED, ALREADY_AUTHENTICATED, SESSION_INVALID = 4003, 4004, 4005, 4006
DISCONNECTED, SERVER_CRASHED, UNKNOWN_MODE, DAVE_REQUIRED = 4014, 4015, 4016, 4017
UNKNOWN_OPCODE = 4001
ABNORMAL = 1006

Phase = Literal["identify", "select"]

log = structlog.get_logger()


class VoiceGateway:
    """
    Serves every room's voice websocket.

    Parameters
    ----------
    rooms
        By guild.
    credentials
        The session id and token that the main gateway gave out for a guild, None if the bot is in no channel there.
    """

    def __init__(
        self,
        *,
        rooms: Mapping[int, Room],
        credentials: Callable[[int], tuple[str, str] | None],
        bot_user_id: int,
        new_ssrc: Callable[[], int],
    ) -> None:
        self.sessions: dict[int, VoiceSession] = {}
        self.media_address: Address = ("127.0.0.1", 0)
        self.refusals: dict[int, deque[tuple[Phase, int]]] = defaultdict(deque)
        self.modes: tuple[str, ...] = (XCHACHA,)
        self._rooms = rooms
        self._credentials = credentials
        self._bot_user_id = bot_user_id
        self._new_ssrc = new_ssrc

    def find(self, ssrc: int) -> VoiceSession | None:
        """The session whose own SSRC this is."""
        return next((session for session in self.sessions.values() if session.ssrc == ssrc), None)

    def offer_aes_gcm(self) -> None:
        """Offer AES-256-GCM first, as Discord does on most machines."""
        self.modes = (AES_GCM, XCHACHA)

    def end(self, guild_id: int, *, code: int) -> None:
        """End the guild's session, if any, and close its socket with `code`."""
        session = self.sessions.pop(guild_id, None)
        if session is not None:
            self._rooms[guild_id].disconnect_bot(session)
            session.close(code)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """One websocket, from hello to close."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": Voice.HELLO, "d": {"v": 8, "heartbeat_interval": HEARTBEAT_MS}})
        session = await self._open(socket)
        if session is None:
            return socket
        writer = asyncio.create_task(session.write(socket))
        try:
            await self._read(socket, session)
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer
            self._closed(socket, session)
        return socket

    async def _open(self, socket: web.WebSocketResponse) -> VoiceSession | None:
        """The session that the first message identifies or resumes; None if it was refused."""
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            said = json.loads(message.data)
            if said["op"] == Voice.HEARTBEAT:
                await self._acknowledge(socket, said["d"])
            elif said["op"] == Voice.IDENTIFY:
                return await self._identify(socket, said["d"])
            elif said["op"] == Voice.RESUME:
                return await self._resume(socket, said["d"])
            else:
                await socket.close(code=NOT_AUTHENTICATED)
        return None

    async def _identify(self, socket: web.WebSocketResponse, data: Mapping[str, Any]) -> VoiceSession | None:
        guild_id = int(data["server_id"])
        expected = self._credentials(guild_id)
        if expected is None or int(data["user_id"]) != self._bot_user_id:
            await socket.close(code=SESSION_INVALID)
            return None
        if expected != (data["session_id"], data["token"]):
            await socket.close(code=AUTHENTICATION_FAILED)
            return None
        if self._rooms[guild_id].spec.dave and not data.get("max_dave_protocol_version"):
            await socket.close(code=DAVE_REQUIRED)
            return None
        if (code := self._refusal(guild_id, "identify")) is not None:
            await socket.close(code=code)
            return None
        self.end(guild_id, code=SESSION_INVALID)
        session = VoiceSession(
            user_id=self._bot_user_id,
            guild_id=guild_id,
            session_id=expected[0],
            token=expected[1],
            ssrc=self._new_ssrc(),
        )
        self.sessions[guild_id] = session
        ip, port = self.media_address
        ready = {"ssrc": session.ssrc, "ip": ip, "port": port, "modes": self.modes, "experiments": [], "streams": []}
        session.send(Voice.READY, ready)
        return session

    async def _resume(self, socket: web.WebSocketResponse, data: Mapping[str, Any]) -> VoiceSession | None:
        session = self.sessions.get(int(data["server_id"]))
        if session is None or (session.session_id, session.token) != (data["session_id"], data["token"]):
            await socket.close(code=SESSION_INVALID)
            return None
        session.resume(int(data.get("seq_ack", -1)))
        await socket.send_json({"op": Voice.RESUMED, "d": None})
        return session

    async def _read(self, socket: web.WebSocketResponse, session: VoiceSession) -> None:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                self._rooms[session.guild_id].from_client(session.user_id, message.data[0], message.data[1:])
            elif message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                await self._said(socket, session, said["op"], said["d"])

    async def _said(self, socket: web.WebSocketResponse, session: VoiceSession, opcode: int, data: Any) -> None:
        room = self._rooms[session.guild_id]
        if opcode == Voice.HEARTBEAT:
            session.seq_ack = data.get("seq_ack", -1)
            await self._acknowledge(socket, data)
        elif opcode == Voice.SELECT_PROTOCOL:
            self._select(session, data["data"]["mode"])
        elif opcode == Voice.SPEAKING:
            session.speaking = data["speaking"]
        elif opcode in {Dave.READY_FOR_TRANSITION, Dave.INVALID_COMMIT_WELCOME}:
            room.from_client(session.user_id, opcode, data)
        elif opcode in {Voice.IDENTIFY, Voice.RESUME}:
            session.close(ALREADY_AUTHENTICATED)
        elif opcode not in {Voice.VIDEO, Voice.FLAGS, Voice.PLATFORM, Voice.CLIENT_DISCONNECT}:
            log.warning("voice_opcode_unknown", opcode=opcode)
            session.close(UNKNOWN_OPCODE)

    def _select(self, session: VoiceSession, mode: str) -> None:
        room = self._rooms[session.guild_id]
        if mode not in self.modes:
            session.close(UNKNOWN_MODE)
            return
        if (code := self._refusal(session.guild_id, "select")) is not None:
            self.end(session.guild_id, code=code)
            return
        session.cipher = TransportCipher.fresh(mode)
        description = {
            "mode": mode,
            "secret_key": list(session.cipher.key),
            "dave_protocol_version": int(room.group is not None),
            "audio_codec": "opus",
            "video_codec": "H264",
            "media_session_id": f"media-{session.session_id}",
        }
        session.send(Voice.SESSION_DESCRIPTION, description)
        room.connect_bot(session)

    def _refusal(self, guild_id: int, phase: Phase) -> int | None:
        """The code with which the next connection is closed in this phase, if so ordered."""
        refusals = self.refusals[guild_id]
        return refusals.popleft()[1] if refusals and refusals[0][0] == phase else None

    @staticmethod
    async def _acknowledge(socket: web.WebSocketResponse, data: Any) -> None:
        beat = data["t"] if isinstance(data, dict) else data
        await socket.send_json({"op": Voice.HEARTBEAT_ACK, "d": {"t": beat}})

    def _closed(self, socket: web.WebSocketResponse, session: VoiceSession) -> None:
        """A session ends with its socket, unless the server asked for a resume or the client just vanished."""
        code = session.close_code or socket.close_code or ABNORMAL
        log.info("voice_websocket_closed", guild_id=session.guild_id, code=code)
        resumable = code in {SERVER_CRASHED, ABNORMAL}
        if self.sessions.get(session.guild_id) is session and not resumable:
            self.end(session.guild_id, code=code)
