"""The recorder's end of DAVE follows the group, and who leaves is heard out."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import davey

from capture.clock import boottime_ns
from capture.voice.group import LATE_NS, GroupKeys
from ops.loopback.opcodes import Dave
from tests.dave_group import CHANNEL, CallGroup

BOT, ADA, BELA = 100, 101, 102
TIMER_NS = 1_000_000  # uvloop's timers are whole milliseconds, also of the time they begin at
FRAME = b"\x78 the last word"


class Bot:
    """The recorder in a group of official clients; what the server sends it waits until `follow`."""

    def __init__(self, call: CallGroup) -> None:
        self.client = self
        self.inbox: deque[tuple[Dave, Any]] = deque()
        self.partings: list[int] = []
        self._call = call
        self.keys = GroupKeys(
            wire=lambda: self,
            identity=lambda: (BOT, CHANNEL),
            clock=boottime_ns,
            recovered=lambda _cause: None,
            parting=lambda: self.partings.append(boottime_ns()),
        )

    def receive(self, opcode: Dave, payload: Any) -> None:
        """A message of the server's comes in."""
        self.inbox.append((opcode, payload))

    async def send_as_json(self, data: Any) -> None:
        """The recorder's answer."""
        self._call.answer(BOT, Dave(data["op"]), data["d"])

    async def send_binary(self, opcode: int, data: bytes) -> None:
        """The recorder's answer."""
        self._call.answer(BOT, Dave(opcode), data)

    async def follow(self) -> None:
        """Handle all that came, in order."""
        while self.inbox:
            opcode, payload = self.inbox.popleft()
            handle = self.keys.sent if isinstance(payload, bytes) else self.keys.said
            await handle(int(opcode), payload)

    def opens(self, user: int, frame: bytes) -> bool:
        """Whether the present keys open a frame."""
        assert self.keys.session is not None
        try:
            return self.keys.session.decrypt(user, davey.MediaType.audio, frame) == FRAME
        except ValueError:
            return False


async def joined() -> tuple[CallGroup, Bot]:
    """A call of Ada, Bela and the recorder."""
    call = CallGroup()
    call.join(ADA, BELA)
    bot = Bot(call)
    call.members[BOT] = bot  # type: ignore[assignment]  # as a member it only receives
    call.come_in(BOT)
    await bot.keys.begin(1)
    await bot.follow()
    assert bot.opens(ADA, call.members[ADA].encrypt(FRAME))
    return call, bot


async def test_who_leaves_is_heard_out():
    """The commit that takes Ada's keys away waits for her last frames; then it is followed."""
    call, bot = await joined()
    last = [call.members[ADA].encrypt(FRAME) for _ in range(2)]
    begin = boottime_ns()
    bot.keys.left()
    call.leave(ADA)
    following = asyncio.create_task(bot.follow())
    await asyncio.sleep(LATE_NS / 2e9)
    assert bot.opens(ADA, last[0])
    assert not bot.partings
    await following
    assert bot.partings[-1] - begin >= LATE_NS - TIMER_NS
    assert not bot.opens(ADA, last[1])
    assert bot.opens(BELA, call.members[BELA].encrypt(FRAME))


async def test_other_changes_do_not_wait():
    """Nobody left: a commit is followed at once, after what waits was opened."""
    call, bot = await joined()
    call.join(103)
    before = len(bot.partings)
    begin = boottime_ns()
    await bot.follow()
    assert boottime_ns() - begin < LATE_NS
    assert len(bot.partings) == before + 1
    assert bot.opens(103, call.members[103].encrypt(FRAME))
