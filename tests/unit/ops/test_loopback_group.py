"""The server's side of DAVE with real davey sessions, whatever the order in which people come, go and are slow."""

import random
from collections import deque
from typing import Any

import davey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ops.loopback.dave_client import DaveClient
from ops.loopback.errors import MalformedMessageError
from ops.loopback.group import DaveGroup, Outgoing
from ops.loopback.opcodes import Dave

PROPOSING_SHARE = 0.5
TOO_SLOW = 0  # a step in which the transition expires; below it somebody starts anew
CHANNEL = 110_000_000_000_000_001


class Call:
    """A group and its clients; messages to each client are delivered in order, clients in any order."""

    def __init__(self, seed: int) -> None:
        self.group = DaveGroup(channel_id=CHANNEL)
        self.clients: dict[int, DaveClient] = {}
        self.inboxes: dict[int, deque[Outgoing]] = {}
        self.sent: list[Outgoing] = []
        self.random = random.Random(seed)

    def join(self, user_id: int) -> None:
        """A new client connects."""
        client: DaveClient

        def reply(opcode: Dave, payload: dict[str, Any] | bytes) -> None:
            if self.clients.get(user_id) is client:
                self.route(self.answer(user_id, opcode, payload))

        client = DaveClient(user_id=user_id, channel_id=CHANNEL, reply=reply)
        self.clients[user_id], self.inboxes[user_id] = client, deque()
        self.route(self.group.join(user_id))

    def leave(self, user_id: int) -> None:
        """A client is gone, with what was on its way to it."""
        del self.clients[user_id], self.inboxes[user_id]
        self.route(self.group.leave(user_id))

    def answer(self, user_id: int, opcode: Dave, payload: Any) -> list[Outgoing]:
        """What the server says to a client's message."""
        if opcode is Dave.KEY_PACKAGE:
            return self.group.key_package(user_id, payload)
        if opcode is Dave.COMMIT_WELCOME:
            return self.group.commit(user_id, payload)
        if opcode is Dave.READY_FOR_TRANSITION:
            return self.group.ready(user_id, payload["transition_id"])
        return []

    def route(self, messages: list[Outgoing]) -> None:
        """Put the server's messages on their way."""
        self.sent += messages
        for message in messages:
            if message.to in self.inboxes:
                self.inboxes[message.to].append(message)

    def deliver(self, limit: int | None = None) -> None:
        """Deliver up to `limit` messages, or until nothing is left; the server proposes now and then."""
        while limit != 0:
            waiting = [user for user, inbox in self.inboxes.items() if inbox]
            if not waiting or self.random.random() < PROPOSING_SHARE:
                self.route(self.group.propose())
            if not waiting and not any(self.inboxes.values()):
                return
            if waiting:
                user = self.random.choice(waiting)
                message = self.inboxes[user].popleft()
                self.clients[user].receive(message.opcode, message.payload)
                limit = limit - 1 if limit is not None else None

    def opcodes(self) -> list[tuple[int, Dave]]:
        """To whom what was sent, in order."""
        return [(message.to, message.opcode) for message in self.sent]

    def reads_everybody(self) -> bool:
        """Everybody can decrypt everybody at the group's epoch."""
        people = list(self.clients.values())
        return all(
            there._session.decrypt(here.user_id, davey.MediaType.audio, here.encrypt(b"a frame")) == b"a frame"
            for here in people
            for there in people
            if here is not there
        )


def call_of(*users: int, seed: int = 1) -> Call:
    call = Call(seed)
    for user in users:
        call.join(user)
    call.deliver()
    return call


def test_two_make_a_group_at_once():
    """The first valid commit goes back to its author, the other is welcomed, both with transition 0."""
    call = call_of(1, 2)
    assert call.reads_everybody()
    assert sorted(opcode for _, opcode in call.opcodes() if opcode >= Dave.ANNOUNCE_COMMIT) == [29, 30]
    assert {message.payload[:2] for message in call.sent if message.opcode >= Dave.ANNOUNCE_COMMIT} == {b"\0\0"}
    assert Dave.EXECUTE_TRANSITION not in {opcode for _, opcode in call.opcodes()}


