"""A voice channel with its call: the people, the bot, the group, and the way of each packet from one to the other."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog

from ops.loopback.dave_client import DaveClient
from ops.loopback.downlink import BotConnection, Downlink
from ops.loopback.errors import MalformedMessageError
from ops.loopback.group import DaveGroup, Outgoing
from ops.loopback.journal import Journal, Kind
from ops.loopback.media import Address
from ops.loopback.members import person_member
from ops.loopback.network import NetworkConditions, Path
from ops.loopback.opcodes import Dave, Voice
from ops.loopback.permissions import Roles
from ops.loopback.plan import CallPlan, Person
from ops.loopback.speaker import Speaker

SIGNALLING_MS = (3.0, 30.0)  # a person's way to the voice gateway and back: the bot's commit wins sometimes
PROPOSE_AFTER_S = 0.02  # who joins or leaves within this time shares a commit
TRANSITION_TIMEOUT_S = 2.0  # Discord switches about 2 s after proposing even if not all are ready
SWITCH_ID = 0xFFF0  # of the transition to version 0: a number that no group reaches
CLIP_FLAGS = 2  # op 18: allows voice recording in clips
DESKTOP = 0  # op 20
CAMERA = {
    "type": "video",
    "rid": "100",
    "quality": 100,
    "active": True,
    "max_bitrate": 2_500_000,
    "max_framerate": 30,
    "max_resolution": {"type": "fixed", "width": 1280, "height": 720},
}

log = structlog.get_logger()


class RoomSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a room is made of."""

    plan: CallPlan
    guild_id: int
    channel_id: int
    name: str = "The table"
    dave: bool = True
    network: NetworkConditions = msgspec.field(default_factory=NetworkConditions)


class Surroundings(Protocol):
    """What a room needs from the server."""

    def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Tell the bot an event of the main gateway."""

    def send_datagram(self, datagram: bytes, address: Address) -> None:
        """Send to the bot's socket."""

    def new_ssrc(self) -> int:
        """An SSRC that was never used."""

    def is_hole(self, address: Address) -> bool:
        """Whether every datagram to an address vanishes."""


