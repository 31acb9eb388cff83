"""A simulated person's end of DAVE: what an official client does with the voice gateway's DAVE messages.

A sender must go on with its old key until the transition is executed, but davey takes the new key as soon as a commit
is processed. So an announced commit is held until its op 22; a welcome is taken at once, as a newcomer has no old key.
"""

from collections.abc import Callable
from typing import Any

import davey
import structlog

from ops.loopback.opcodes import Dave

PROTOCOL_VERSION = 1

log = structlog.get_logger()


class DaveClient:
    """
    One person's session.

    Parameters
    ----------
    reply
        Called with opcode and payload for each message to the server.
    """

    def __init__(self, *, user_id: int, channel_id: int, reply: Callable[[Dave, dict[str, Any] | bytes], None]) -> None:
        self.user_id = user_id
        self.channel_id = channel_id
        self._reply = reply
        self._session = davey.DaveSession(PROTOCOL_VERSION, user_id, channel_id)
        self._held: dict[int, bytes] = {}
        self._sending = False

    @property
    def epoch(self) -> int | None:
        """The epoch for which this person encrypts now; None if it cannot yet."""
        return self._session.epoch if self._sending and self._session.ready else None

    def encrypt(self, opus: bytes) -> bytes:
        """The end-to-end encrypted frame; the silence frame stays as it is."""
        return self._session.encrypt_opus(opus)

    def decrypt(self, user_id: int, frame: bytes) -> bytes:
        """Another member's frame, opened; raises ValueError if no key of this person opens it."""
        return self._session.decrypt(user_id, davey.MediaType.audio, frame)

    def receive(self, opcode: Dave, payload: dict[str, Any] | bytes) -> None:
        """A message from the server."""
        if isinstance(payload, bytes):
            self._receive_binary(opcode, payload)
        elif opcode is Dave.EXECUTE_TRANSITION:
            self._execute(payload["transition_id"])
        elif opcode is Dave.PREPARE_EPOCH and payload["epoch"] == 1:
            self._start_over()

    def _receive_binary(self, opcode: Dave, payload: bytes) -> None:
        if opcode is Dave.EXTERNAL_SENDER:
            self._session.set_external_sender(payload)
            self._reply(Dave.KEY_PACKAGE, self._session.get_serialized_key_package())
        elif opcode is Dave.PROPOSALS:
            self._propose(payload)
        elif opcode is Dave.ANNOUNCE_COMMIT:
            self._announced(int.from_bytes(payload[:2], "big"), payload[2:])
        elif opcode is Dave.WELCOME:
            self._welcomed(int.from_bytes(payload[:2], "big"), payload[2:])

    def _propose(self, payload: bytes) -> None:
        kind = davey.ProposalsOperationType.revoke if payload[0] else davey.ProposalsOperationType.append
        try:
            answer = self._session.process_proposals(kind, payload[1:])
        except ValueError as problem:  # meant for the group from before a restart; the new one is on its way
            log.warning("dave_proposals_refused", user_id=self.user_id, problem=str(problem))
            return
        if answer is not None:
            self._reply(Dave.COMMIT_WELCOME, answer.commit + (answer.welcome or b""))

    def _announced(self, transition_id: int, commit: bytes) -> None:
        self._held[transition_id] = commit
        if transition_id:
            self._reply(Dave.READY_FOR_TRANSITION, {"transition_id": transition_id})
        else:
            self._execute(0)

    def _welcomed(self, transition_id: int, welcome: bytes) -> None:
        try:
            self._session.process_welcome(welcome)
        except ValueError:
            self._recover(transition_id)
            return
        if transition_id:
            self._reply(Dave.READY_FOR_TRANSITION, {"transition_id": transition_id})
        else:
            self._execute(0)

    def _execute(self, transition_id: int) -> None:
        commit = self._held.pop(transition_id, None)
        try:
            if commit is not None:
                self._session.process_commit(commit)
        except ValueError:
            self._recover(transition_id)
            return
        self._sending = True

    def _recover(self, transition_id: int) -> None:
        log.warning("dave_client_recovers", user_id=self.user_id, transition_id=transition_id)
        self._reply(Dave.INVALID_COMMIT_WELCOME, {"transition_id": transition_id})
        self._start_over()

    def _start_over(self) -> None:
        self._sending = False
        self._held.clear()
        self._session.reinit(PROTOCOL_VERSION, self.user_id, self.channel_id)
        self._reply(Dave.KEY_PACKAGE, self._session.get_serialized_key_package())
