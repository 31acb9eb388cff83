"""The loopback Discord: one object that opens the three servers and runs the rooms' calls.

bot ── http ──► rest ┐
bot ── ws ────► main gateway ├─► rooms ◄── talk (the plan in real time)
bot ── wss ───► voice gateway ┘     │
bot ◄── udp ─── media ◄─────────────┘
"""

import asyncio
import random
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from ops.loopback import guild, rtp, talk
from ops.loopback.certificate import make_certificate
from ops.loopback.client import Client
from ops.loopback.errors import NotConnectedError
from ops.loopback.journal import Journal
from ops.loopback.main_gateway import MainGateway
from ops.loopback.media import Address, MediaServer
from ops.loopback.network import NetworkConditions
from ops.loopback.plan import CallPlan
from ops.loopback.rest import PREFIX, Rest
from ops.loopback.room import Room, RoomSpec
from ops.loopback.voice_gateway import DISCONNECTED, SERVER_CRASHED, VoiceGateway
from ops.loopback.voice_session import VoiceSession

HOST = "127.0.0.1"
SSRC_RANGE = (10_000, 2**24)
GOING_AWAY = 1001
SHUTDOWN_S = 1.0  # for handlers that still run when the server closes


@web.middleware
async def _without_clients_that_left(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A client that goes in the middle of its request is no error of ours."""
    try:
        return await handler(request)
    except ConnectionResetError:
        return web.Response(status=499)


class LoopbackDiscord:
    """
    A Discord of its own on 127.0.0.1, with one room or several, each in its own guild.

    Parameters
    ----------
    plan, guild_id, channel_id, dave, network
        The first room.
    more_rooms
        Further rooms; each needs its own guild.
    token
        What the bot must say to log in.
    directory
        Where the certificate goes.
    """

    def __init__(
        self,
        *,
        plan: CallPlan,
        guild_id: int,
        channel_id: int,
        directory: Path,
        dave: bool = True,
        network: NetworkConditions | None = None,
        token: str = "loopback",  # noqa: S107 - opens nothing but this server
        more_rooms: Sequence[RoomSpec] = (),
    ) -> None:
        first = RoomSpec(
            plan=plan,
            guild_id=guild_id,
            channel_id=channel_id,
            dave=dave,
            network=network or NetworkConditions(),
        )
        self._credentials: dict[int, tuple[str, str]] = {}  # session id and token by guild
        self.token = token
        self.directory = directory
        self.rooms = {spec.guild_id: Room(spec, self) for spec in (first, *more_rooms)}
        self.room = self.rooms[guild_id]
        self.rest = Rest(token=token, rooms=self.rooms)
        self.main = MainGateway(token=token, rooms=self.rooms, voice_state=self._bot_voice_state)
        self.voice = VoiceGateway(
            rooms=self.rooms, credentials=self._credentials.get, bot_user_id=guild.BOT_USER_ID, new_ssrc=self.new_ssrc
        )
        self.media = MediaServer(self.voice.find)
        self._random = random.Random(f"ssrc/{plan.seed}")  # noqa: S311 - repeatable by design
        self._ssrcs: set[int] = set()
        self.allocating = False
        self._runners: list[web.AppRunner] = []
        self._voice_endpoint = ""
        self._environ: dict[str, str] = {}

    # --- life

    async def __aenter__(self) -> Self:
        """Open the servers and let the people in who are there from the start."""
        trusted, tls = make_certificate(self.directory)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self.media, local_addr=(HOST, 0))
        plain = web.Application()
        plain.add_subapp(PREFIX, self.rest.application())
        plain.router.add_get("/", self.main.handle)
        secure = web.Application()
        secure.router.add_get("/", self.voice.handle)
        port, voice_port = await self._serve(plain), await self._serve(secure, tls=tls)
        self._voice_endpoint = f"{HOST}:{voice_port}"
        self.voice.media_address = self.media.address
        self.main.url = self.rest.gateway_url = f"ws://{HOST}:{port}"
        self._environ = {
            "RETOLD_DISCORD_TOKEN": self.token,
            "RETOLD_DISCORD_API_URL": f"http://{HOST}:{port}{PREFIX}",
            "RETOLD_DISCORD_GATEWAY_URL": self.main.url,
            "RETOLD_DISCORD_CA_FILE": str(trusted),
        }
        for room in self.rooms.values():
            for person in room.spec.plan.present_at_start():
                room.join(person)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection and socket."""
        for guild_id in list(self.voice.sessions):
            self.voice.end(guild_id, code=DISCONNECTED)
        self.media.close()
        await self.main.close(GOING_AWAY)
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(self, app: web.Application, *, tls: ssl.SSLContext | None = None) -> int:
        """Serve `app` on a free port, which is returned."""
        app.middlewares.insert(0, _without_clients_that_left)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
        return int(runner.addresses[0][1])

    # --- the call

    @property
    def environ(self) -> dict[str, str]:
        """The settings that point the bot here."""
        return dict(self._environ)

    @property
    def journal(self) -> Journal:
        """What was sent in the first room."""
        return self.room.journal

    async def wait_for_bot(self, *, timeout_s: float = 30.0, guild_id: int | None = None) -> None:
        """Wait until the bot is in the room and, with DAVE, one group holds everybody; raises TimeoutError."""
        await self._room(guild_id).wait_settled(timeout_s=timeout_s)

    async def talk(self, *, progress: talk.Progress | None = None, guild_id: int | None = None) -> None:
        """
        Run the room's plan to its end in real time; several rooms may talk at once.

        `progress` is called about every 100 ms with the seconds that have passed and the plan's seconds.
        """
        await talk.perform(self._room(guild_id), progress=progress)

    def person(self, user_id: int, *, locale: str = "en-US", guild_id: int | None = None) -> Client:
        """A person's client, in a language."""
        room = self._room(guild_id)
        person = next(person for person in room.spec.plan.people if person.user_id == user_id)
        return Client(room, person, self, locale=locale)

    def hear_bot(self, user_id: int, *, guild_id: int | None = None) -> list[bytes]:
        """The Opus frames that the bot has sent since this was asked last, as a person in the room hears them."""
        room = self._room(guild_id)
        session = self._session(room.spec.guild_id)
        heard = []
        while session.received and session.cipher is not None:
            frame = session.cipher.open(session.received.popleft(), clear_bytes=rtp.HEADER.size)
            dave = room.speakers[user_id].dave
            is_plain = dave is None or frame == rtp.SILENCE
            heard.append(frame if is_plain or dave is None else dave.decrypt(guild.BOT_USER_ID, frame))
        return heard

    def set_roles(self, *, guild_id: int | None = None) -> None:
        """The bot learns the roles, overwrites and members of a room's guild as they are now."""
        room = self._room(guild_id)
        for role in room.roles.objects():
            self.dispatch("GUILD_ROLE_UPDATE", {"guild_id": str(room.spec.guild_id), "role": role})
        for channel in guild.channels(room):
            self.dispatch("CHANNEL_UPDATE", channel)

    def kick_bot(self, *, guild_id: int | None = None) -> None:
        """The bot is thrown out of a room's guild."""
        room = self._room(guild_id)
        if room.spec.guild_id in self.voice.sessions:
            self.disconnect_bot(guild_id=room.spec.guild_id)
        self.dispatch("GUILD_DELETE", {"id": str(room.spec.guild_id)})

    # --- what rooms need of their surroundings

    def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Tell the bot an event of the main gateway."""
        self.main.dispatch(event, data)

    def send_datagram(self, datagram: bytes, address: Address) -> None:
        """Send to the bot's socket."""
        self.media.send(datagram, address)

    def new_ssrc(self) -> int:
        """An SSRC that was never used here."""
        while (ssrc := self._random.randrange(*SSRC_RANGE)) in self._ssrcs:
            pass
        self._ssrcs.add(ssrc)
        return ssrc

    def is_hole(self, address: Address) -> bool:
        """Whether every datagram to an address vanishes."""
        return address in self.media.holes

    def _session(self, guild_id: int) -> VoiceSession:
        if guild_id not in self.voice.sessions:
            raise NotConnectedError
        return self.voice.sessions[guild_id]

    def _room(self, guild_id: int | None) -> Room:
        return self.room if guild_id is None else self.rooms[guild_id]

    def _bot_voice_state(self, guild_id: int, channel_id: int | None, wanted: Mapping[str, Any]) -> None:
        """Op 4: the bot joins, leaves, or changes its mute and deaf; leaving twice is not answered."""
        if channel_id is None:
            if guild_id not in self._credentials:
                return
            self.voice.end(guild_id, code=DISCONNECTED)
        self._tell_voice_state(guild_id, channel_id, wanted)
        if channel_id is not None and self.allocating:
            self._tell_voice_server(guild_id, allocated=False)
        elif channel_id is not None:
            self._tell_voice_server(guild_id)

    def _tell_voice_state(self, guild_id: int, channel_id: int | None, wanted: Mapping[str, Any]) -> None:
        session_id = self._credentials.get(guild_id, (secrets.token_hex(16), ""))[0]
        self._credentials[guild_id] = (session_id, secrets.token_hex(8))
        if channel_id is None:
            del self._credentials[guild_id]
        room = self.rooms[guild_id]
        state = self.rooms[guild_id].voice_state(guild.BOT_USER_ID) | {
            "channel_id": str(channel_id) if channel_id else None,
            "session_id": session_id,
            "self_mute": bool(wanted.get("self_mute")),
            "self_deaf": bool(wanted.get("self_deaf")),
            "member": guild.bot_member(room),
        }
        room.bot_state = state if channel_id else None
        self.dispatch("VOICE_STATE_UPDATE", state)

    def _tell_voice_server(self, guild_id: int, *, allocated: bool = True) -> None:
        token = self._credentials[guild_id][1]
        endpoint = self._voice_endpoint if allocated else None
        server = {"token": token, "guild_id": str(guild_id), "endpoint": endpoint}
        self.dispatch("VOICE_SERVER_UPDATE", server)

    # --- what can go wrong, on demand; `guild_id` None means the first room's

    def close_voice(self, code: int, *, guild_id: int | None = None) -> None:
        """Close the bot's voice websocket; after 4015 its session waits for a resume."""
        guild_id = guild_id or self.room.spec.guild_id
        if guild_id not in self.voice.sessions:
            raise NotConnectedError
        if code == SERVER_CRASHED:
            self.voice.sessions[guild_id].crash(code)
        else:
            self.voice.end(guild_id, code=code)

    async def close_main_gateway(self, code: int) -> None:
        """Close the bot's main websocket; its session waits for a resume."""
        await self.main.close(code)

    def drop_voice(self, *, guild_id: int | None = None) -> None:
        """Cut the bot's voice websocket without a close frame (1006); its session is over, too."""
        guild_id = guild_id or self.room.spec.guild_id
        session = self._session(guild_id)
        self.voice.sessions.pop(guild_id)
        self.rooms[guild_id].disconnect_bot(session)
        session.drop()

    def say(self, opcode: int, data: Any, *, guild_id: int | None = None) -> None:
        """Any message of the voice gateway to the bot: bytes are a binary one's payload."""
        session = self._session(guild_id or self.room.spec.guild_id)
        (session.send_binary if isinstance(data, bytes) else session.send)(opcode, data)

    def black_hole(self, *, guild_id: int | None = None) -> None:
        """Every datagram between the bot's present address and the voice server vanishes; another address works."""
        address = self._session(guild_id or self.room.spec.guild_id).address
        if address is not None:
            self.media.holes.add(address)

    def lose_voice_server(self, *, guild_id: int | None = None) -> None:
        """The call's voice server is gone (endpoint null); `allocate_voice_server` names another one."""
        guild_id = guild_id or self.room.spec.guild_id
        self.voice.end(guild_id, code=DISCONNECTED)
        self._tell_voice_server(guild_id, allocated=False)

    def allocate_voice_server(self, *, guild_id: int | None = None) -> None:
        """The call is on another voice server from now on."""
        guild_id = guild_id or self.room.spec.guild_id
        self.voice.end(guild_id, code=DISCONNECTED)
        self._credentials[guild_id] = (self._credentials[guild_id][0], secrets.token_hex(8))
        self._tell_voice_server(guild_id)

    def deafen_bot(self, deafen: bool, *, guild_id: int | None = None) -> None:  # noqa: FBT001 - a switch
        """A moderator deafens the bot, or not: no audio is sent to it meanwhile."""
        room = self._room(guild_id)
        if room.bot_state is None:
            raise NotConnectedError
        room.downlink.deafened = deafen
        room.bot_state = room.bot_state | {"deaf": deafen}
        self.dispatch("VOICE_STATE_UPDATE", room.bot_state)

    def delete_channel(self, *, guild_id: int | None = None) -> None:
        """The voice channel is deleted, with the bot in it."""
        room = self._room(guild_id)
        about = next(one for one in guild.channels(room) if one["id"] == str(room.channel_id))
        room.deleted_channels.add(room.channel_id)
        self.dispatch("CHANNEL_DELETE", about)
        self.disconnect_bot(guild_id=guild_id)

    def forget_bot(self, *, guild_id: int | None = None) -> None:
        """The bot's place in the call is lost without a word, as with its main session."""
        guild_id = guild_id or self.room.spec.guild_id
        self.voice.end(guild_id, code=DISCONNECTED)
        self._credentials.pop(guild_id, None)
        self.rooms[guild_id].bot_state = None

    def drop_udp(self, drop: bool, *, guild_id: int | None = None) -> None:  # noqa: FBT001 - a switch
        """Whether every datagram to the bot is lost."""
        self._room(guild_id).downlink.down = drop

    def move_bot(self, channel_id: int, *, guild_id: int | None = None) -> None:
        """The bot and everybody with it are moved to another channel of the guild: another call, group and SSRCs."""
        guild_id = guild_id or self.room.spec.guild_id
        if guild_id not in self.voice.sessions:
            raise NotConnectedError
        self.voice.end(guild_id, code=DISCONNECTED)
        self.rooms[guild_id].move(channel_id)
        self._tell_voice_state(guild_id, channel_id, {})
        self._tell_voice_server(guild_id)

    def disconnect_bot(self, *, guild_id: int | None = None) -> None:
        """Somebody disconnects the bot from the call."""
        guild_id = guild_id or self.room.spec.guild_id
        if guild_id not in self.voice.sessions:
            raise NotConnectedError
        self._bot_voice_state(guild_id, None, {})

    def suppress_op5(self, suppress: bool, *, guild_id: int | None = None) -> None:  # noqa: FBT001 - a switch
        """Whether nobody's op 5 is sent, so that SSRCs stay unknown."""
        self._room(guild_id).suppress_op5 = suppress

    def send_sender_reports(self, *, guild_id: int | None = None) -> None:
        """An RTCP sender report about everybody present."""
        room = self._room(guild_id)
        for user_id in room.speakers:
            room.send_sender_report(user_id)

    def send_video(self, user_id: int, *, guild_id: int | None = None) -> None:
        """A person turns the camera on."""
        self._room(guild_id).send_video(user_id)
