"""A DAVE group of real davey sessions, whose external sender is the loopback's: keys for tests of the packet path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import davey

from ops.loopback.dave_client import DaveClient
from ops.loopback.group import DaveGroup, Outgoing
from ops.loopback.opcodes import Dave

CHANNEL = 222


class Member:
    """One session: the recorder's answers as discord.py does, anybody else's as an official client."""

    def __init__(self, user_id: int, group: CallGroup) -> None:
        self.client = DaveClient(
            user_id=user_id, channel_id=CHANNEL, reply=lambda op, data: group.answer(user_id, op, data)
        )

    @property
    def session(self) -> davey.DaveSession:
        """Davey's own."""
        return self.client._session

    def encrypt(self, opus: bytes) -> bytes:
        """The end-to-end encrypted frame."""
        return self.client.encrypt(opus)


class CallGroup:
    """Members join and leave; messages between them and the server are passed on at once, until all is settled."""

    def __init__(self) -> None:
        self.group = DaveGroup(channel_id=CHANNEL)
        self.members: dict[int, Member] = {}
        self._queue: list[Outgoing] = []
        self._busy = False

    def join(self, *user_ids: int) -> None:
        """They come in together, as when a call begins."""
        for user_id in user_ids:
            self.members[user_id] = Member(user_id, self)
        self.come_in(*user_ids)

    def come_in(self, *user_ids: int) -> None:
        """They come in; their sessions stand among the `members`."""
        self._pass(message for user_id in user_ids for message in self.group.join(user_id))

    def leave(self, user_id: int) -> None:
        """One goes; the others get new keys."""
        del self.members[user_id]
        self._pass(self.group.leave(user_id))

    def answer(self, user_id: int, opcode: Dave, payload: Any) -> None:
        """A member's message to the server."""
        if opcode is Dave.KEY_PACKAGE:
            self._pass(self.group.key_package(user_id, payload))
        elif opcode is Dave.COMMIT_WELCOME:
            self._pass(self.group.commit(user_id, payload))
        elif opcode is Dave.READY_FOR_TRANSITION:
            self._pass(self.group.ready(user_id, payload["transition_id"]))

    def _pass(self, messages: Iterable[Outgoing]) -> None:
        self._queue += messages
        if self._busy:
            return
        self._busy = True
        while self._queue or self._propose():
            message = self._queue.pop(0)
            if message.to in self.members:
                self.members[message.to].client.receive(message.opcode, message.payload)
        self._busy = False

    def _propose(self) -> bool:
        self._queue += self.group.propose()
        return bool(self._queue)


class Line:
    """What the packet path reads of a connection, for a recorder whose session is one of a group's, or none yet."""

    def __init__(self, session: davey.DaveSession | None = None, *, encrypted: bool = True) -> None:
        self.plain_allowed = not encrypted
        self.earlier_session: davey.DaveSession | None = None
        self.session = session
        self.named: dict[int, int] = {}
        self.mode = "aead_xchacha20_poly1305_rtpsize"
        self.key = bytes(range(32))
        self.own_ssrc = 1
        self.video: set[int] = set()
        self.own_user = 0
        self.keys_changed_ns = 0

    def unclaimed(self) -> list[int]:
        """Members without an SSRC."""
        users = [] if self.session is None else [int(user) for user in self.session.get_user_ids()]
        return [user for user in users if user != self.own_user and user not in self.named.values()]

    def user_of(self, ssrc: int) -> int | None:
        """As the gateway said."""
        return self.named.get(ssrc)

    def is_video(self, ssrc: int) -> bool:
        """As the gateway said."""
        return ssrc in self.video