def test_a_newcomer_is_welcomed_and_all_switch_together():
    """Members get the commit, the newcomer the welcome, and nobody switches before all are ready."""
    call = call_of(1, 2)
    call.sent.clear()
    call.join(3)
    call.deliver()
    after = call.opcodes()
    assert {(1, Dave.ANNOUNCE_COMMIT), (2, Dave.ANNOUNCE_COMMIT), (3, Dave.WELCOME)} <= set(after)
    assert after[-3:] == [(user, Dave.EXECUTE_TRANSITION) for user in (1, 2, 3)]
    assert {client.epoch for client in call.clients.values()} == {2}
    assert call.reads_everybody()


def test_senders_keep_the_old_key_until_the_switch():
    """While somebody is not ready, the others encrypt for the epoch in which he can read them."""
    call = call_of(1, 2)
    call.join(3)
    while not call.group.unready:
        call.deliver(1)
    assert call.group.epoch == 2
    assert {call.clients[user].epoch for user in (1, 2)} == {1}
    assert call.clients[3].epoch is None


def test_the_switch_does_not_wait_for_ever():
    """When the time is over the rest switch without the one who did not answer."""
    call = call_of(1, 2)
    call.join(3)
    while not call.group.unready:
        call.deliver(1)
    number = call.group.transition_id
    assert call.group.expire(number + 1) == []
    assert [message.opcode for message in call.group.expire(number)][:3] == [Dave.EXECUTE_TRANSITION] * 3
    assert call.group.expire(number) == []


def test_the_last_one_starts_over():
    """Who is left alone is told of epoch 1 and transition 0, makes a new package, and can be joined again."""
    call = call_of(1, 2)
    call.leave(2)
    call.deliver()
    assert call.opcodes()[-2:] == [(1, Dave.PREPARE_EPOCH), (1, Dave.PREPARE_TRANSITION)]
    assert call.clients[1].epoch is None
    assert call.group.members_at == {}
    call.join(2)
    call.deliver()
    assert call.reads_everybody()


def test_who_leaves_before_being_added_is_revoked():
    """An Add that is outstanding is taken back, and the group stays as it was."""
    call = call_of(1, 2)
    call.join(3)
    call.deliver(1)  # the external sender, answered by the key package
    call.route(call.group.propose())
    assert call.opcodes()[-2:] == [(1, Dave.PROPOSALS), (2, Dave.PROPOSALS)]
    call.leave(3)
    call.route(call.group.propose())
    assert [message.payload[:1] for message in call.sent[-2:]] == [b"\1", b"\1"]
    call.deliver()
    assert call.group.members == {1, 2}
    assert call.reads_everybody()


def test_an_invalid_welcome_leads_to_removal_and_new_addition():
    """A member that starts anew (op 31, then a new key package) is replaced in one or more commits."""
    call = call_of(1, 2, 3)
    call.clients[2]._recover(0)
    call.deliver()
    assert call.group.members == {1, 2, 3}
    assert {client.epoch for client in call.clients.values()} == {call.group.epoch}
    assert call.reads_everybody()


def test_a_stale_commit_loses():
    """A commit that refers to other proposals than its author holds now changes nothing."""
    call = call_of(1, 2)
    before = call.group.epoch
    stale = davey.DaveSession(1, 9, CHANNEL)
    assert stale.epoch is None
    try:
        messages = call.group.commit(1, b"not a commit")
    except MalformedMessageError:
        messages = []
    assert messages == []
    assert call.group.epoch == before


@settings(max_examples=40, deadline=None)
@example(6, [(2, 0), (1, 5), (3, 3), (-2, 7), (1, 0), (-1, 0)])  # starts anew while proposals are on their way to it
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(-2, 6), st.integers(0, 12)), min_size=2, max_size=14))
def test_whoever_comes_and_goes_the_present_share_one_epoch(seed: int, steps: list[tuple[int, int]]):
    """People join, leave, start anew, are too slow; some messages arrive; in the end the present read one another."""
    call = Call(seed)
    for user, delivered in steps:
        if user == TOO_SLOW:
            call.route(call.group.expire(call.group.transition_id))
        elif user <= 0:
            members = [client for client in call.clients.values() if client.epoch is not None]
            for client in members[user:][:1]:
                client._recover(0)
        elif user in call.clients:
            call.leave(user)
        else:
            call.join(user)
        call.deliver(delivered)
    call.deliver()
    present = set(call.clients)
    if len(present) < 2:
        assert not call.group.members
        return
    assert call.group.settled
    assert call.group.members == present == call.group.members_at[call.group.epoch]
    assert {client.epoch for client in call.clients.values()} == {call.group.epoch}
    assert call.reads_everybody()
