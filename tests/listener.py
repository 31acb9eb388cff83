"""A bot that listens: the real discord.py and voice_recv with a raw tap, and a decryption as plain as can be.

It keeps every datagram and, once the talk is over, opens them in the order of arrival; frames that cannot be opened yet
wait in order. It is a judge for the loopback Discord, not a recorder: nothing is bounded.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import davey
import discord
import discord.ext.voice_recv.gateway
import yarl
from discord.ext import voice_recv
from discord.voice_state import VoiceConnectionState

from ops.loopback import rtp
from ops.loopback.transport import TransportCipher

logging.getLogger("discord").setLevel(logging.ERROR)
DEADLINE_S = 15.0
GUILDS_S = 0.1  # discord.py waits so long for one more guild before it is ready; 2 s by default


class Frame:
    """An opened packet: SSRC, sequence, timestamp and what it holds (empty: padding only)."""

    def __init__(self, header: rtp.Header, payload: bytes, elements: Mapping[int, bytes]) -> None:
        self.header = header
        self.payload = payload
        self.elements = elements


class TapState(VoiceConnectionState):
    """As inherited, but for two of its faults that are not what is tested.

    Its socket reader hangs in a select on the closed socket for 30 s. Its wait for a state misses one that comes
    between two waits, as happens when both voice updates come within a millisecond.
    """

    async def _wait_for_state(self, *states: Any, timeout: float | None = None) -> None:  # noqa: ASYNC109  # its signature
        async with asyncio.timeout(timeout):
            while self.state not in states:
                await asyncio.sleep(0.005)

    async def disconnect(self, **options: Any) -> None:
        """Leave the call."""
        if self.socket:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        await super().disconnect(**options)


class Tap(voice_recv.VoiceRecvClient):
    """A voice client that opens each datagram as it arrives; `opened` holds Opus frames by user id."""

    def create_connection_state(self) -> Any:
        """Listen before the socket exists, so that nothing waits in the kernel."""
        self.datagrams: list[bytes] = []
        self.reports: list[bytes] = []
        self.opened: dict[int, list[tuple[rtp.Header, bytes]]] = defaultdict(list)
        self.waiting: dict[int, deque[Frame]] = defaultdict(deque)
        self.seen: set[tuple[int, int]] = set()
        self.problems: list[str] = []
        state = TapState(self, hook=voice_recv.gateway.hook)
        state.add_socket_listener(self.received)
        return state

    def _remove_ssrc(self, *, user_id: int) -> None:
        """As inherited, but without the speaking timer, which exists only while a sink listens."""
        ssrc = self._id_to_ssrc.pop(user_id, None)
        if ssrc:
            self.drain(ssrc, user_id)
            self._ssrc_to_id.pop(ssrc, None)

    def received(self, datagram: bytes) -> None:
        """Called in the socket reader's thread."""
        self.datagrams.append(datagram)
        if len(datagram) < rtp.HEADER.size or datagram[0] >> 6 != 2:
            return
        if 200 <= datagram[1] <= 206:
            self.reports.append(datagram)
            return
        try:
            self.open(datagram)
        except Exception as problem:  # noqa: BLE001 - the test asserts that there is none
            self.problems.append(repr(problem))

    def open(self, datagram: bytes) -> None:
        """Undo the transport: decryption, extension, padding, repetition."""
        header = rtp.unpack_header(datagram)
        if (header.ssrc, header.sequence) in self.seen:
            return
        self.seen.add((header.ssrc, header.sequence))
        state = self._connection
        cipher = TransportCipher(mode=state.mode, key=bytes(state.secret_key))
        clear = rtp.HEADER.size + (4 if header.extension else 0)
        body = cipher.open(datagram, clear_bytes=clear)
        words = int.from_bytes(datagram[14:16], "big") * 4 if header.extension else 0
        payload = rtp.unpad(body[words:]) if header.padding else body[words:]
        self.waiting[header.ssrc].append(Frame(header, payload, rtp.unpack_elements(body[:words])))
        user_id = self._ssrc_to_id.get(header.ssrc)
        if user_id is not None:
            self.drain(header.ssrc, user_id)

    def drain(self, ssrc: int, user_id: int) -> None:
        """Open what waits of `ssrc`, in order, until a frame whose key is not here yet."""
        queue = self.waiting[ssrc]
        while queue:
            frame = queue[0]
            session = self._connection.dave_session
            plain = frame.payload
            if session is not None and plain not in {b"", rtp.SILENCE}:
                try:
                    plain = session.decrypt(user_id, davey.MediaType.audio, plain)
                except ValueError:
                    return
            queue.popleft()
            self.opened[user_id].append((frame.header, plain))

    def drain_all(self) -> None:
        """Open whatever can be opened now."""
        for ssrc in list(self.waiting):
            if ssrc in self._ssrc_to_id:
                self.drain(ssrc, self._ssrc_to_id[ssrc])


@contextlib.asynccontextmanager
async def logged_in(
    environ: Mapping[str, str], *, guild_ready_timeout: float = GUILDS_S
) -> AsyncIterator[discord.Client]:
    """A discord.py client that is ready, pointed at a loopback Discord by its settings."""
    discord.http.Route.BASE = environ["RETOLD_DISCORD_API_URL"]
    discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(environ["RETOLD_DISCORD_GATEWAY_URL"])
    context = ssl.create_default_context(cafile=environ["RETOLD_DISCORD_CA_FILE"])
    client = discord.Client(
        intents=discord.Intents.all(),
        connector=aiohttp.TCPConnector(ssl=context),
        guild_ready_timeout=guild_ready_timeout,
    )
    async with client:
        await client.login(environ["RETOLD_DISCORD_TOKEN"])
        connection = asyncio.create_task(client.connect())
        ready = asyncio.create_task(client.wait_until_ready())
        try:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.wait({connection, ready}, return_when=asyncio.FIRST_COMPLETED)
            if connection.done():
                ready.cancel()
                await connection
            yield client
        finally:
            await client.close()
            await asyncio.gather(connection, return_exceptions=True)


@contextlib.asynccontextmanager
async def in_call(client: discord.Client, channel_id: int) -> AsyncIterator[Tap]:
    """The client's tap in a voice channel."""
    channel = client.get_channel(channel_id)
    assert isinstance(channel, discord.VoiceChannel)
    tap = await channel.connect(cls=Tap, timeout=DEADLINE_S)
    try:
        yield tap
    finally:
        if tap.is_connected():
            await tap.disconnect(force=True)


async def until(condition: Any, *, timeout_s: float = DEADLINE_S) -> None:
    """Wait until `condition()` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
