"""The recorder's side of one session's call: its connection, its takes, who is there, and the facts of them.

A session has one call; the call has a take for each connection to Discord, one after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import discord

from capture.clock import SessionClock, boottime_ns
from capture.consent import Consent, ConsentLog
from capture.continuity import Continuity
from capture.recovery import Standing
from capture.roster import Newcomer, Roster
from capture.speakers import SpeakerMeter, merge_states
from capture.take import NOTHING_YET, Take
from capture.voice.client import RecordingVoiceClient
from capture.voice.live import LiveConnection
from capture.writer import SessionWriter
from contracts.commands import LiveSpeaker
from contracts.events import (
    EpochChanged,
    SenderReported,
    SpeakerIdentified,
    SpeakerJoined,
    SpeakerLeft,
    TakeClosed,
    TakeOpened,
    TrackCount,
)

CONNECT_TIMEOUT_S: Final = 20.0
HANDED_OVER: Final = "handed_over"  # cause: this capture left in order, and the next one goes on

VoiceChannel = discord.VoiceChannel | discord.StageChannel


class Call:
    """Listens to the connection (`capture.voice.client.Listener`), and writes down what happens on it.

    Parameters
    ----------
    channel
        The voice channel to join.
    writer
        Of the session; what is written goes to its log.
    consent, consent_log
        Whose speech may be written, and where a change of that is noted.
    standing
        Where the session stood when an earlier capture died; None = it is new.
    closed
        Called with the cause when the connection ended by itself, for good.

    Attributes
    ----------
    channel
        Where the recorder is: it may be moved.
    voice
        The connection; None = not joined yet.
    """

    def __init__(
        self,
        channel: VoiceChannel,
        *,
        writer: SessionWriter,
        clock: SessionClock,
        consent: Consent,
        consent_log: ConsentLog,
        standing: Standing | None,
        closed: Callable[[str], None],
    ) -> None:
        self.channel = channel
        self.voice: RecordingVoiceClient | None = None
        self._writer = writer
        self._clock = clock
        self._consent = consent
        self._consent_log = consent_log
        self._tell_closed = closed
        self._continuity = Continuity(writer=writer, clock=clock)
        if standing is not None:
            why = HANDED_OVER if standing.open_take is None else "capture_died"
            self._continuity.resumed(why, from_ns=standing.last_ns)
        self._last_take = standing.last_take if standing else 0
        self._earlier: list[TrackCount] = list(standing.tracks) if standing else []  # of takes that are closed
        self._live: LiveConnection | None = None
        self._take: Take | None = None
        self._epoch: tuple[int, int] = (0, 0)
        self._roster = Roster(channel.guild, self._on_joined)
        self._meter = SpeakerMeter()
        self._ignored: Counter[str] = Counter()
        self._privacy_code = ""
        self._bytes = 0
        self._over = False

    async def join(self, *, self_mute: bool) -> None:
        """Connect; `on_connected` opens the first take.

        Raises
        ------
        discord.ClientException, discord.ConnectionClosed, TimeoutError
            If Discord did not let us in.
        """
        await self.channel.connect(cls=self._make_client, timeout=CONNECT_TIMEOUT_S, self_mute=self_mute)

    async def leave(self) -> None:
        """Disconnect."""
        if self.voice is not None:
            await self.voice.disconnect(force=True)

    async def vanish(self) -> None:
        """Drop the connection, and do not ask Discord to let us go: another capture is in the call, as the same bot."""
        if self.voice is not None:
            await self.voice.vanish()

    def end(self, cause: str) -> None:
        """Close the take with all that arrived until now; nothing that comes on the connection after this counts."""
        if self.voice is not None:
            self.voice.catch_up()  # sockets are read some 50 times a second: the last frame may be unread
        self._over = True
        self._close_take(cause)

    def abandon(self) -> None:
        """Drop the take without a word: the session is another capture's."""
        self._over = True
        self._take = None

    def on_consent(self) -> None:
        """The rule or somebody's choice changed: it holds from now on, also for what is not sent yet."""
        if self._take is not None:
            self._take.settle()
        self._consent_log.update(self._roster.present)

    def tick(self, now_ns: int) -> None:
        """Let what waits time out, and look after the connection."""
        take = self._take
        if take is not None:
            if take.tap.waits and self.voice is not None:
                self.voice.catch_up()  # after a stall of ours, what seems missing is unread
            take.tick(now_ns)
            self._watch_epoch(take)
            self._roster.tick(now_ns=self._clock.at_ns(now_ns))
            self._meter.tick(take, now_ns)
        if self._live is not None and take is not None:
            self._continuity.encrypted(self._live.dave_version)
        if self.voice is not None and not self._over:
            self.voice.tick(now_ns, waiting_since_ns=take.tap.held_since_ns if take else None)

    def state(self) -> dict[str, Any]:
        """What `LiveSession` says of it."""
        take = self._take
        last_ns = take.last_audio_ns if take else None
        return {
            "channel_id": str(self.channel.id),
            "take": take.number if take else 0,
            "held_packets": take.tap.held if take else 0,
            "dave_version": self._live.dave_version if self._live else 0,
            "dave_ready": self._live is None or self._live.has_keys,
            "dave_epoch": self._epoch[1],
            "room": self.channel.name,
            "guild_name": self.channel.guild.name,
            "unheard_s": self.voice.unheard_s(boottime_ns()) if self.voice is not None else None,
            "last_packet_age_s": None if last_ns is None else (boottime_ns() - last_ns) / 1e9,
            "speakers": self._speakers(take) if take else (),
            "deafened": self._continuity.deaf,
            "privacy_code": self._privacy_code,
            "bytes": self._bytes + (take.bytes if take else 0),
        }

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest packet that is not written yet was heard, on the session clock; None = there is none."""
        return self._take.oldest_ns if self._take else None

    @property
    def ignored(self) -> dict[str, int]:
        """Datagrams that are not in the log, by reason, in the takes that are closed."""
        return dict(self._ignored)

    def tracks(self) -> tuple[TrackCount, ...]:
        """What each SSRC of each take brought so far."""
        return (*self._earlier, *(self._take.counts() if self._take else ()))

    def on_parting(self) -> None:
        """Open what waits of those whose keys are about to go."""
        if self._take is not None:
            self._take.tap.settle(boottime_ns())

    def on_datagram(self, data: bytes, arrival_ns: int) -> None:
        """Take a datagram of the voice connection."""
        if self._take is not None:
            self._take.datagram(data, arrival_ns)
        else:
            self._ignored["before_take"] += 1

    def on_connected(self) -> None:
        """Open the next take: a new connection has its own SSRCs, key and group."""
        if self.voice is None or self._over:
            return
        self._close_take("reconnect")
        self.channel = self.voice.channel  # maybe another: we were moved
        self._last_take += 1
        self._live = live = LiveConnection(self.voice)
        self._take = Take(
            number=self._last_take,
            zero_ns=self._clock.zero_boottime_ns,
            connection=live,
            publish=self._writer.publish,
            identified=lambda ssrc, user_id: self._identify(user_id, ssrc, "key"),
            consent=self._consent,
            reported=self._note_report,
        )
        self._meter = SpeakerMeter()
        self._roster = Roster(self.channel.guild, self._on_joined)
        self._writer.write(
            TakeOpened,
            take=self._take.number,
            cause=self._continuity.cause_of(self.channel.id),
            channel_id=str(self.channel.id),
            ssrc=live.own_ssrc,
            mode=live.mode,
            dave_version=live.dave_version,
        )
        self._continuity.opened(self._take.number, channel_id=self.channel.id, dave_version=live.dave_version)

    def on_lost(self, cause: str, deaf_since_ns: int) -> None:
        """Close the take: the next connection has another."""
        if not self._over:
            self._close_take(cause)
            self._continuity.lost(cause, deaf_since_ns)

    def on_deafened(self, deafened: bool) -> None:  # noqa: FBT001  # as told
        """Note what a moderator did."""
        self._continuity.deafened(deafened)

    def on_recovery(self, action: str, cause: str) -> None:
        """Note what was done about a fault."""
        self._continuity.recovered(action, cause)

    def on_present(self, user_id: int) -> None:
        """Note who is there."""
        if self._take is not None:
            self._roster.add(user_id, at_ns=self._clock.now_ns())

    def on_left(self, user_id: int) -> None:
        """Note who left."""
        if self._take is not None and self._roster.remove(user_id):
            self._writer.write(SpeakerLeft, take=self._take.number, user_id=str(user_id))

    def on_ssrc(self, user_id: int, ssrc: int) -> None:
        """Note whose SSRC the gateway says it is."""
        if self._take is not None and user_id != self.channel.guild.me.id:
            self.on_present(user_id)
            self._identify(user_id, ssrc, "gateway")

    def on_closed(self, cause: str) -> None:
        """Tell that the connection ended by itself."""
        if not self._over:
            self._tell_closed(cause)

    def _make_client(self, client: discord.Client, channel: discord.abc.Connectable) -> RecordingVoiceClient:
        assert isinstance(channel, VoiceChannel)  # noqa: S101  # discord.py passes the one that we connect to
        self.voice = RecordingVoiceClient(client, channel, self)
        return self.voice

    def _close_take(self, cause: str) -> None:
        if self._take is not None:
            self._take.finish()
            self._roster.flush()
            self._writer.write(TakeClosed, take=self._take.number, cause=cause)
            self._earlier += self._take.counts()
            self._ignored += self._take.tap.ignored + Counter(withheld=self._take.withheld)
            self._bytes += self._take.bytes
            self._take = None

    def _speakers(self, take: Take) -> tuple[LiveSpeaker, ...]:
        states: dict[int | None, list[str]] = {user_id: [] for user_id in self._roster.present}
        for ssrc, state in self._meter.states.items():
            owner = take.named.get(ssrc)
            if owner is None or owner in states:  # else they have left
                states.setdefault(owner, []).append(state)
        heard = take.by_speaker()
        return tuple(
            LiveSpeaker(
                user_id=str(user_id),
                name=self._roster.name_of(user_id),
                state=self._consent.refusal(user_id) or merge_states(own),
                **heard.get(user_id, NOTHING_YET),
            )
            if user_id is not None
            else LiveSpeaker(state=merge_states(own))
            for user_id, own in states.items()
        )

    def _on_joined(self, newcomer: Newcomer) -> None:
        if self._take is None:
            return
        self._writer.write(
            SpeakerJoined,
            at_ns=newcomer.at_ns,
            take=self._take.number,
            user_id=str(newcomer.user_id),
            name=newcomer.name,
            bot=newcomer.bot,
        )
        self._consent_log.update(self._roster.present)

    def _identify(self, user_id: int, ssrc: int, by: str) -> None:
        if self._take is None or self._take.named.get(ssrc) == user_id:
            return
        self._take.named[ssrc] = user_id
        self._writer.write(
            SpeakerIdentified,
            take=self._take.number,
            ssrc=ssrc,
            user_id=str(user_id),
            name=self._roster.name_of(user_id),
            by=by,
        )

    def _note_report(self, ssrc: int, raw: bytes, arrival_ns: int) -> None:
        owner = self._take.owner(ssrc) if self._take is not None else None
        withheld = owner is not None and not self._consent.allows(owner)
        if self._take is not None and not withheld:
            at_ns = self._clock.at_ns(arrival_ns)
            self._writer.write(SenderReported, at_ns=at_ns, take=self._take.number, ssrc=ssrc, raw=raw)

    def _watch_epoch(self, take: Take) -> None:
        session = self._live.session if self._live else None
        if session is None or not session.ready or self._live is None:
            return
        epoch = (take.number, int(session.epoch or 0))
        if epoch != self._epoch:
            self._epoch = epoch
            self._privacy_code = session.voice_privacy_code or ""
            self._writer.write(
                EpochChanged,
                take=take.number,
                epoch=epoch[1],
                dave_version=self._live.dave_version,
                members=tuple(sorted(session.get_user_ids())),
                privacy_code=self._privacy_code,
            )
