"""The main gateway: identify, dispatches with a history for resumes, voice states, members.

A bot has a session for each shard that it identified with; dispatches that it missed between two websockets are
replayed by a resume (op 6). Another process may identify with the same shard: then both hear everything, as with
Discord, until one is gone. Too many identifications in too short a time are refused by op 9.
"""

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from aiohttp import WSMsgType, web

from ops.loopback import guild
from ops.loopback.opcodes import Main
from ops.loopback.room import Room

HEARTBEAT_MS = 41_250  # as Discord's
HISTORY = 2_000  # dispatches kept for a resume
AUTHENTICATION_FAILED, NOT_AUTHENTICATED, UNKNOWN_OPCODE, INVALID_SHARD = 4004, 4003, 4001, 4010

log = structlog.get_logger()


class MainSession:
    """One session: numbered dispatches, and the socket that carries them now.

    Attributes
    ----------
    shard
        (which, of how many): it hears of the guilds for which `(guild_id >> 22) % many` is `which`.
    """

    def __init__(self, shard: tuple[int, int] = (0, 1)) -> None:
        self.shard = shard
        self.socket: web.WebSocketResponse | None = None
        self.session_id = secrets.token_hex(16)
        self.sequence = 0
        self.history: deque[tuple[int, str]] = deque(maxlen=HISTORY)
        self.outbox: asyncio.Queue[str] = asyncio.Queue()

    def dispatch(self, event: str, data: Any) -> None:
        """Queue an event."""
        self.sequence += 1
        message = json.dumps({"op": Main.DISPATCH, "t": event, "s": self.sequence, "d": data})
        self.history.append((self.sequence, message))
        self.outbox.put_nowait(message)

    def hears_of(self, guild_id: int) -> bool:
        """Whether a guild is on this shard."""
        which, many = self.shard
        return (guild_id >> 22) % many == which

    def resume(self, sequence: int) -> None:
        """Queue again what came after `sequence`."""
        self.outbox = asyncio.Queue()
        for number, message in self.history:
            if number > sequence:
                self.outbox.put_nowait(message)
        self.dispatch("RESUMED", {})

    async def write(self, socket: web.WebSocketResponse) -> None:
        """Send queued messages for ever."""
        outbox = self.outbox
        while True:
            await socket.send_str(await outbox.get())


