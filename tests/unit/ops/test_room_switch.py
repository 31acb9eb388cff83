"""Encryption ends and begins anew in mid-call, however slow the bot is."""

from __future__ import annotations

import asyncio
from typing import Any

from ops.loopback.opcodes import Dave
from ops.loopback.plan import CallPlan, Person
from ops.loopback.room import SIGNALLING_MS, Room, RoomSpec

PEOPLE = tuple(Person(user_id=501 + n, name=name, voice=n) for n, name in enumerate(("Ada", "Bela")))
BOT = 100


class Around:
    """A server of one room."""

    def __init__(self) -> None:
        self._ssrc = 0

    def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Nobody listens."""

    def send_datagram(self, datagram: bytes, address: tuple[str, int]) -> None:
        """Nobody listens."""

    def new_ssrc(self) -> int:
        """The next one."""
        self._ssrc += 1
        return self._ssrc

    def is_hole(self, _address: tuple[str, int]) -> bool:
        """None is."""
        return False


class SilentBot:
    """A bot that never answers."""

    user_id = BOT
    address = None
    cipher = None

    def __init__(self) -> None:
        self.told: list[int] = []

    def send(self, opcode: int, _data: Any) -> None:
        """A message to it."""
        self.told.append(opcode)

    def send_binary(self, opcode: int, _payload: bytes) -> None:
        """A message to it."""
        self.told.append(opcode)


async def test_encryption_that_begins_anew_is_not_ended_by_the_switch_before():
    """The switch to version 0 is executed before the new group begins, and reaches nobody after it."""
    room = Room(RoomSpec(plan=CallPlan(people=PEOPLE, utterances=(), seconds=5.0), guild_id=1, channel_id=2), Around())
    for person in PEOPLE:
        room.join(person)
    bot = SilentBot()
    room.connect_bot(bot)
    room.downgrade()
    room.upgrade()
    assert bot.told.index(Dave.EXECUTE_TRANSITION) < bot.told.index(Dave.PREPARE_EPOCH)
    await asyncio.sleep(3 * SIGNALLING_MS[1] / 1e3)
    assert room.group is not None
    assert all(speaker.dave is not None for speaker in room.speakers.values())
