"""Many rooms that talk all at once, cheaply: real keys, real encryption, real datagrams; no plan and no journal.

A frame costs its sender about what it costs the recorder, so that one process can fill hundreds of rooms. The frames
are one recording's, shared by everybody; each person begins somewhere else in it. Each is sent in its own twentieth of
the 20 ms, so that the network is as even as that of people who do not know each other.

Run as a process of its own (`python -m ops.loopback.crowd`), it reads commands from stdin and answers each with a line
of JSON; see `main`.
"""

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from contracts.shards import SNOWFLAKE_TIME_BITS
from ops.loopback import rtp
from ops.loopback.network import NetworkConditions
from ops.loopback.plan import CallPlan, Person
from ops.loopback.room import Room, RoomSpec
from ops.loopback.server import LoopbackDiscord
from ops.loopback.speaker import Speaker
from ops.loopback.talk import SPEAKING
from ops.loopback.voices import voice

FIRST_GUILD: Final = 100_000_000_000_000_000
FIRST_CHANNEL: Final = 110_000_000_000_000_000
FIRST_PERSON: Final = 300_000_000_000_000_000
PEOPLE_PER_ROOM: Final = 1_000  # ids set aside
SLOTS: Final = 20
SLOT_S: Final = 0.001
FRAME_S: Final = 0.02
SILENCE_FRAMES: Final = 5
LEVEL_DBOV: Final = 30
SETTLE_TIMEOUT_S: Final = 120.0
COMMANDS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("/record status", {}),
    ("/record note", {"text": "a moment"}),
    ("/record list", {}),
    ("/record optin", {}),
)


class CrowdSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How many rooms, and how many people speak in one on average."""

    rooms: int
    speakers: float

    def specs(self) -> Iterator[RoomSpec]:
        """Each room with the people who speak in it; together as many as `rooms * speakers`."""
        for number in range(self.rooms):
            count = int((number + 1) * self.speakers) - int(number * self.speakers)
            first = FIRST_PERSON + number * PEOPLE_PER_ROOM
            people = tuple(Person(user_id=first + each, name=f"Person {each + 1}") for each in range(max(1, count)))
            yield RoomSpec(
                plan=CallPlan(people=people, utterances=(), seconds=0.0, seed=number),
                guild_id=FIRST_GUILD + (number << SNOWFLAKE_TIME_BITS),  # each on the next shard
                channel_id=FIRST_CHANNEL + number * 10_000,
                name=f"Room {number + 1}",
                network=NetworkConditions(padding=0.0, padding_only=0.0),
            )


class Voice:
    """One person who speaks without a pause."""

    def __init__(self, room: Room, speaker: Speaker, frames: Iterator[bytes]) -> None:
        self._room = room
        self._speaker = speaker
        self._frames = frames
        self._elements = rtp.voice_elements(LEVEL_DBOV)
        self._preamble = rtp.extension_preamble(self._elements)

    def datagram(self, now_ns: int) -> bytes | None:
        """The next frame, sealed for the recorder; None if nobody listens or there is no key."""
        speaker, bot = self._speaker, self._room.bot
        if bot is None or bot.cipher is None or speaker.dave is None or speaker.dave.epoch is None:
            return None
        header = speaker.peek(now_ns)._replace(extension=True)
        frame = speaker.dave.encrypt(next(self._frames))
        speaker.count(len(frame))
        return bot.cipher.seal(header.pack() + self._preamble, self._elements + frame)

    def silence(self, now_ns: int) -> bytes | None:
        """A silence frame, as five of them end a talkspurt."""
        bot = self._room.bot
        if bot is None or bot.cipher is None:
            return None
        header = self._speaker.peek(now_ns)
        self._speaker.count(len(rtp.SILENCE))
        return bot.cipher.seal(header.pack(), rtp.SILENCE)

    def send(self, datagram: bytes | None, server: LoopbackDiscord) -> bool:
        """Send it to the recorder; whether it went."""
        bot = self._room.bot
        if datagram is None or bot is None or bot.address is None:
            return False
        server.send_datagram(datagram, bot.address)
        return True


class Crowd:
    """Everybody in every room.

    Attributes
    ----------
    late_s
        By how much the slowest frame missed its time: a crowd that is late does not load as much as it says.
    """

    def __init__(self, server: LoopbackDiscord) -> None:
        self._server = server
        self.late_s = 0.0

    async def settle(self) -> None:
        """Wait until the recorder is in every room's group; raises TimeoutError."""
        for room in self._server.rooms.values():
            await room.wait_settled(timeout_s=SETTLE_TIMEOUT_S)

    async def talk(self, *, seconds: float) -> dict[int, int]:
        """Everybody speaks for so long; how many packets were sent, by guild."""
        recording = await asyncio.to_thread(lambda: voice(0).frames)
        sent = dict.fromkeys(self._server.rooms, 0)
        voices = [(guild, each) for guild, room in self._server.rooms.items() for each in _voices(room, recording)]
        slots = [voices[number::SLOTS] for number in range(SLOTS)]
        start, frames = time.monotonic(), round(seconds / FRAME_S)
        for frame in range(frames + SILENCE_FRAMES):
            for number, slot in enumerate(slots):
                await self._until(start + frame * FRAME_S + number * SLOT_S)
                now_ns = time.monotonic_ns()
                for guild, each in slot:
                    data = each.datagram(now_ns) if frame < frames else each.silence(now_ns)
                    sent[guild] += each.send(data, self._server)
        return sent

    async def use(self, *, seconds: float, per_s: float) -> list[float | None]:
        """People use commands, room after room; how long the bot's first answer to each took, None if none came."""
        rooms, uses = list(self._server.rooms.values()), []
        start = time.monotonic()
        for number in range(round(seconds * per_s)):
            await asyncio.sleep(max(0.0, start + number / per_s - time.monotonic()))
            room = rooms[number % len(rooms)]
            person = room.spec.plan.people[0]
            client = self._server.person(person.user_id, guild_id=room.spec.guild_id)
            command, options = COMMANDS[number % len(COMMANDS)]
            uses.append(await client.types(command, **options))
        await asyncio.gather(*(use.acknowledged() for use in uses), return_exceptions=True)
        return [use.made.answered_s for use in uses]

    async def _until(self, due_s: float) -> None:
        wait_s = due_s - time.monotonic()
        self.late_s = max(self.late_s, -wait_s)
        await asyncio.sleep(max(wait_s, 0.0))


