"""Requests to capture, from the bus: start, stop, note, status. Each gets one `Reply`; a refusal says what helps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Container, Sequence
from typing import Final, TypeVar

import discord
import msgspec
import structlog

from capture.call import VoiceChannel
from capture.forgetting import Forgetter
from capture.guilds import Guilds
from capture.home import Home
from capture.recording import Recording
from capture.recovery import Standing, end_interrupted
from capture.resume import find_unfinished, resume_each
from capture.spool import Spool
from capture.telling import Telling, speaks_in
from contracts import subjects
from contracts.commands import (
    AddNote,
    AskStatus,
    ChooseConsent,
    ConsentChosen,
    ForgetPerson,
    Forgotten,
    Noted,
    PanelPlaced,
    PlacePanel,
    Refused,
    RefusedError,
    Reply,
    Started,
    StartRecording,
    Status,
    Stopped,
    StopRecording,
    encode_reply,
)
from contracts.directory import SessionEntry
from contracts.errors import UnavailableError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import list_entries, watch_erasures
from contracts.jetstream.erase import delete_session
from contracts.shards import shard_of

log = structlog.get_logger()

GUILD_TIMEOUT_S: Final = 10.0
GUILD_POLL_S: Final = 0.1
RESUME_S: Final = 10.0  # a request waits so long for sessions that are being taken over
SHUTDOWN_S: Final = 6.0  # service managers kill after ten
NOTE_CHARACTERS: Final = 1000

R = TypeVar("R", StartRecording, StopRecording, AddNote, PlacePanel, ChooseConsent, ForgetPerson, AskStatus)


class Control:
    """The recordings of one shard, by guild, and the requests that change them.

    Parameters
    ----------
    shard, shards
        Which of how many; every guild that is spoken of is on it.
    """

    def __init__(self, bus: Bus, bot: discord.Client, home: Home, *, shard: int = 0, shards: int = 1) -> None:
        self._shard, self._shards = shard, shards
        self._served: list[Callable[[], Awaitable[None]]] = []
        self._resumed = asyncio.Event()
        self._bus = bus
        self._bot = bot
        self._home = home
        self._ended: set[Recording] = set()  # ended, or not begun yet: their messages may still be under way
        self._recordings: dict[int, Recording] = {}
        self._starting: set[int] = set()
        self._unfinished: list[str] = []
        self.guilds = Guilds(bus, self._on_guild)
        self._telling = Telling(self.guilds)
        self._forgetter = Forgetter(bus, home, self._is_here, self._people_of, self._is_mine)

    async def serve(self) -> None:
        """Answer requests from now on; what an earlier capture left unfinished is noted before the first of them."""
        self._unfinished = await find_unfinished(self._bus, self._home, self._is_mine)
        await self._forgetter.finish()
        await self.guilds.watch()
        await self._serve(subjects.START_RECORDING, StartRecording, self.start)
        await self._serve(subjects.STOP_RECORDING, StopRecording, self.stop)
        await self._serve(subjects.ADD_NOTE, AddNote, self.note)
        await self._serve(subjects.STATUS, AskStatus, self.status)
        await self._serve(subjects.PLACE_PANEL, PlacePanel, self.place_panel)
        await self._serve(subjects.CHOOSE_CONSENT, ChooseConsent, self.choose_consent)
        await self._serve(subjects.FORGET_PERSON, ForgetPerson, self.forget_person)
        await watch_erasures(self._bus, self._forget)

    def tick(self, now_ns: int) -> None:
        """Let time pass for every recording."""
        for guild_id, recording in list(self._recordings.items()):
            if recording.ended.is_set():
                self._ended.add(self._recordings.pop(guild_id))
            else:
                recording.tick(now_ns)
        before = len(self._ended)
        self._ended = {recording for recording in self._ended if not recording.retired}
        if len(self._ended) < before:
            self._forgetter.look()

    async def close(self) -> None:
        """End every recording; what the server does not take in SHUTDOWN_S is on disk for the next start."""
        await self._serve_no_more()
        every = {*self._ended, *self._recordings.values()}
        await self._part(every, [recording.stop("shutdown", patience_s=SHUTDOWN_S) for recording in every])

    async def hand_over(self) -> None:
        """Leave every recording to the next capture, which goes on in the same session; what has ended is saved."""
        await self._serve_no_more()
        ended = [recording.stop("shutdown", patience_s=SHUTDOWN_S) for recording in self._ended]
        left = [recording.hand_over(patience_s=SHUTDOWN_S) for recording in self._recordings.values()]
        await self._part({*self._ended, *self._recordings.values()}, [*ended, *left])

    async def _part(self, every: set[Recording], ends: Sequence[Awaitable[object]]) -> None:
        for end in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(end, UnavailableError):
                log.warning("shutdown_before_saved", reason=str(end))
        await asyncio.gather(*(recording.close() for recording in every))
        await self._forgetter.close()

    async def abandon(self) -> None:
        """Another capture has these servers now: drop the calls as they are, and leave the spools."""
        await self._serve_no_more()
        every = {*self._ended, *self._recordings.values()}
        for recording in every:
            recording.fence()
        await asyncio.gather(*(recording.left() for recording in every))
        await self._forgetter.close()

    async def _serve_no_more(self) -> None:
        ends, self._served = self._served, []
        await asyncio.gather(*(end() for end in ends))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is recorded, begun, or still to be saved."""
        return self._resumed.is_set() and not (self._recordings or self._starting or self._ended)

    def has(self, session: str) -> bool:
        """Whether a session is recorded, begun, or being saved here, or is to be looked through."""
        here = (*self._recordings.values(), *self._ended)
        return session in self._unfinished or any(each.session == session for each in here)

    def _is_mine(self, guild_id: str) -> bool:
        """Whether a guild is on this shard; what belongs to no guild is on the first."""
        return shard_of(int(guild_id or 0), self._shards) == self._shard

    async def resume(self) -> None:
        """Go on with what an earlier capture left unfinished; call it when the bot is ready."""
        try:
            await resume_each(self._bus, self._home, self._unfinished, self._continue)
        finally:
            self._unfinished = []
            self._resumed.set()
        self._forgetter.look()

    async def _continue(self, standing: Standing, spool: Spool, *, rejoin: bool) -> None:
        entry = standing.entry
        channel = await self._wait_for_channel(entry) if rejoin else None
        if channel is None or channel.guild.id in {*self._recordings, *self._starting}:
            await end_interrupted(self._bus, standing, spool)
            return
        settings = await self.guilds.settings(channel.guild.id)
        recording = Recording(
            bus=self._bus,
            session=entry.session,
            channel=channel,
            spool=spool,
            owner=self._home.owner,
            consent=await self.guilds.consent(channel.guild.id),
            speaks=speaks_in(channel, settings),
            standing=standing,
        )
        await self._start(recording)
        self._telling.begin(recording, settings)

    async def _wait_for_channel(self, entry: SessionEntry) -> VoiceChannel | None:
        """The session's channel, as soon as Discord has told of its guild; None if it does not."""
        try:
            async with asyncio.timeout(GUILD_TIMEOUT_S):
                while (guild := self._bot.get_guild(int(entry.guild_id))) is None:  # noqa: ASYNC110  # no event is sure
                    await asyncio.sleep(GUILD_POLL_S)
        except TimeoutError:
            return None
        channel = guild.get_channel(int(entry.channel_id))
        return channel if isinstance(channel, VoiceChannel) else None

    async def _forget(self, session: str) -> None:
        for recording in [recording for recording in self._ended if recording.session == session]:
            await recording.erase()

    async def start(self, request: StartRecording) -> Started:
        """Join and record."""
        channel = self._find_channel(request)
        guild_id = channel.guild.id
        if guild_id in self._starting or guild_id in self._recordings:
            raise _refused("already_recording", f"{channel.guild.name} is being recorded already; stop that one first.")
        self._starting.add(guild_id)
        try:
            consent = await self.guilds.consent(guild_id)
            settings = await self.guilds.settings(guild_id)
        finally:
            self._starting.discard(guild_id)
        session = new_id()
        recording = Recording(
            bus=self._bus,
            session=session,
            channel=channel,
            spool=self._home.spool(session),
            owner=self._home.owner,
            consent=consent,
            name=request.name,
            started_by=request.requested_by,
            panel_channel_id=request.panel_channel_id,
            mix=request.mix,
            speaks=speaks_in(channel, settings),
        )
        await self._start(recording)
        self._telling.begin(recording, settings)
        return Started(session=session)

    async def _start(self, recording: Recording) -> None:
        guild_id = recording.channel.guild.id
        self._starting.add(guild_id)
        leaving = [each.left() for each in self._ended if each.channel.guild.id == guild_id]
        self._ended.add(recording)
        try:
            await asyncio.gather(*leaving)
            await recording.start()
        except (discord.DiscordException, TimeoutError) as error:
            if recording.is_new:  # it heard nothing: no empty session is left behind
                await delete_session(self._bus, recording.session)
            why = str(error) or "no answer within the time limit"
            name = recording.channel.name
            raise _refused("connect_failed", f"Discord did not let the recorder into {name}: {why}") from error
        finally:
            self._starting.discard(guild_id)
        self._ended.discard(recording)
        self._recordings[guild_id] = recording

    async def stop(self, request: StopRecording) -> Stopped:
        """End a guild's recording."""
        recording = self._find_recording(request.guild_id)
        stopped = await recording.stop(request.cause, by=request.requested_by)
        self._recordings.pop(recording.channel.guild.id, None)
        self._ended.add(recording)
        return stopped

    async def note(self, request: AddNote) -> Noted:
        """Mark a moment."""
        if not 0 < len(request.text) <= NOTE_CHARACTERS or not request.ago_s >= 0:
            raise _refused("malformed", f"A note has 1 to {NOTE_CHARACTERS} characters, and is not in the future.")
        recording = self._find_recording(request.guild_id)
        return recording.note(request.text, ago_s=request.ago_s, author=request.author, author_id=request.author_id)

    async def place_panel(self, request: PlacePanel) -> PanelPlaced:
        """Note where a running session's panel stands."""
        recording = self._find_recording(request.guild_id)
        await recording.place_panel(channel_id=request.channel_id, message_id=request.message_id)
        return PanelPlaced(session=recording.session)

    async def choose_consent(self, request: ChooseConsent) -> ConsentChosen:
        """From now on, a person is recorded or is not."""
        guild_id, user_id = _snowflake(request.guild_id), str(_snowflake(request.user_id))
        await self.guilds.choose(guild_id, user_id, request.choice)
        live = self._recordings.get(guild_id)
        past = [entry for entry in await list_entries(self._bus) if entry.guild_id == request.guild_id]
        return ConsentChosen(
            live_session=live.session if live else "",
            earlier=sum(1 for entry in past if user_id in entry.people and entry.ended_unix_ns is not None),
        )

    async def forget_person(self, request: ForgetPerson) -> Forgotten:
        """Take a person out of past sessions."""
        guild_id, user_id = str(_snowflake(request.guild_id)), str(_snowflake(request.user_id))
        return await self._forgetter.forget(guild_id, user_id, request.session)

    def _is_here(self, session: str) -> bool:
        """Whether a session is being recorded or saved here, or waits to be looked through."""
        here = (*self._recordings.values(), *self._ended)
        return session in self._home.sessions() or any(each.session == session for each in here)

    def _people_of(self, session: str) -> Container[str] | None:
        """Ids of who was in a session that is being recorded here so far."""
        return next((each.people for each in self._recordings.values() if each.session == session), None)

    def _on_guild(self, guild_id: int) -> None:
        recording = self._recordings.get(guild_id)
        if recording is not None:
            recording.on_consent()

    async def status(self, _request: AskStatus) -> Status:
        """What is being recorded."""
        return self.present()

    def present(self) -> Status:
        """How everything goes just now."""
        sessions = tuple(recording.status() for recording in self._recordings.values())
        return Status(ready=self._bot.is_ready(), sessions=sessions)

    async def _serve(self, subject: str, kind: type[R], handler: Callable[[R], Awaitable[Reply]]) -> None:
        decoder = msgspec.json.Decoder(kind)

        async def answer(data: bytes) -> bytes:
            if subject != subjects.STATUS:
                await self._until_resumed()
            return encode_reply(await _reply(decoder, handler, data))

        self._served.append(await self._bus.serve(subjects.to_shard(subject, self._shard), answer))

    async def _until_resumed(self) -> None:
        """What is asked of a recording that another capture left is answered when it goes on."""
        if self._unfinished:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESUME_S):
                    await self._resumed.wait()

    def _find_channel(self, request: StartRecording) -> VoiceChannel:
        if not self._bot.is_ready():
            raise _refused("not_ready", "The bot is still connecting to Discord; try again in a moment.")
        guild = self._bot.get_guild(_snowflake(request.guild_id))
        if guild is None:
            raise _refused("unknown_guild", f"The bot is not in a server with the id {request.guild_id}; invite it.")
        channel = guild.get_channel(_snowflake(request.channel_id))
        if not isinstance(channel, VoiceChannel):
            known = ", ".join(f"{voice.name} ({voice.id})" for voice in guild.voice_channels) or "none"
            raise _refused(
                "unknown_channel", f"{guild.name} has no voice channel {request.channel_id}; it has: {known}."
            )
        allowed = channel.permissions_for(guild.me)
        missing = [name for name in ("view_channel", "connect") if not getattr(allowed, name)]
        if missing:
            raise _refused("missing_permission", f"The bot needs {' and '.join(missing)} in {channel.name}.")
        return channel

    def _find_recording(self, guild_id: str) -> Recording:
        recording = self._recordings.get(_snowflake(guild_id))
        if recording is None or recording.ended.is_set():
            raise _refused("not_recording", f"Nothing is being recorded in the server {guild_id}.")
        return recording


async def _reply(decoder: msgspec.json.Decoder[R], handler: Callable[[R], Awaitable[Reply]], data: bytes) -> Reply:
    try:
        return await handler(decoder.decode(data))
    except msgspec.MsgspecError as error:
        return Refused(code="malformed", message=f"The request is malformed: {error}")
    except RefusedError as error:
        return error.refused
    except UnavailableError as error:
        return Refused(code="failed", message=str(error))
    except Exception:  # the top of a request: whoever asks is told, and the service goes on
        log.exception("request_failed")
        return Refused(code="failed", message="Something went wrong in capture; its log says what.")


def _snowflake(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _refused("malformed", f"{text[:40]!r} is not a Discord id: those are numbers.")
    return int(text)


def _refused(code: str, message: str) -> RefusedError:
    return RefusedError(Refused(code=code, message=message))
