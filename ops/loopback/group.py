"""The voice server's side of a DAVE group, without I/O: who is in, what is proposed, which commit wins.

Clients' messages go in, messages to clients come out. Whatever happened, `propose` compares the proposals that each
recipient holds with those it should hold, and appends or revokes the difference; the shell calls it a moment later, so
that people who come together are added together:

- no group yet (epoch 0): each waiting client is offered an Add of every *other* one; all commit, the first valid commit
  makes the group, its author gets it back (29), the rest a welcome (30), with transition id 0: it holds at once;
- a group: its members are offered an Add per waiting client and a Remove per member that left or starts anew; the first
  commit that refers to exactly what its author was offered wins. Members get it (29), newcomers a welcome (30), all
  answer that they are ready (23), and the switch (22) follows when all are, or when the shell calls `expire`;
- one member left: it is told to start over (24 with epoch 1, 21 with id 0).

While a transition is under way nothing new is proposed, so that every sender's keys belong to one known epoch.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import structlog

from ops.loopback.errors import MalformedMessageError
from ops.loopback.mls import ExternalSender, Proposal, append_payload, revoke_payload
from ops.loopback.mls_wire import Commit, read_key_package, split_commit_welcome, welcome_for
from ops.loopback.opcodes import Dave

PROTOCOL_VERSION = 1
MAX_TRANSITION_ID = 0xFFFF  # op 29 and 30 carry it in two bytes

log = structlog.get_logger()


class Outgoing(NamedTuple):
    """A message to one client: JSON data, or the payload of a binary message."""

    to: int
    opcode: Dave
    payload: dict[str, Any] | bytes


class DaveGroup:
    """The group of one call; `members_at` says who could decrypt frames of which epoch."""

    def __init__(self, *, channel_id: int) -> None:
        self.epoch = 0
        self.leaves: list[int | None] = []
        self.members_at: dict[int, frozenset[int]] = {}
        self.transition_id = 0
        self.unready: set[int] = set()
        self._group_id = channel_id.to_bytes(8, "big")
        self._sender = ExternalSender()
        self._present: set[int] = set()
        self._stale: set[int] = set()  # their leaf belongs to a connection that is over, even if they are back
        self._packages: dict[int, bytes] = {}
        self._proposals: dict[tuple[int, int, bytes | None], Proposal] = {}
        self._offered: dict[int, dict[bytes, Proposal]] = {}
        self._doubtful: dict[int, set[bytes]] = {}  # offered at epoch 0 to who then started anew

    @property
    def members(self) -> frozenset[int]:
        """Who is in the group now."""
        return frozenset(user for user in self.leaves if user is not None)

    @property
    def settled(self) -> bool:
        """Nothing is proposed to a group, no transition is under way and nobody waits, except somebody quite alone."""
        return not self.unready and self.members == self._present and not self._packages

    @property
    def _connected(self) -> frozenset[int]:
        """Members by the connection they have now."""
        return (self.members & self._present) - self._stale

    def join(self, user_id: int) -> list[Outgoing]:
        """A client is connected: it learns whom to trust (25); its key package follows."""
        self._present.add(user_id)
        return [Outgoing(user_id, Dave.EXTERNAL_SENDER, self._sender.package())]

    def leave(self, user_id: int) -> list[Outgoing]:
        """A client is gone."""
        self._present.discard(user_id)
        self._stale |= self.members & {user_id}
        self._packages.pop(user_id, None)
        self._offered.pop(user_id, None)
        self._doubtful.pop(user_id, None)
        return list(self._drop_unready(user_id))

    def key_package(self, user_id: int, payload: bytes) -> list[Outgoing]:
        """A client's op 26; from a member it means that the member starts anew, as after its op 31."""
        self._packages[user_id] = read_key_package(payload, user_id=user_id)
        offered = self._offered.pop(user_id, {})
        if self.epoch == 0 and offered:
            self._doubtful.setdefault(user_id, set()).update(offered)
        return list(self._drop_unready(user_id))

    def ready(self, user_id: int, transition_id: int) -> list[Outgoing]:
        """A client's op 23."""
        if transition_id != self.transition_id:
            return []
        return list(self._drop_unready(user_id))

    def expire(self, transition_id: int) -> list[Outgoing]:
        """The time for `transition_id` is over: switch without those who did not answer."""
        if transition_id != self.transition_id or not self.unready:
            return []
        log.info("dave_transition_expired", transition_id=transition_id, unready=sorted(self.unready))
        self.unready.clear()
        return list(self._execute())

    def commit(self, user_id: int, payload: bytes) -> list[Outgoing]:
        """A client's op 28; a commit that does not win is dropped, as its author will see another one."""
        commit, welcome = split_commit_welcome(payload)
        offered = self._offered.get(user_id, {})
        if not self._wins(user_id, commit, offered):
            return []
        adopted = [offered[reference] for reference in commit.references]
        if welcome is None and any(proposal.package is not None for proposal in adopted):
            raise MalformedMessageError("a commit that adds somebody came without a welcome")
        before = self.members or frozenset({user_id})
        self._apply(user_id, adopted)
        first = self.epoch == 0
        self.epoch = commit.epoch + 1
        self.members_at[self.epoch] = self.members
        return list(self._announce(commit, welcome, adopted, before, first=first))

    def _wins(self, user_id: int, commit: Commit, offered: dict[bytes, Proposal]) -> bool:
        return (
            bool(offered)
            and commit.group_id == self._group_id
            and commit.epoch == self.epoch
            and (self.epoch == 0 or self.leaves[commit.leaf : commit.leaf + 1] == [user_id])
            and len(commit.references) == len(offered)
            and set(commit.references) == set(offered)
        )

    def _apply(self, author: int, adopted: list[Proposal]) -> None:
        """Removes blank their leaves, then adds fill the leftmost blank or append (RFC 9420 §7.7, §7.8)."""
        if not self.leaves:
            self.leaves.append(author)
            self._packages.pop(author, None)
        for proposal in adopted:
            if proposal.package is None:
                self.leaves[self.leaves.index(proposal.user_id)] = None
                self._stale.discard(proposal.user_id)
        for proposal in adopted:
            if proposal.package is not None:
                blank = self.leaves.index(None) if None in self.leaves else len(self.leaves)
                self.leaves[blank : blank + 1] = [proposal.user_id]
                if self._packages.get(proposal.user_id) == proposal.package:
                    del self._packages[proposal.user_id]

    def _announce(
        self, commit: Commit, welcome: bytes | None, adopted: list[Proposal], before: frozenset[int], *, first: bool
    ) -> Iterator[Outgoing]:
        self._offered.clear()
        self._proposals.clear()
        added = {proposal.user_id: proposal.package for proposal in adopted if proposal.package is not None}
        number = 0 if first else self._next_transition()
        if number:
            self.unready = set(self._connected)
        for user_id in sorted(self.members & before - added.keys()):
            yield Outgoing(user_id, Dave.ANNOUNCE_COMMIT, number.to_bytes(2, "big") + commit.message)
        for user_id, package in added.items():
            secrets = welcome_for(welcome or b"", package)
            yield Outgoing(user_id, Dave.WELCOME, number.to_bytes(2, "big") + secrets)

    def _next_transition(self) -> int:
        self.transition_id = self.transition_id % MAX_TRANSITION_ID + 1
        return self.transition_id

    def _drop_unready(self, user_id: int) -> Iterator[Outgoing]:
        if user_id in self.unready:
            self.unready.discard(user_id)
            if not self.unready:
                yield from self._execute()

    def _execute(self) -> Iterator[Outgoing]:
        for user_id in sorted(self._connected):
            yield Outgoing(user_id, Dave.EXECUTE_TRANSITION, {"transition_id": self.transition_id})

    def propose(self) -> list[Outgoing]:
        """What has to be proposed or taken back now; to be called a moment after anything happened."""
        return [] if self.unready else list(self._reconcile())

    def _reconcile(self) -> Iterator[Outgoing]:
        staying = self._connected - self._packages.keys()
        if self.leaves and (not staying or (len(staying) == 1 and not self._packages)) and self.members != staying:
            yield from self._start_over(staying)
            return
        recipients = sorted(staying or self._packages)
        if any(
            user in self._doubtful or self._must_offer_anew(self._held(user), self._wanted(user, staying))
            for user in recipients
        ):
            yield from self._revoke_all(recipients)
        for user_id in recipients:
            wanted, held = self._wanted(user_id, staying), self._held(user_id)
            appended = [proposal for reference, proposal in wanted.items() if reference not in held]
            self._offered[user_id] = wanted
            if appended:
                yield Outgoing(user_id, Dave.PROPOSALS, append_payload(appended))

    def _held(self, user_id: int) -> dict[bytes, Proposal]:
        return self._offered.get(user_id, {})

    @staticmethod
    def _must_offer_anew(held: dict[bytes, Proposal], wanted: dict[bytes, Proposal]) -> bool:
        """
        Whether `held` cannot simply be added to.

        davey makes a welcome only for an op 27 that itself brings an Add: a revocation or a Remove that comes alone,
        while Adds are held, makes it commit to those without a welcome.
        """
        if not held.keys() <= wanted.keys():
            return True
        adds = {reference for reference, proposal in wanted.items() if proposal.package is not None}
        appended = wanted.keys() - held.keys()
        return bool(held and appended and adds) and not adds & appended

    def _revoke_all(self, recipients: list[int]) -> Iterator[Outgoing]:
        """
        Take back every proposal, so that the ones still wanted are signed and offered anew, under new references.

        Under the old ones, a commit from before the revocation could win while its author has a newer one pending.

        What was on its way to a client that started anew at epoch 0 came either before that, and is forgotten, or
        after it, and is held: nobody knows. It is taken back one by one, as davey stops at the first it does not hold.
        """
        for user_id in recipients:
            for reference in sorted(self._doubtful.pop(user_id, ())):
                yield Outgoing(user_id, Dave.PROPOSALS, revoke_payload([reference]))
            if held := self._held(user_id):
                yield Outgoing(user_id, Dave.PROPOSALS, revoke_payload(held))
        self._offered.clear()
        self._proposals.clear()

    def _start_over(self, staying: frozenset[int]) -> Iterator[Outgoing]:
        """The group is given up; the one who is left, if any, makes a new key package; those who wait form the next."""
        self.epoch, self.leaves = 0, []
        self.members_at.clear()
        self._stale.clear()
        self._offered.clear()
        self._proposals.clear()
        for user_id in staying:
            yield Outgoing(user_id, Dave.PREPARE_EPOCH, {"protocol_version": PROTOCOL_VERSION, "epoch": 1})
            yield Outgoing(user_id, Dave.PREPARE_TRANSITION, {"protocol_version": PROTOCOL_VERSION, "transition_id": 0})
        yield from self._reconcile()

    def _wanted(self, recipient: int, staying: frozenset[int]) -> dict[bytes, Proposal]:
        gone = [(user, leaf) for leaf, user in enumerate(self.leaves) if user is not None and user not in staying]
        proposals = [self._removal(user, leaf) for user, leaf in gone]
        proposals += [self._addition(user, kp) for user, kp in self._packages.items() if user != recipient]
        return {proposal.reference: proposal for proposal in proposals}

    def _removal(self, user_id: int, leaf: int) -> Proposal:
        key = (self.epoch, user_id, None)
        if key not in self._proposals:
            self._proposals[key] = self._sender.remove(
                group_id=self._group_id, epoch=self.epoch, user_id=user_id, leaf=leaf
            )
        return self._proposals[key]

    def _addition(self, user_id: int, package: bytes) -> Proposal:
        key = (self.epoch, user_id, package)
        if key not in self._proposals:
            self._proposals[key] = self._sender.add(
                group_id=self._group_id, epoch=self.epoch, user_id=user_id, package=package
            )
        return self._proposals[key]