def _voices(room: Room, recording: Sequence[bytes]) -> Iterator[Voice]:
    for number, (user_id, speaker) in enumerate(room.speakers.items()):
        room.announce(user_id, speaking=SPEAKING)
        start = (room.spec.guild_id * 37 + number * 101) % len(recording)
        yield Voice(room, speaker, itertools.islice(itertools.cycle(recording), start, None))


async def serve(spec: CrowdSpec, directory: Path) -> None:
    """Answer commands on stdin until it ends."""
    first, *more = spec.specs()
    server = LoopbackDiscord(
        plan=first.plan,
        guild_id=first.guild_id,
        channel_id=first.channel_id,
        network=first.network,
        more_rooms=more,
        directory=directory,
    )
    async with server:
        crowd = Crowd(server)
        rooms = [(str(room.spec.guild_id), str(room.spec.channel_id)) for room in server.rooms.values()]
        _say({"environ": server.environ, "rooms": rooms})
        while command := await asyncio.to_thread(sys.stdin.readline):
            await _obey(crowd, json.loads(command))


async def _obey(crowd: Crowd, command: dict[str, Any]) -> None:
    match command:
        case {"settle": _}:
            await crowd.settle()
            _say({"settled": True})
        case {"talk": seconds, "use": per_s}:
            sent, used = await asyncio.gather(crowd.talk(seconds=seconds), crowd.use(seconds=seconds, per_s=per_s))
            _say({"sent": {str(guild): count for guild, count in sent.items()}, "late_s": crowd.late_s, "used": used})
        case {"talk": seconds}:
            sent = await crowd.talk(seconds=seconds)
            _say({"sent": {str(guild): count for guild, count in sent.items()}, "late_s": crowd.late_s})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """One argument, a CrowdSpec as JSON.

    First comes `{"environ": ..., "rooms": [[guild, channel], ...]}`; then `{"settle": true}` is answered when the
    recorder is in every room, and `{"talk": seconds}` with what was sent by guild; with `"use": per_s`, people use
    commands meanwhile, and `used` says how long each answer took. The end of stdin is the end.
    """
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for answers alone
    spec = msgspec.json.decode(sys.argv[1], type=CrowdSpec)
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(serve(spec, Path(directory)))


if __name__ == "__main__":
    main()
