"""The voice client: discord.py and voice_recv carry the gateway, we read the socket and watch what is said.

voice_recv's own reader is not used: it hands packets on without arrival times, undecrypted, from a thread that dies
silently. Its gateway hook keeps the map of SSRCs; an exception in it must not end the reading of the websocket.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, Protocol

import discord
import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from discord.ext.voice_recv import VoiceRecvClient
from discord.ext.voice_recv.gateway import hook as voice_recv_hook
from discord.gateway import DiscordVoiceWebSocket

from capture.clock import boottime_ns
from capture.voice.closes import Action, Loss
from capture.voice.connection import RecordingConnection
from capture.voice.transport import AES256_GCM, XCHACHA20
from capture.voice.watch import CHECK_NS, KEEPALIVE_NS, Kind, Remedy, Signs, Watch

log = structlog.get_logger()

PING: Final = bytes.fromhex("1337cafe")
PONG: Final = bytes.fromhex("1337f00d")
NS_PER_S: Final = 1_000_000_000

VocalChannel = discord.VoiceChannel | discord.StageChannel


class Listener(Protocol):
    """Who wants to know what happens on the connection; none of these may block or raise."""

    def on_datagram(self, data: bytes, arrival_ns: int) -> None:
        """Take a datagram that arrived at `arrival_ns` on CLOCK_BOOTTIME."""

    def on_connected(self) -> None:
        """Media can come: Discord sent the key (op 4). Also after every reconnect."""

    def on_present(self, user_id: int) -> None:
        """Somebody is in the channel (op 11)."""

    def on_left(self, user_id: int) -> None:
        """Somebody left (op 13)."""

    def on_ssrc(self, user_id: int, ssrc: int) -> None:
        """The gateway named an SSRC (op 5 or 12)."""

    def on_lost(self, cause: str, deaf_since_ns: int) -> None:
        """The connection is lost, since `deaf_since_ns` on CLOCK_BOOTTIME; another follows, or `on_closed`."""

    def on_deafened(self, deafened: bool) -> None:  # noqa: FBT001  # as told; twice the same is possible
        """A moderator deafened the recorder, or not: Discord sends no audio meanwhile."""

    def on_parting(self) -> None:
        """The keys of who left will be gone: what waits of theirs must be opened now."""

    def on_recovery(self, action: str, cause: str) -> None:
        """Something was wrong, and something was done about it: `rekey`, `reconnect` or `revive`."""

    def on_closed(self, cause: str) -> None:
        """The connection is over for good."""


class RecordingVoiceClient(VoiceRecvClient):
    """A voice client whose datagrams and events go to a `Listener`.

    discord.py takes the first mode that the server offers and `supported_modes` holds; opening AES-GCM costs half of
    XChaCha20 where the processor has instructions for it.

    Attributes
    ----------
    speaking
        Users who speak, as far as the gateway said (op 5).
    video_ssrcs
        Announced SSRCs of cameras and screens.
    """

    supported_modes = (AES256_GCM, XCHACHA20)  # type: ignore[assignment]  # discord.py's literals end before AES-GCM
    _connection: RecordingConnection

    def __init__(self, client: discord.Client, channel: VocalChannel, listener: Listener) -> None:
        self._listener = listener
        self._watch = Watch()
        self._checked_ns = self._pinged_ns = 0
        self._heard_ns: int | None = None
        self._ponged_ns: int | None = None
        self._pings = 0
        self._speaking_since_ns = 0
        self._guild_id = channel.guild.id
        self.video_ssrcs: set[int] = set()
        self.speaking: set[int] = set()
        super().__init__(client, channel)

    def create_connection_state(self) -> RecordingConnection:
        """Our connection, with our reader in place before there is a socket to read."""
        return RecordingConnection(self, hook=self._on_message, on_datagram=self._on_datagram)

    def cleanup(self) -> None:
        """Tell the listener that it is over."""
        super().cleanup()
        self._listener.on_closed(self._connection.end_cause)

    async def vanish(self) -> None:
        """Let go of the connection without leaving the call: there, somebody else is this bot now."""
        self._connection.forget_place()
        await self.disconnect(force=True)

    def tick(self, now_ns: int, *, waiting_since_ns: int | None) -> None:
        """Look after the connection; call it every few tens of milliseconds.

        Parameters
        ----------
        now_ns
            CLOCK_BOOTTIME.
        waiting_since_ns
            Arrival of the oldest frame that waits for a key, if any.
        """
        if self._connection.end_cause or now_ns - self._checked_ns < CHECK_NS:
            return
        self._checked_ns = now_ns
        self._check_main_gateway()
        if self.is_connected() and now_ns - self._pinged_ns >= KEEPALIVE_NS:
            self._ping(now_ns)
        remedy = self._watch.judge(self._signs(waiting_since_ns), now_ns)
        if remedy is not None:
            self._apply(remedy, now_ns)

    def unheard_s(self, now_ns: int) -> float | None:
        """Seconds since any datagram, an answer to a ping included, while somebody speaks; None while nobody does.

        A person whom the gateway forgot to call silent is no alarm: the route is probed then, and answers.
        """
        if not self.speaking:
            return None
        return (now_ns - max(self._speaking_since_ns, self._heard_ns or 0)) / NS_PER_S

    def catch_up(self) -> None:
        """Hand over every datagram that arrived until now: whoever judges what is missing needs that first."""
        self._connection._socket_reader.catch_up()  # noqa: SLF001  # discord.py's name for our reader

    def find_channel(self) -> VocalChannel:
        """The channel as discord.py knows it now: its objects are replaced when the main gateway begins anew."""
        found = self.client.get_channel(self.channel.id)
        if isinstance(found, VocalChannel):
            self.channel = found
        return self.channel

    def place_gone(self) -> str:
        """Why there is no such channel any more; empty if there is, or if nobody knows at the moment."""
        guild = self.client.get_guild(self._guild_id)
        if guild is None:
            return "removed_from_server" if self.client.is_ready() else ""
        known = not guild.unavailable and bool(guild.channels)
        return "channel_deleted" if known and guild.get_channel(self.channel.id) is None else ""

    def on_parting(self) -> None:
        """The group is about to change: who left takes their keys along."""
        self.catch_up()
        self._listener.on_parting()

    def on_lost(self, loss: Loss) -> None:
        """The connection told us that it is lost."""
        self.speaking.clear()
        self._listener.on_lost(loss.cause, loss.deaf_since_ns or 0)

    def on_deafened(self, deafened: bool) -> None:  # noqa: FBT001  # as Discord tells it
        """The connection told us what a moderator did."""
        self._listener.on_deafened(deafened)

    def on_recovery(self, cause: str) -> None:
        """The connection asked for new keys."""
        self._listener.on_recovery("rekey", cause)

    def _on_datagram(self, data: bytes, arrival_ns: int) -> None:
        self._heard_ns = arrival_ns
        if data.startswith(PONG):
            self._ponged_ns = arrival_ns
        self._listener.on_datagram(data, arrival_ns)

    def _signs(self, waiting_since_ns: int | None) -> Signs:
        state = self._connection
        acked_s = state.acked_s
        boot_minus_monotonic_ns = boottime_ns() - time.monotonic_ns()
        return Signs(
            stands_since_ns=state.stands_since_ns,
            alive=state.alive,
            reading=state.reading,
            acked_ns=None if acked_s is None else round(acked_s * NS_PER_S) + boot_minus_monotonic_ns,
            heard_ns=self._heard_ns,
            ponged_ns=self._ponged_ns,
            speaking_since_ns=self._speaking_since_ns if self.speaking else None,
            waiting_since_ns=waiting_since_ns,
            keys_ready=state.keys.session is None or state.keys.session.ready,
            keys_changed_ns=state.keys.changed_ns,
            keys_switching=state.keys.switching,
        )

    def _apply(self, remedy: Remedy, now_ns: int) -> None:
        match remedy.kind:
            case Kind.PROBE:
                self._ping(now_ns)
            case Kind.REVIVE:
                self._listener.on_recovery("revive", remedy.cause)
                self._connection.revive()
            case Kind.REKEY:
                self._rekeying = asyncio.create_task(self._connection.keys.recover(remedy.cause))
            case Kind.RECONNECT:
                self._listener.on_recovery("reconnect", remedy.cause)
                self._connection.kick(Loss(Action.REJOIN, remedy.cause, remedy.deaf_since_ns))

    def _ping(self, now_ns: int) -> None:
        self._pinged_ns = now_ns
        self._pings = (self._pings + 1) & 0xFFFFFFFF
        try:
            self._connection.socket.send(PING + self._pings.to_bytes(4))
        except (OSError, AttributeError) as error:
            log.debug("voice_ping_failed", error=str(error))

    def _check_main_gateway(self) -> None:
        """When the main gateway begins a new session, all objects are new, and Discord may have forgotten our call."""
        guild = self.client.get_guild(self._guild_id)
        if guild is None or guild is self.channel.guild or guild.unavailable or guild.me is None:
            return
        log.info("main_gateway_began_anew", guild=str(self._guild_id), in_call=guild.me.voice is not None)
        self.find_channel()
        if guild.me.voice is None:
            self._connection.forgotten()

    def _encrypt_aead_aes256_gcm_rtpsize(self, header: bytes, data: bytes) -> bytes:
        """What discord.py calls by the mode's name to send audio."""
        counter = self._incr_nonce.to_bytes(4)
        self.checked_add("_incr_nonce", 1, 2**32 - 1)
        sealed = AESGCM(bytes(self.secret_key)).encrypt(counter + bytes(8), bytes(data), bytes(header))
        return bytes(header) + sealed + counter

    def _remove_ssrc(self, *, user_id: int) -> None:
        """voice_recv's, without the reader that we do not have; the SSRC stays known: its last packets may be late."""
        self._id_to_ssrc.pop(user_id, None)

    async def _on_message(self, socket: DiscordVoiceWebSocket, message: dict[str, Any]) -> None:
        try:
            await voice_recv_hook(socket, message)
        except Exception as error:  # noqa: BLE001  # whatever it is, our own part below still counts
            log.warning("voice_message_unexpected", op=message.get("op"), error=repr(error))
        try:
            self._tell(message.get("op"), message.get("d") or {})
        except Exception as error:  # noqa: BLE001  # nor may whatever Discord sends one day
            log.warning("voice_message_malformed", op=message.get("op"), error=repr(error))

    def _tell(self, op: int | None, data: dict[str, Any]) -> None:
        match op:
            case 4:
                self._forget_ssrcs()
                self._listener.on_connected()
            case 5:
                self._note_speaking(int(data["user_id"]), int(data["ssrc"]), int(data.get("speaking") or 0))
            case 11:
                for user_id in data["user_ids"]:
                    self._listener.on_present(int(user_id))
            case 12:
                self._note_video(data)
            case 13:
                self.speaking.discard(int(data["user_id"]))
                self._connection.keys.left()
                self._listener.on_left(int(data["user_id"]))

    def _forget_ssrcs(self) -> None:
        """SSRCs mean something only inside a take."""
        self._ssrc_to_id.clear()
        self._id_to_ssrc.clear()
        self.video_ssrcs.clear()
        self.speaking.clear()

    def _note_speaking(self, user_id: int, ssrc: int, flags: int) -> None:
        if flags and not self.speaking:
            self._speaking_since_ns = boottime_ns()
        (self.speaking.add if flags else self.speaking.discard)(user_id)
        self._listener.on_ssrc(user_id, ssrc)

    def _note_video(self, data: dict[str, Any]) -> None:
        for stream in data.get("streams") or ():
            self.video_ssrcs.update(int(stream[name]) for name in ("ssrc", "rtx_ssrc") if stream.get(name))
        if data.get("video_ssrc"):
            self.video_ssrcs.add(int(data["video_ssrc"]))
        if data.get("audio_ssrc"):
            self._listener.on_ssrc(int(data["user_id"]), int(data["audio_ssrc"]))
