"""The voice connection's life: join, hold, lose, join again, until Discord wants no more of us.

discord.py's state does this in three tasks and two event handlers that race with each other; most of its ways to go
deaf begin there. Here the main gateway's events only note what they say and wake one task, which alone acts:

    join (op 4) -> credentials -> UDP socket, websocket, key -> read until lost -> REJOIN | FOLLOW | END (closes.py)

Only what is needed of discord.py's state is kept: its attributes, and the methods that its clients call.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import discord
import structlog
from discord.utils import MISSING
from discord.voice_state import ConnectionFlowState, VoiceConnectionState

from capture.clock import boottime_ns
from capture.errors import VoiceEndedError
from capture.voice.closes import Action, Backoff, Loss, loss_of
from capture.voice.group import GroupKeys
from capture.voice.stamps import StampedReader
from capture.voice.websocket import RecordingWebSocket
from contracts.tasks import end_tasks

if TYPE_CHECKING:
    from capture.voice.client import RecordingVoiceClient

log = structlog.get_logger()

JOIN_S: Final = 3.0  # until the main gateway answers op 4
ALLOCATE_S: Final = 60.0  # until Discord has found another voice server, once it said that it is looking for one
OPEN_S: Final = 5.0  # from the credentials to the key
FOLLOW_S: Final = 1.0  # until the main gateway explains a close
FRESH_S: Final = 2.0  # a server update and a move that come within this time belong together
CLOSE_S: Final = 1.0  # for the server to answer our close
LEAVE_S: Final = 2.0  # until the main gateway confirms that we left
DELETED_S: Final = 0.3  # the deletion of a channel and our leaving it are told in either order
NETWORK_ERRORS: Final = (OSError, RuntimeError, aiohttp.ClientError, discord.DiscordException)

Credentials = tuple[int, str | None, str | None, str | None]


class RecordingConnection(VoiceConnectionState):
    """The state of one `RecordingVoiceClient`.

    Attributes
    ----------
    keys
        The end-to-end encrypted group.
    stands_since_ns
        CLOCK_BOOTTIME since when media can come; None while it cannot.
    end_cause
        Why it is over; empty while it is not.
    attempts
        Connections tried so far.
    """

    voice_client: RecordingVoiceClient
    ws: RecordingWebSocket

    def __init__(self, client: RecordingVoiceClient, *, hook: Any, on_datagram: Callable[[bytes, int], None]) -> None:
        self._on_datagram = on_datagram
        super().__init__(client, hook=hook)
        self.keys = GroupKeys(
            wire=lambda: self.ws,
            identity=lambda: (self.user.id, client.channel.id),
            clock=boottime_ns,
            recovered=client.on_recovery,
            parting=client.on_parting,
        )
        self.stands_since_ns: int | None = None
        self.end_cause = ""
        self.attempts = 0
        self._loss: Loss | None = None
        self._woken = asyncio.Event()
        self._opened = asyncio.Event()
        self._inside = False  # the channel, as far as the main gateway told
        self._leaving = False
        self._told_s = 0.0  # when the main gateway last named a voice server
        self._allocating = False
        self._used: Credentials | None = None  # of the present or the last attempt
        self._backoff = Backoff()
        self._holding = False
        self._closing: set[asyncio.Task[Any]] = set()

    @property
    def _socket_reader(self) -> Any:
        """Ours, in place of discord.py's thread."""
        return self._reader

    @_socket_reader.setter
    def _socket_reader(self, _thread: Any) -> None:  # discord.py's is made, but never started
        self._reader = StampedReader(self, asyncio.get_running_loop(), self._on_datagram)

    @property
    def alive(self) -> bool:
        """Whether somebody looks after the connection."""
        return self._runner is not None and not self._runner.done()

    @property
    def reading(self) -> bool:
        """Whether the present socket is being read."""
        return bool(self._reader.is_alive())

    @property
    def acked_s(self) -> float | None:
        """When the websocket's server last answered a heartbeat (time.monotonic); None before the first."""
        return None if self.ws is MISSING else self.ws.acked_s

    # --- what discord.py calls

    async def connect(
        self,
        *,
        reconnect: bool,
        timeout: float,  # noqa: ASYNC109  # discord.py's signature
        self_deaf: bool,
        self_mute: bool,
        resume: bool = False,  # noqa: ARG002
        wait: bool = True,  # noqa: ARG002
    ) -> None:
        """Join; returns when media can come.

        Raises
        ------
        TimeoutError
            If it did not come to that in time.
        VoiceEndedError
            If Discord said that it never will.
        """
        self.timeout, self.reconnect, self.self_deaf, self.self_mute = timeout, reconnect, self_deaf, self_mute
        self.revive()
        opened = asyncio.create_task(self._opened.wait())
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait({opened, self._runner or opened}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()
        if self.end_cause:
            raise VoiceEndedError(self.end_cause)

    async def disconnect(self, *, force: bool = True, cleanup: bool = True, wait: bool = False) -> None:
        """Leave for good."""
        if not force and not self.is_connected():
            return
        if self._runner is not None and self._runner is not asyncio.current_task():
            await end_tasks(self._runner)
        self.end_cause = self.end_cause or "left"
        await self._leave()
        if wait and self._leaving:  # what comes until Discord let us go is still recorded
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._disconnected.wait(), LEAVE_S)
        self._drop()
        if self._closing:
            await asyncio.wait(self._closing)
        self._reader.stop()
        if cleanup:
            self.voice_client.stop()
            self.voice_client.cleanup()

    def forget_place(self) -> None:
        """We are in no call that is ours to leave."""
        self._inside = False

    async def voice_state_update(self, data: Any) -> None:
        """Note what the main gateway says about the recorder's own voice state."""
        if data["channel_id"] is None:
            self._left()
            return
        channel_id = int(data["channel_id"])
        self._inside, self._leaving = True, False
        self._disconnected.clear()
        self.session_id = data["session_id"]
        self.voice_client.on_deafened(bool(data.get("deaf")))
        if channel_id != self.voice_client.channel.id:
            self._moved(channel_id)
        self._wake()

    async def voice_server_update(self, data: Any) -> None:
        """Note which voice server the main gateway names."""
        self.server_id = int(data["guild_id"])
        token, endpoint = data.get("token"), data.get("endpoint")
        self._allocating = not (token and endpoint)
        if self._allocating:
            self.token = self.endpoint = None
            self._lose(Loss(Action.FOLLOW, "voice_server_lost"))
            return
        self.token, self.endpoint = token, endpoint.removeprefix("wss://")
        self._told_s = time.monotonic()
        if self._holding and self._used != self._credentials():
            self._lose(Loss(Action.FOLLOW, "voice_server_changed"))
        self._wake()

    # --- what the watch calls

    def kick(self, loss: Loss) -> None:
        """Give the present connection up."""
        self._lose(loss)

    def forgotten(self) -> None:
        """The main gateway began anew and does not know that we are in a channel."""
        self._inside = False
        if self.stands_since_ns is not None:
            self._lose(Loss(Action.REJOIN, "voice_state_lost"))

    def revive(self) -> None:
        """Look after the connection, if nobody does."""
        if not self.alive and not self.end_cause:
            self._runner = asyncio.create_task(self._run(), name="voice connection")

    # --- events, as the main gateway tells them

    def _left(self) -> None:
        self._disconnected.set()
        self._inside = False
        if self._leaving:
            self._leaving = False
        else:
            self._lose(Loss(Action.END, "disconnected_by_moderator"))

    def _moved(self, channel_id: int) -> None:
        channel = self.guild.get_channel(channel_id)
        if not isinstance(channel, discord.VoiceChannel | discord.StageChannel):
            self._lose(Loss(Action.END, "moved_out_of_sight"))
            return
        self.voice_client.channel = channel
        if time.monotonic() - self._told_s > FRESH_S:
            self.token = self.endpoint = None  # those of the old call
        self._lose(Loss(Action.FOLLOW, "move"))

    def _lose(self, loss: Loss) -> None:
        """The present connection is over; an end stays one, and a move is the better explanation."""
        if self._loss is None or loss.action is Action.END or loss.cause == "move":
            self._loss = loss
        self._wake()

    def _wake(self) -> None:
        self._woken.set()

    def show_keys(self) -> None:
        """Let discord.py see the group, too."""
        self.dave_session, self.dave_protocol_version = self.keys.session, self.keys.version

    # --- the one task

    async def _run(self) -> None:
        while True:
            loss = await self._attempt()
            stood_ns, lost_ns = self.stands_since_ns, boottime_ns()
            self._drop()
            loss = await self._explain(loss)
            if stood_ns is not None:
                log.info("voice_connection_lost", cause=loss.cause, channel=str(self.voice_client.channel.id))
                self.voice_client.on_lost(loss._replace(deaf_since_ns=loss.deaf_since_ns or lost_ns))
            if loss.action is Action.END:
                break
            delay_s = self._backoff.lost(time.monotonic())
            if delay_s is None:
                loss = Loss(Action.END, "connection_lost")
                break
            await self._until(self._ended, timeout_s=delay_s)
        await self._end(loss.cause)

    async def _attempt(self) -> Loss:
        """One connection, from joining to losing it."""
        if self._loss is not None and self._loss.action is not Action.END:
            self._loss = None
        holding = asyncio.create_task(self._hold(), name="voice websocket")
        try:
            lost = asyncio.create_task(self._until(lambda: self._loss is not None))
            await asyncio.wait({holding, lost}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loss = holding.result() if holding.done() else None
            await asyncio.shield(end_tasks(holding, lost))
        return self._loss or loss or Loss(Action.REJOIN, "failed")

    async def _hold(self) -> Loss:
        self.attempts += 1
        try:
            await self._open()
            while True:
                await self.ws.poll_event()
        except discord.ConnectionClosed as error:
            return loss_of(error.code)
        except VoiceEndedError as error:
            return Loss(Action.END, error.cause)
        except TimeoutError:
            return Loss(Action.REJOIN, "no_answer")
        except NETWORK_ERRORS as error:
            log.info("voice_connection_failed", error=repr(error))
            return Loss(Action.REJOIN, "unreachable")
        except Exception:  # the top of the loop that must not end
            log.exception("voice_connection_broken")
            return Loss(Action.REJOIN, "failed")

    async def _open(self) -> None:
        """From nothing to the key."""
        if not all(self._credentials()):
            await self._join()
        self._used, self._holding = self._credentials(), True
        async with asyncio.timeout(OPEN_S):
            self.ip = self.port = self.secret_key = MISSING
            self._create_socket()
            self.ws = await RecordingWebSocket.from_connection_state(self, hook=self.hook)
            self.state = ConnectionFlowState.websocket_connected
            await self._handshake_websocket()
        self.stands_since_ns = boottime_ns()
        self._backoff.stands(time.monotonic())
        self._opened.set()

    async def _join(self) -> None:
        """Ask the main gateway for credentials; out of the channel first, or it has no reason to give new ones."""
        channel = self.voice_client.find_channel()
        self.session_id = self.token = self.endpoint = None
        if self._inside:
            await self._leave()
        deaf, mute = self.self_deaf, self.self_mute
        await channel.guild.change_voice_state(channel=channel, self_deaf=deaf, self_mute=mute)
        answered = await self._until(lambda: all(self._credentials()), timeout_s=JOIN_S)
        if not answered and self._allocating:
            answered = await self._until(lambda: all(self._credentials()), timeout_s=ALLOCATE_S)
        if not answered:
            self._inside = True  # it may think so: out first, next time
            raise TimeoutError

    async def _leave(self) -> None:
        if not self._inside:
            return
        self._inside, self._leaving = False, True
        self._disconnected.clear()
        try:
            await self.voice_client.channel.guild.change_voice_state(channel=None)
        except NETWORK_ERRORS as error:  # the main gateway is away; the next attempt leaves first
            self._inside, self._leaving = True, False
            log.info("voice_leave_failed", error=repr(error))

    def _drop(self) -> None:
        """Let go of socket and websocket; what the kernel still holds is read first."""
        self.stands_since_ns, self._holding = None, False
        self._reader.pause()
        self.state = ConnectionFlowState.disconnected
        if self.socket is not MISSING:
            self.socket.close()
            self.socket = MISSING
        if self.ws is not MISSING:
            self._later(asyncio.wait_for(self.ws.close(), CLOSE_S))
            self.ws = MISSING

    async def _explain(self, loss: Loss) -> Loss:
        """What to do after a loss: the main gateway may have more to say."""
        following = loss.action in {Action.FOLLOW, Action.FOLLOW_OR_END}
        if following:
            patience_s = ALLOCATE_S if self._allocating else FOLLOW_S
            following = await self._until(lambda: self._ended() or self._fresh(), timeout_s=patience_s)
        if self._loss is not None and (self._ended() or self._loss.cause == "move"):
            loss = self._loss
        elif loss.action is Action.FOLLOW_OR_END and not following:
            loss = Loss(Action.END, loss.cause)
        if loss.action is not Action.END and (gone := self.voice_client.place_gone()):
            loss = Loss(Action.END, gone)
        if not following:
            self.token = None
        return loss

    async def _end(self, cause: str) -> None:
        if cause in {"disconnected_by_moderator", "call_ended"}:
            await self._until(lambda: bool(self.voice_client.place_gone()), timeout_s=DELETED_S)
            cause = self.voice_client.place_gone() or cause
        self.end_cause = cause
        log.info("voice_connection_ended", cause=cause)
        await self.disconnect()

    def _ended(self) -> bool:
        return self._loss is not None and self._loss.action is Action.END

    def _fresh(self) -> bool:
        """Whether there are credentials that were not used yet."""
        return all(self._credentials()) and self._credentials() != self._used

    def _credentials(self) -> Credentials:
        return self.voice_client.channel.id, self.session_id, self.token, self.endpoint

    async def _until(self, holds: Callable[[], bool], *, timeout_s: float | None = None) -> bool:
        """Wait for what the main gateway tells; whether it came in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not holds():
                    self._woken.clear()
                    await self._woken.wait()
        return holds()

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(_quietly(work))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _quietly(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except (TimeoutError, *NETWORK_ERRORS) as error:
        log.debug("voice_websocket_close_failed", error=repr(error))
