"""One session from start to stop: its lease and log, its call, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Container
from typing import Final

import structlog

from capture.call import HANDED_OVER, Call, VoiceChannel
from capture.clock import SessionClock, boot_id
from capture.consent import Consent, ConsentLog
from capture.notice import notice, say, tone
from capture.recovery import Standing
from capture.spool import Spool
from capture.writer import SessionWriter
from contracts.commands import LiveSession, Noted, Stopped
from contracts.errors import RetoldError, UnavailableError
from contracts.events import (
    NoteAdded,
    NoticeSpoken,
    PanelPosted,
    SessionEnded,
    SessionStarted,
    TakeClosed,
    count_outcomes,
)
from contracts.jetstream.connection import Bus
from contracts.recipes import Recipe

log = structlog.get_logger()

DRAIN_TIMEOUT_S: Final = 60.0
LEAVE_TIMEOUT_S: Final = 5.0  # of an answer; the leaving itself goes on
RECORDER: Final = "retold"


class Recording:
    """A running session.

    Parameters
    ----------
    session
        Its id.
    channel
        The voice channel to join.
    spool
        Where its messages are written down before they are sent.
    owner
        This capture, as its lease names it.
    consent
        Whose speech may be written; it changes in mid-call, see `on_consent`.
    name, started_by, panel_channel_id
        As asked for.
    mix
        What to make of it at the end, besides the default mix and tracks.
    speaks
        Whether `announce` or `sound_tone` will be called: a muted recorder is not heard.
    standing
        Where it stood when an earlier capture died; None = it is new.

    Attributes
    ----------
    call
        What listens to the voice connection.
    ended
        Set when the session is over and durable.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        session: str,
        channel: VoiceChannel,
        spool: Spool,
        owner: str,
        consent: Consent,
        name: str = "",
        started_by: str | None = None,
        panel_channel_id: str | None = None,
        mix: Recipe | None = None,
        speaks: bool = False,
        standing: Standing | None = None,
    ) -> None:
        self.session = session
        self._name = name
        self._started_by = started_by
        self._panel_channel_id = panel_channel_id
        self._mix = mix
        self._speaks = speaks
        self._standing = standing
        self._clock = SessionClock.start() if standing is None else standing.clock()
        self._writer = SessionWriter(
            bus,
            session,
            spool=spool,
            owner=owner,
            clock=self._clock,
            entry=standing.entry if standing else None,
            on_fenced=self.fence,
        )
        self.ended = self._writer.ended
        self._consent = consent
        self._consent_log = ConsentLog(
            consent,
            self._writer,
            mode=standing.consent if standing else "notice",
            withheld=standing.withheld if standing else {},
        )
        self.call = Call(
            channel,
            writer=self._writer,
            clock=self._clock,
            consent=consent,
            consent_log=self._consent_log,
            standing=standing,
            closed=self._on_closed,
        )
        self._stopping = self._fenced = False
        self._stopped: Stopped | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._last_note = ""

    @property
    def channel(self) -> VoiceChannel:
        """Where the recorder is: it may be moved."""
        return self.call.channel

    async def start(self) -> None:
        """Join the channel and record, or go on with what an earlier capture began.

        Raises
        ------
        LeaseHeldError
            If another capture has this session; nothing was written.
        discord.ClientException, discord.ConnectionClosed, TimeoutError
            If Discord did not let us in; the session is ended with that cause.
        """
        try:
            await self._writer.open()
        except RetoldError:
            self._fenced = True
            await (self.erase() if self.is_new else self.close())
            self.ended.set()
            raise
        try:
            if self._standing is None:
                self._write_start()
            else:
                self._write_return(self._standing)
            self._consent_log.update(())
            await self._writer.save_entry()
            await self.call.join(self_mute=not self._speaks)
        except BaseException:
            await self.stop("connect_failed" if self._standing is None else "interrupted")
            raise
        log.info("recording_started", session=self.session, guild=str(self.channel.guild.id))

    def _write_start(self) -> None:
        self._writer.write(
            SessionStarted,
            at_ns=0,
            guild_id=str(self.channel.guild.id),
            guild_name=self.channel.guild.name,
            channel_id=str(self.channel.id),
            channel_name=self.channel.name,
            name=self._name,
            started_by=self._started_by,
            boot_id=boot_id(),
            boottime_ns=self._clock.zero_boottime_ns,
            recorder=RECORDER,
            mix=self._mix,
        )

    def _write_return(self, standing: Standing) -> None:
        """Say where the take that nobody closed ended; the next one opens with the connection."""
        if standing.open_take is not None:
            self._writer.write(TakeClosed, at_ns=standing.last_ns, take=standing.open_take, cause="capture_died")

    def fence(self) -> None:
        """Another capture records this session: leave it to that one, without another word to the log or to Discord."""
        if self._fenced:
            return
        self._stopping = self._fenced = True
        self.call.abandon()
        self._stopped = Stopped(session=self.session, duration_s=0.0, recorded=0, undecryptable=0, lost=0)
        self._leaving = asyncio.create_task(self._leave_to_another())

    async def _leave_to_another(self) -> None:
        await self.close()
        self.ended.set()
        await self.call.vanish()

    async def left(self) -> None:
        """Wait until the recorder has left the call, if it is leaving."""
        if self._leaving is not None:
            await asyncio.shield(self._leaving)

    async def stop(self, cause: str, *, by: str | None = None, patience_s: float = DRAIN_TIMEOUT_S) -> Stopped:
        """Write the end, and leave; every packet is durable when this returns.

        The end does not wait for Discord, which lets a bot say only so much a minute: see `left`.

        Raises
        ------
        UnavailableError
            If the server did not take everything in `patience_s` seconds; it is still being sent.
        """
        stopped = self._end(cause, by)
        try:
            async with asyncio.timeout(patience_s):
                await self.ended.wait()
        except TimeoutError as error:
            raise UnavailableError(
                f"the recording has ended, but {self._writer.unacked} messages are not in the log yet: no NATS. "
                "They are on this machine's disk, and go there as soon as it is back."
            ) from error
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self.left()
        return stopped

    async def hand_over(self, *, patience_s: float) -> None:
        """Close the take and leave, but not the session: the next capture goes on in it, in its next take.

        Raises
        ------
        UnavailableError
            If the server did not take everything in `patience_s` seconds; it is on this machine's disk.
        """
        if self._stopped is not None:  # it has ended meanwhile
            await self.stop("shutdown", patience_s=patience_s)
            return
        self._stopping = True
        self.call.end(HANDED_OVER)
        self._leaving = asyncio.create_task(self.call.leave())
        log.info("recording_handed_over", session=self.session)
        try:
            await self._writer.hand_over(timeout_s=patience_s)
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await self.left()

    def on_consent(self) -> None:
        """The rule or somebody's choice changed: it holds from now on, also for what is not sent yet."""
        if not self._stopping:
            self.call.on_consent()

    def note(self, text: str, *, ago_s: float, author: str, author_id: str | None = None) -> Noted:
        """Mark a moment `ago_s` seconds before now."""
        at_ns = max(0, self._clock.now_ns() - round(ago_s * 1e9))
        self._writer.write(NoteAdded, at_ns=at_ns, text=text, author=author, author_id=author_id)
        self._last_note = text
        return Noted(session=self.session, at_s=at_ns / 1e9)

    def status(self) -> LiveSession:
        """How it goes."""
        return LiveSession(
            session=self.session,
            guild_id=str(self.channel.guild.id),
            elapsed_s=self._clock.now_ns() / 1e9,
            packets=count_outcomes(self.call.tracks()),
            saved_up_to_s=self._saved_up_to_ns() / 1e9,
            consent=self._consent.mode,
            last_note=self._last_note,
            **self.call.state(),
            **self._writer.state(),
            **self._writer.about(panel_channel_id=self._panel_channel_id),
        )

    @property
    def people(self) -> Container[str]:
        """Ids of who was there so far."""
        return self._writer.people

    async def announce(self, language: str) -> None:
        """Say into the call that it is being recorded; a fact says that it was said."""
        if self.call.voice is None or not self._speaks:
            return
        said = await say(self.call.voice, notice(language))
        if said and not self._stopping:
            self._writer.write(NoticeSpoken, language=language)

    async def sound_tone(self) -> None:
        """Remind everybody in the call that it is being recorded."""
        if self.call.voice is not None and self._speaks and not self._stopping:
            await say(self.call.voice, tone())

    async def place_panel(self, *, channel_id: str, message_id: str) -> None:
        """Note where the message that shows this session stands."""
        self._writer.write(PanelPosted, channel_id=channel_id, message_id=message_id)
        await self._writer.save_entry()

    def tick(self, now_ns: int) -> None:
        """Let what waits time out, and look after the connection; `now_ns` on CLOCK_BOOTTIME."""
        self.call.tick(now_ns)

    def _on_closed(self, cause: str) -> None:
        """End the session: the connection ended by itself."""
        if not self._stopping:
            log.warning("voice_connection_ended", session=self.session, cause=cause)
            self._end(cause)

    def _end(self, cause: str, by: str | None = None) -> Stopped:
        """What this session was; its end is written once, whoever asks for it first."""
        if self._stopped is not None:
            return self._stopped
        self._stopping = True
        self.call.end(cause)
        tracks = self.call.tracks()
        ended = self._writer.write(SessionEnded, cause=cause, tracks=tracks, ended_by=by, ignored=self.call.ignored)
        self._writer.retire()
        self._leaving = asyncio.create_task(self.call.leave())
        totals = count_outcomes(tracks)
        log.info("recording_ended", session=self.session, cause=cause, duration_s=ended.at_ns / 1e9, **totals)
        self._stopped = Stopped(
            session=self.session,
            duration_s=ended.at_ns / 1e9,
            recorded=totals["recorded"],
            undecryptable=totals["undecryptable"],
            lost=totals["lost"],
        )
        return self._stopped

    async def close(self) -> None:
        """Leave the spool as it is, for the next start to look through: this process ends."""
        await self._writer.close()

    async def erase(self) -> None:
        """Somebody erased the session: the spool's copy goes at once, and nothing is sent any more."""
        await self._writer.erase()

    @property
    def is_new(self) -> bool:
        """Whether it goes on with no earlier capture's session."""
        return self._standing is None

    @property
    def retired(self) -> bool:
        """Whether nothing of it is left here."""
        over = self._writer.retired or (self._fenced and self.ended.is_set())
        return over and (self._leaving is None or self._leaving.done())

    def _saved_up_to_ns(self) -> int:
        """The session clock up to which everything heard is in the log."""
        marks = (self._writer.oldest_mark_ns, self.call.oldest_ns)
        return min((mark for mark in marks if mark is not None), default=self._clock.now_ns())