class MainGateway:
    """
    Serves the bot's main websocket.

    Parameters
    ----------
    voice_state
        Called with guild and wanted channel (None: leave) when the bot sends op 4.

    Attributes
    ----------
    sessions
        The newest last.
    identify_every_s
        How long two identifications of one bucket must be apart, seconds; Discord's is 5, and 0 is no limit.
    max_concurrency
        Buckets of identifications: a shard's number modulo this.
    """

    def __init__(
        self,
        *,
        token: str,
        rooms: Mapping[int, Room],
        voice_state: Callable[[int, int | None, Mapping[str, Any]], None],
    ) -> None:
        self.url = ""
        self.sessions: list[MainSession] = []
        self.identify_every_s = 0.0
        self.max_concurrency = 1
        self._identified_s: dict[int, float] = {}
        self._token = token
        self._rooms = rooms
        self._voice_state = voice_state

    @property
    def session(self) -> MainSession | None:
        """The newest session."""
        return self.sessions[-1] if self.sessions else None

    def dispatch(self, event: str, data: Any) -> None:
        """Tell the bot an event, now or when it resumes; nothing happens before it identified."""
        guild_id = data.get("guild_id") or (data["id"] if event.startswith("GUILD_") else None)
        for session in self.sessions:
            if guild_id is None or session.hears_of(int(guild_id)):
                session.dispatch(event, data)

    async def close(self, code: int) -> None:
        """Close the bot's websockets with `code`; the sessions stay for a resume."""
        for session in self.sessions:
            if session.socket is not None:
                await session.socket.close(code=code)

    async def ask_to_reconnect(self) -> None:
        """Op 7: the bot should come again, and resume."""
        for session in self.sessions:
            if session.socket is not None:
                await self._say(session.socket, Main.RECONNECT, None)

    async def invalidate(self) -> None:
        """Op 9: the sessions are over; the bot has to identify anew."""
        over, self.sessions = self.sessions, []
        for session in over:
            if session.socket is not None:
                await self._say(session.socket, Main.INVALID_SESSION, data=False)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """One websocket, from hello to close."""
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        await self._say(socket, Main.HELLO, {"heartbeat_interval": HEARTBEAT_MS})
        session: MainSession | None = None
        writer: asyncio.Task[None] | None = None
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    continue
                said = json.loads(message.data)
                if said["op"] in {Main.IDENTIFY, Main.RESUME} and writer is None:
                    session = await self._begin(socket, said["op"], said["d"])
                    writer = asyncio.create_task(session.write(socket)) if session is not None else None
                else:
                    await self._said(socket, said["op"], said.get("d"), session)
        finally:
            if session is not None and session.socket is socket:
                session.socket = None
            if writer is not None:
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
        return socket

    async def _begin(self, socket: web.WebSocketResponse, opcode: int, data: Mapping[str, Any]) -> MainSession | None:
        if data["token"].removeprefix("Bot ") != self._token:
            await socket.close(code=AUTHENTICATION_FAILED)
            return None
        if opcode == Main.IDENTIFY:
            which, many = data.get("shard") or (0, 1)
            if not 0 <= which < many:
                await socket.close(code=INVALID_SHARD)
                return None
            session = self._identify((which, many)) if self._may_identify(which) else None
        else:
            session = next((each for each in self.sessions if each.session_id == data["session_id"]), None)
            if session is not None:
                session.resume(data["seq"])
        if session is None:
            await self._say(socket, Main.INVALID_SESSION, data=False)
        else:
            session.socket = socket
        return session

    def _may_identify(self, shard: int) -> bool:
        bucket, now_s = shard % self.max_concurrency, time.monotonic()
        if now_s - self._identified_s.get(bucket, float("-inf")) < self.identify_every_s:
            return False
        self._identified_s[bucket] = now_s
        return True

    def _identify(self, shard: tuple[int, int]) -> MainSession:
        session = MainSession(shard)
        self.sessions = [each for each in self.sessions if each.shard != shard or each.socket is not None]
        self.sessions.append(session)
        rooms = [room for room in self._rooms.values() if session.hears_of(room.spec.guild_id)]
        guilds = [{"id": str(room.spec.guild_id), "unavailable": True} for room in rooms]
        ready = {
            "v": 10,
            "user": guild.bot_user(),
            "guilds": guilds,
            "session_id": session.session_id,
            "shard": list(shard),
            "resume_gateway_url": self.url,
            "application": {"id": str(guild.APPLICATION_ID), "flags": 0},
            "private_channels": [],
            "relationships": [],
            "presences": [],
        }
        session.dispatch("READY", ready)
        for room in rooms:
            session.dispatch("GUILD_CREATE", guild.guild(room))
        return session

    async def _said(self, socket: web.WebSocketResponse, opcode: int, data: Any, session: MainSession | None) -> None:
        if opcode == Main.HEARTBEAT:
            await self._say(socket, Main.HEARTBEAT_ACK, None)
        elif session is None:
            await socket.close(code=NOT_AUTHENTICATED)
        elif opcode == Main.VOICE_STATE:
            wanted = data["channel_id"]
            self._voice_state(int(data["guild_id"]), int(wanted) if wanted else None, data)
        elif opcode == Main.REQUEST_MEMBERS:
            self._send_members(session, data)
        elif opcode != 3:  # noqa: PLR2004 - presence update, which nobody else sees
            log.warning("gateway_opcode_unknown", opcode=opcode)
            await socket.close(code=UNKNOWN_OPCODE)

    def _send_members(self, session: MainSession, data: Mapping[str, Any]) -> None:
        wanted = {str(user_id) for user_id in data.get("user_ids", [])}
        everybody = guild.members(self._rooms[int(data["guild_id"])])
        query = (data.get("query") or "").lower()
        found = [
            who
            for who in everybody
            if (who["user"]["id"] in wanted if wanted else who["user"]["username"].startswith(query))
        ]
        chunk = {
            "guild_id": str(data["guild_id"]),
            "members": found[: data.get("limit") or None],
            "chunk_index": 0,
            "chunk_count": 1,
            "not_found": sorted(wanted - {who["user"]["id"] for who in found}),
            "nonce": data.get("nonce"),
        }
        session.dispatch("GUILD_MEMBERS_CHUNK", chunk)

    @staticmethod
    async def _say(socket: web.WebSocketResponse, opcode: Main, data: Any) -> None:
        await socket.send_str(json.dumps({"op": opcode, "d": data, "s": None, "t": None}))
