"""The recorder's end of DAVE: follows the encrypted group through its epochs, and through its coming and going.

    21 prepare transition   22 execute   24 prepare epoch (1: a new group)        JSON, from the server
    25 external sender   27 proposals   29 commit announced   30 welcome          binary, from the server
    23 ready   31 invalid commit or welcome                                       JSON, to the server
    26 key package   28 commit and welcome                                        binary, to the server

discord.py resets its one session in place, which forgets every key; frames that were under way are lost. Here a new
group is a new session, and the earlier one stays for as long as old keys live. Between the versions of the protocol
plain frames are voice, from the moment the switch is prepared until late ones cannot come any more.

With a commit, the keys of those who left are gone. Their last frames may still be under way, so a commit that comes
right after somebody left has to wait for them: LATE_NS after the leaving, of the two seconds that Discord gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import davey
import structlog

log = structlog.get_logger()

PREPARE_TRANSITION, EXECUTE_TRANSITION, READY_FOR_TRANSITION, PREPARE_EPOCH = 21, 22, 23, 24
EXTERNAL_SENDER, KEY_PACKAGE, PROPOSALS, COMMIT_WELCOME = 25, 26, 27, 28
ANNOUNCE_COMMIT, WELCOME, INVALID_COMMIT_WELCOME = 29, 30, 31
DAVE_JSON_OPS: Final = frozenset({PREPARE_TRANSITION, EXECUTE_TRANSITION, PREPARE_EPOCH})
NEW_GROUP: Final = 1  # the epoch that means: start over
OLD_KEYS_NS: Final = 10_000_000_000  # senders' old keys, and their plain frames around a switch, live so long
LATE_NS: Final = 250_000_000  # after somebody left: jitter of 60 ms, a late datagram 60 ms more, and a busy moment
RECOVERY_PAUSE_NS: Final = 1_000_000_000  # what comes meanwhile may still be meant for the group we left


class Wire(Protocol):
    """The voice websocket, as needed here."""

    async def send_as_json(self, data: Any) -> None:
        """Send a JSON message."""

    async def send_binary(self, opcode: int, data: bytes) -> None:
        """Send a binary message."""


class GroupKeys:
    """The keys of one voice connection.

    Parameters
    ----------
    wire
        The connection's present websocket.
    identity
        The recorder's user id and the channel's id.
    clock
        Nanoseconds, monotonic.
    recovered
        Called with the cause whenever we ask to be taken into the group anew.
    parting
        Called before a commit takes keys away: what can be opened must be opened now.

    Attributes
    ----------
    version
        DAVE's protocol version in force; 0 = off.
    session, earlier
        The present group's session, and the one before it while its keys may still be needed.
    """

    def __init__(
        self,
        *,
        wire: Callable[[], Wire],
        identity: Callable[[], tuple[int, int]],
        clock: Callable[[], int],
        recovered: Callable[[str], None],
        parting: Callable[[], None],
    ) -> None:
        self._wire = wire
        self._identity = identity
        self._clock = clock
        self._recovered = recovered
        self._parting = parting
        self._left_ns: int | None = None
        self.version = 0
        self.session: davey.DaveSession | None = None
        self._earlier: davey.DaveSession | None = None
        self._earlier_until_ns = self._plain_until_ns = self._recovery_after_ns = 0
        self._sender: bytes | None = None
        self._pending: dict[int, int] = {}
        self.changed_ns = 0

    @property
    def earlier(self) -> davey.DaveSession | None:
        """The group before the present one, while its keys live."""
        if self._earlier is not None and self._clock() >= self._earlier_until_ns:
            self._earlier = None
        return self._earlier

    @property
    def plain_allowed(self) -> bool:
        """Whether a frame that is not end-to-end encrypted is what it should be."""
        return self.version == 0 or 0 in self._pending.values() or self._clock() < self._plain_until_ns

    @property
    def switching(self) -> bool:
        """Whether a transition is prepared and not executed yet."""
        return bool(self._pending)

    async def begin(self, version: int) -> None:
        """A voice connection stands (op 4): no group, no earlier one."""
        self.session = self._earlier = self._sender = None
        self._pending.clear()
        self._plain_until_ns = self._recovery_after_ns = 0
        self.version = version
        self.changed_ns = self._clock()
        if version:
            await self._start(version)

    def left(self) -> None:
        """Somebody left the call: the next commit takes their keys away."""
        self._left_ns = self._clock()

    async def said(self, op: int, data: dict[str, Any]) -> None:
        """Handle a JSON message."""
        match op:
            case 21:
                await self._prepare(int(data["transition_id"]), int(data["protocol_version"]))
            case 22:
                self._execute(int(data["transition_id"]))
            case 24 if int(data["epoch"]) == NEW_GROUP:
                await self._start(int(data["protocol_version"]))

    async def sent(self, op: int, payload: bytes) -> None:
        """Handle a binary message."""
        if self.session is None:
            return
        match op:
            case 25:
                self._sender = payload
                self._trust(self.session, payload)
            case 27:
                await self._propose(self.session, payload)
            case 29 | 30:
                await self._follow(self.session, op, payload)

    async def recover(self, cause: str, transition_id: int = 0) -> bool:
        """Ask to be taken into the group anew (op 31); whether that was done: not so soon after the last time."""
        now_ns = self._clock()
        if self.session is None or now_ns < self._recovery_after_ns:
            return False
        self._recovery_after_ns = now_ns + RECOVERY_PAUSE_NS
        log.warning("dave_recovery", cause=cause, transition_id=transition_id)
        self._recovered(cause)
        data = {"transition_id": transition_id}
        await self._wire().send_as_json({"op": INVALID_COMMIT_WELCOME, "d": data})
        await self._start(self.session.protocol_version)
        return True

    async def _start(self, version: int) -> None:
        """A new group, of which we know nothing yet: offer our key package."""
        user_id, channel_id = self._identity()
        if self.session is not None and self.session.ready:
            self._earlier, self._earlier_until_ns = self.session, self._clock() + OLD_KEYS_NS
        if not version:
            self.session = None
            return
        self.session = davey.DaveSession(version, user_id, channel_id)
        if self._sender is not None:
            self._trust(self.session, self._sender)
        self.changed_ns = self._clock()
        await self._wire().send_binary(KEY_PACKAGE, self.session.get_serialized_key_package())

    @staticmethod
    def _trust(session: davey.DaveSession, sender: bytes) -> None:
        try:
            session.set_external_sender(sender)
        except ValueError as error:  # said twice: the group that stands goes on
            log.info("dave_external_sender_repeated", error=str(error))

    async def _propose(self, session: davey.DaveSession, payload: bytes) -> None:
        kind = davey.ProposalsOperationType.revoke if payload[0] else davey.ProposalsOperationType.append
        try:
            answer = session.process_proposals(kind, payload[1:])
        except ValueError as error:
            log.info("dave_proposals_refused", error=str(error))
            if session.ready:  # else they are meant for the group that we left; a new one is on its way
                await self.recover("proposals_refused")
            return
        if answer is not None:
            await self._wire().send_binary(COMMIT_WELCOME, answer.commit + (answer.welcome or b""))

    async def _follow(self, session: davey.DaveSession, op: int, payload: bytes) -> None:
        transition_id = int.from_bytes(payload[:2], "big")
        if op == ANNOUNCE_COMMIT:
            await self._hear_out()
            if session is not self.session:  # we started anew meanwhile
                return
        try:
            (session.process_commit if op == ANNOUNCE_COMMIT else session.process_welcome)(payload[2:])
        except ValueError as error:
            log.info("dave_commit_refused", op=op, error=str(error))
            await self.recover("commit_refused" if op == ANNOUNCE_COMMIT else "welcome_refused", transition_id)
            return
        self.changed_ns = self._clock()
        await self._prepare(transition_id, session.protocol_version)

    async def _hear_out(self) -> None:
        """Wait for the last frames of who left, and have all opened that can be."""
        if self._left_ns is not None:
            late_ns = self._left_ns + LATE_NS - self._clock()
            self._left_ns = None
            if late_ns > 0:
                await asyncio.sleep(late_ns / 1e9)
        self._parting()

    async def _prepare(self, transition_id: int, version: int) -> None:
        self._pending[transition_id] = version
        if transition_id == 0:  # at once
            self._execute(0)
        else:
            data = {"transition_id": transition_id}
            await self._wire().send_as_json({"op": READY_FOR_TRANSITION, "d": data})

    def _execute(self, transition_id: int) -> None:
        version = self._pending.pop(transition_id, None)
        if version is None:
            log.info("dave_transition_unknown", transition_id=transition_id)
            return
        if (version == 0) != (self.version == 0):
            self._plain_until_ns = self._clock() + OLD_KEYS_NS
        if version == 0 and self.session is not None:
            self._earlier, self._earlier_until_ns = self.session, self._clock() + OLD_KEYS_NS
            self.session = None
        self.version = version
        self.changed_ns = self._clock()