class Room:
    """One call; `changed` is set anew whenever somebody comes, goes or changes keys."""

    def __init__(self, spec: RoomSpec, surroundings: Surroundings) -> None:
        self.spec = spec
        self.channel_id = spec.channel_id
        self.roles = Roles(guild_id=spec.guild_id)
        self.locale = "en-US"  # of the guild
        self.bot_nick: str | None = None
        self.deleted_channels: set[int] = set()
        self.journal = Journal()
        self.speakers: dict[int, Speaker] = {}
        self.bot: BotConnection | None = None
        self.group = DaveGroup(channel_id=spec.channel_id) if spec.dave else None
        self.downlink = Downlink(
            journal=self.journal, send_datagram=surroundings.send_datagram, is_hole=surroundings.is_hole
        )
        self.suppress_op5 = False
        self.swallowed: set[Dave] = set()  # opcodes of which the next message to the bot gets lost
        self.bot_state: dict[str, Any] | None = None  # the bot's voice state, while it has one
        self._bot_reads_from = 0  # the first epoch whose keys the bot's present connection can have
        self._switch = 0  # the transition to version 0 that is under way
        self._around = surroundings
        self._rng = random.Random(f"room/{spec.plan.seed}/{spec.guild_id}")  # noqa: S311 - repeatable by design
        self._waiters: list[asyncio.Future[None]] = []
        self._signalling_at = 0.0
        self._proposing = False

    # --- who is here

    def join(self, person: Person) -> None:
        """`person` enters the channel: everybody learns, the group changes."""
        speaker = Speaker(
            person=person,
            ssrc=self._around.new_ssrc(),
            path=Path(self.spec.network, user_id=person.user_id),
            dave=self._dave_client(person.user_id),
            rng=self._rng,
            joined_ns=time.monotonic_ns(),
        )
        self.speakers[person.user_id] = speaker
        self._around.dispatch("VOICE_STATE_UPDATE", self.voice_state(person.user_id))
        if self.bot is not None:
            self._introduce(person.user_id)
        if self.group is not None:
            self._route(self.group.join(person.user_id))

    def leave(self, user_id: int) -> None:
        """A person leaves the channel."""
        del self.speakers[user_id]
        self._around.dispatch("VOICE_STATE_UPDATE", self.voice_state(user_id))
        if self.bot is not None:
            self.bot.send(Voice.CLIENT_DISCONNECT, {"user_id": str(user_id)})
        if self.group is not None:
            self._route(self.group.leave(user_id))

    def connect_bot(self, bot: BotConnection) -> None:
        """The bot's voice connection is complete: it learns who is here and takes part in the group."""
        self.bot = bot
        self._bot_reads_from = self.group.epoch + 1 if self.group is not None else 0
        if self.speakers:
            bot.send(Voice.CLIENTS_CONNECT, {"user_ids": [str(user) for user in self.speakers]})
        for user_id in self.speakers:
            self._introduce_client(user_id)
        if self.group is not None:
            self._route(self.group.join(bot.user_id))
        self._notify()

    def disconnect_bot(self, bot: BotConnection) -> None:
        """The bot's voice connection is over; nothing happens if another one took its place."""
        if self.bot is not bot:
            return
        self.bot = None
        if self.group is not None:
            self._route(self.group.leave(bot.user_id))
        self._notify()

    def voice_state(self, user_id: int) -> dict[str, Any]:
        """A person's voice state as the main gateway tells it."""
        here = user_id in self.speakers
        roles = self.roles.of_person(user_id)
        members = [person_member(person, roles) for person in self.spec.plan.people if person.user_id == user_id]
        return {
            **({"member": members[0]} if members else {}),
            "guild_id": str(self.spec.guild_id),
            "channel_id": str(self.channel_id) if here else None,
            "user_id": str(user_id),
            "session_id": f"person-{user_id}",
            **dict.fromkeys(("deaf", "mute", "self_deaf", "self_mute", "self_video", "suppress"), False),
            "request_to_speak_timestamp": None,
        }

    def move(self, channel_id: int) -> None:
        """The whole call goes to another channel: new group, new SSRCs; the bot's connection ends."""
        people = [speaker.person for speaker in self.speakers.values()]
        self.bot = None
        self.channel_id = channel_id
        self.group = DaveGroup(channel_id=channel_id) if self.spec.dave else None
        self.speakers.clear()
        for person in people:
            self.join(person)

    # --- the group

    @property
    def settled(self) -> bool:
        """The bot is connected and, with DAVE, everybody present is in one group at one epoch."""
        if self.bot is None or self.bot.address is None:
            return False
        if self.group is None or not self.speakers:
            return True
        epochs = {speaker.dave.epoch for speaker in self.speakers.values() if speaker.dave is not None}
        return self.group.settled and self.bot.user_id in self.group.members and epochs == {self.group.epoch}

    async def wait_settled(self, *, timeout_s: float) -> None:
        """Wait until `settled`; raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not self.settled:
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                await waiter

    def from_client(self, user_id: int, opcode: int, payload: Any) -> None:
        """A DAVE message from the bot or from a person."""
        group = self.group
        if opcode == Dave.READY_FOR_TRANSITION and self._switch and payload["transition_id"] == self._switch:
            self._execute_switch(self._switch)
            return
        if group is None or (user_id not in self.speakers and (self.bot is None or self.bot.user_id != user_id)):
            return
        try:
            if opcode == Dave.KEY_PACKAGE:
                self._route(group.key_package(user_id, payload))
            elif opcode == Dave.COMMIT_WELCOME:
                self._route(group.commit(user_id, payload))
            elif opcode == Dave.READY_FOR_TRANSITION:
                self._route(group.ready(user_id, payload["transition_id"]))
            elif opcode == Dave.INVALID_COMMIT_WELCOME:
                log.info("dave_invalid_commit_welcome", user_id=user_id)
        except MalformedMessageError as problem:
            log.warning("dave_message_refused", user_id=user_id, opcode=opcode, problem=str(problem))

    def _route(self, messages: list[Outgoing]) -> None:
        for message in messages:
            if self.bot is not None and message.to == self.bot.user_id:
                if message.opcode in self.swallowed:
                    self.swallowed.discard(message.opcode)
                    continue
                send = self.bot.send_binary if isinstance(message.payload, bytes) else self.bot.send
                send(message.opcode, message.payload)  # type: ignore[arg-type]  # chosen by the payload's own type
            elif (speaker := self.speakers.get(message.to)) is not None and speaker.dave is not None:
                self._after_signalling(speaker.dave.receive, message.opcode, message.payload)
        if any(message.opcode is Dave.PREPARE_EPOCH for message in messages):
            self._bot_reads_from = 0
        if self.group is not None and not self._proposing:
            self._proposing = True
            asyncio.get_running_loop().call_later(PROPOSE_AFTER_S, self._propose)
        announced = any(message.opcode in {Dave.ANNOUNCE_COMMIT, Dave.WELCOME} for message in messages)
        if self.group is not None and announced:
            loop, number = asyncio.get_running_loop(), self.group.transition_id
            loop.call_later(TRANSITION_TIMEOUT_S, self._expire, self.group, number)
        self._notify()

    def _propose(self) -> None:
        self._proposing = False
        if self.group is not None and (messages := self.group.propose()):
            self._route(messages)
        self._notify()

    def _expire(self, group: DaveGroup, transition_id: int) -> None:
        if group is self.group:
            self._route(group.expire(transition_id))

    def _after_signalling(self, act: Callable[..., None], *args: Any) -> None:
        """Run `act` after a person's network delay, in the order of calls."""
        loop = asyncio.get_running_loop()
        low, high = SIGNALLING_MS
        earliest = loop.time() + self._rng.uniform(low, high) / 1e3
        self._signalling_at = max(earliest, self._signalling_at + 1e-6)
        loop.call_at(self._signalling_at, self._act, act, *args)

    def _act(self, act: Callable[..., None], *args: Any) -> None:
        act(*args)
        self._notify()

    def downgrade(self) -> None:
        """End-to-end encryption ends in mid-call: somebody came who cannot do it."""
        if self.bot is not None and self.group is not None:
            self._switch = SWITCH_ID
            data = {"protocol_version": 0, "transition_id": SWITCH_ID}
            self.bot.send(Dave.PREPARE_TRANSITION, data)
            asyncio.get_running_loop().call_later(TRANSITION_TIMEOUT_S, self._execute_switch, SWITCH_ID)

    def upgrade(self) -> None:
        """End-to-end encryption begins in mid-call: a new group, and everybody is plain until it stands."""
        if self._switch:  # one after the other, even if the bot was too slow to answer
            self._execute_switch(self._switch)
        self.group = group = DaveGroup(channel_id=self.channel_id)
        for user_id, speaker in self.speakers.items():
            speaker.dave, speaker.plain = self._dave_client(user_id), True
        self._bot_reads_from = 0
        if self.bot is not None:
            self.bot.send(Dave.PREPARE_EPOCH, {"protocol_version": 1, "epoch": 1})
            self._route(group.join(self.bot.user_id))
        for user_id in self.speakers:
            self._route(group.join(user_id))

    def _execute_switch(self, transition_id: int) -> None:
        if self._switch != transition_id:
            return
        self._switch = 0
        self.group = None
        if self.bot is not None:
            self.bot.send(Dave.EXECUTE_TRANSITION, {"transition_id": transition_id})
        for speaker in self.speakers.values():
            self._after_signalling(self._speak_plainly, speaker, speaker.dave)

    @staticmethod
    def _speak_plainly(speaker: Speaker, ended: DaveClient | None) -> None:
        """The end of encryption reaches a person, unless it has begun anew by then."""
        if speaker.dave is ended:
            speaker.dave = None

    def _dave_client(self, user_id: int) -> DaveClient | None:
        if self.group is None:
            return None
        client: DaveClient

        def reply(opcode: Dave, payload: dict[str, Any] | bytes) -> None:
            speaker = self.speakers.get(user_id)
            if speaker is not None and speaker.dave is client:
                self.from_client(user_id, opcode, payload)

        client = DaveClient(user_id=user_id, channel_id=self.channel_id, reply=reply)
        return client

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- what the bot is told and sent

    def _introduce(self, user_id: int) -> None:
        if self.bot is not None:
            self.bot.send(Voice.CLIENTS_CONNECT, {"user_ids": [str(user_id)]})
            self._introduce_client(user_id)

    def _introduce_client(self, user_id: int) -> None:
        if self.bot is not None:
            self.bot.send(Voice.FLAGS, {"user_id": str(user_id), "flags": CLIP_FLAGS})
            self.bot.send(Voice.PLATFORM, {"user_id": str(user_id), "platform": DESKTOP})

    def announce(self, user_id: int, *, speaking: int) -> None:
        """Op 5 about a person, unless it is suppressed."""
        if self.bot is not None and not self.suppress_op5 and user_id in self.speakers:
            ssrc = self.speakers[user_id].ssrc
            self.bot.send(Voice.SPEAKING, {"user_id": str(user_id), "ssrc": ssrc, "speaking": speaking})

    def send_frame(self, user_id: int, opus: bytes, kind: Kind, due_ns: int) -> None:
        """One frame of a person sets out at `due_ns` (CLOCK_MONOTONIC); the journal knows what became of it."""
        self.downlink.send_frame(self.speakers[user_id], opus, kind, due_ns, bot=self.bot, bot_reads=self._bot_reads)

    def send_sender_report(self, user_id: int) -> None:
        """An RTCP sender report about a person's stream."""
        if self.bot is not None:
            self.downlink.send_sender_report(self.speakers[user_id], bot=self.bot)

    def _bot_reads(self, epoch: int | None) -> bool:
        """Whether the bot has the keys of `epoch`; without DAVE it needs none."""
        if self.group is None or self.bot is None or epoch is None:
            return self.bot is not None  # a frame of no epoch is plain, or was withheld
        return epoch >= self._bot_reads_from and self.bot.user_id in self.group.members_at.get(epoch, frozenset())

    def send_video_packet(self, user_id: int, payload: bytes) -> None:
        """One packet of a person's camera, as announced by `send_video`."""
        if self.bot is not None:
            speaker = self.speakers[user_id]
            self.downlink.send_video(speaker, speaker.ssrc + 1, payload, bot=self.bot)

    def send_video(self, user_id: int) -> None:
        """Op 12: a person's camera is on."""
        if self.bot is not None:
            ssrc = self.speakers[user_id].ssrc
            stream = {"ssrc": ssrc + 1, "rtx_ssrc": ssrc + 2, **CAMERA}
            self.bot.send(
                Voice.VIDEO,
                {"user_id": str(user_id), "audio_ssrc": ssrc, "video_ssrc": ssrc + 1, "streams": [stream]},
            )
