"""The MLS layouts of the voice server, proven by davey: it takes what we build, and we can split what it says."""

import davey
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.loopback.errors import MalformedMessageError
from ops.loopback.mls import ExternalSender, append_payload, revoke_payload
from ops.loopback.mls_wire import (
    Reader,
    key_package_ref,
    read_key_package,
    split_commit_welcome,
    vector,
    welcome_for,
)

CHANNEL = 110_000_000_000_000_001
GROUP = CHANNEL.to_bytes(8, "big")
APPEND, REVOKE = davey.ProposalsOperationType.append, davey.ProposalsOperationType.revoke
AUDIO = davey.MediaType.audio


class Client:
    """A davey session and its key package."""

    def __init__(self, user_id: int, sender: ExternalSender) -> None:
        self.session = davey.DaveSession(1, user_id, CHANNEL)
        self.session.set_external_sender(sender.package())
        self.package = read_key_package(self.session.get_serialized_key_package(), user_id=user_id)

    def commit(self, proposals: bytes) -> bytes:
        """What the client answers to op 27."""
        answer = self.session.process_proposals(APPEND, proposals[1:])
        assert answer is not None
        return answer.commit + (answer.welcome or b"")


@pytest.fixture
def sender() -> ExternalSender:
    return ExternalSender()


@given(st.one_of(st.binary(max_size=70), st.integers(60, 20_000).map(bytes)), st.binary(max_size=5))
def test_vectors_survive_the_wire(content: bytes, rest: bytes):
    """Reading a written vector gives its content and leaves the rest."""
    reader = Reader(vector(content) + rest)
    assert reader.vector() == content
    assert reader.rest == rest


@pytest.mark.parametrize(
    ("size", "prefix"),
    [(0, "00"), (63, "3f"), (64, "4040"), (16383, "7fff"), (16384, "80004000"), (70_000, "80011170")],
)
def test_vector_lengths_take_the_shortest_form(size: int, prefix: str):
    """One, two or four bytes by the two top bits (RFC 9420 §2.1.2)."""
    assert vector(bytes(size))[: len(prefix) // 2].hex() == prefix


@pytest.mark.parametrize("wire", ["", "05aa", "c000", "4001aa", "80000001aa", "41"])
def test_malformed_vectors_are_refused(wire: str):
    """Too short, reserved prefix, and longer forms than needed."""
    with pytest.raises(MalformedMessageError):
        Reader(bytes.fromhex(wire)).vector()


def test_a_key_package_must_name_its_sender(sender: ExternalSender):
    """Bare or inside an MLSMessage it reads the same; another user's is refused."""
    package = Client(7, sender).package
    assert read_key_package(b"\0\1\0\5" + package, user_id=7) == package
    for broken, user in ((package, 8), (package[:-1], 7), (package + b"x", 7)):
        with pytest.raises(MalformedMessageError):
            read_key_package(broken, user_id=user)


def test_an_added_member_decrypts(sender: ExternalSender):
    """Our Add is accepted, commit and welcome are split where they should be, and both read each other."""
    first, second = Client(1, sender), Client(2, sender)
    proposal = sender.add(group_id=GROUP, epoch=0, user_id=2, package=second.package)
    commit, welcome = split_commit_welcome(first.commit(append_payload([proposal])))
    assert (commit.group_id, commit.epoch, commit.leaf, commit.references) == (GROUP, 0, 0, (proposal.reference,))
    assert welcome is not None
    first.session.process_commit(commit.message)
    second.session.process_welcome(welcome_for(welcome, second.package))
    assert second.session.decrypt(1, AUDIO, first.session.encrypt_opus(b"hello")) == b"hello"
    assert first.session.decrypt(2, AUDIO, second.session.encrypt_opus(b"world")) == b"world"


def test_a_welcome_is_cut_down_to_its_addressee(sender: ExternalSender):
    """Of a welcome for two, each gets one set of secrets, and only its own works."""
    first, second, third = (Client(user, sender) for user in (1, 2, 3))
    proposals = [
        sender.add(group_id=GROUP, epoch=0, user_id=user, package=client.package)
        for user, client in ((2, second), (3, third))
    ]
    commit, welcome = split_commit_welcome(first.commit(append_payload(proposals)))
    assert welcome is not None
    assert len(commit.references) == 2
    own, other = welcome_for(welcome, second.package), welcome_for(welcome, third.package)
    assert key_package_ref(third.package) in other
    assert key_package_ref(third.package) not in own
    with pytest.raises(ValueError, match=r"."):
        third.session.process_welcome(own)
    second.session.process_welcome(own)
    third.session.process_welcome(other)
    assert second.session.epoch == third.session.epoch == 1
    with pytest.raises(MalformedMessageError):
        welcome_for(own, third.package)


def test_a_removal_and_its_revocation(sender: ExternalSender):
    """Our Remove is committed without a welcome and forgotten when revoked; the removed cannot read on."""
    first, second, third = (Client(user, sender) for user in (1, 2, 3))
    proposals = [
        sender.add(group_id=GROUP, epoch=0, user_id=user, package=client.package)
        for user, client in ((2, second), (3, third))
    ]
    commit, welcome = split_commit_welcome(first.commit(append_payload(proposals)))
    first.session.process_commit(commit.message)
    for client in (second, third):
        client.session.process_welcome(welcome_for(welcome or b"", client.package))
    remove = sender.remove(group_id=GROUP, epoch=1, user_id=3, leaf=2)
    first.commit(append_payload([remove]))
    assert first.session.process_proposals(REVOKE, revoke_payload([remove.reference])[1:]) is None
    assert first.session.status == davey.SessionStatus.active
    commit, welcome = split_commit_welcome(second.commit(append_payload([remove])))
    assert welcome is None
    assert commit.leaf == 1
    second.session.process_commit(commit.message)
    with pytest.raises(ValueError, match="NoValidCryptorFound"):
        third.session.decrypt(2, AUDIO, second.session.encrypt_opus(b"secret"))


def test_a_forged_proposal_is_refused(sender: ExternalSender):
    """A client trusts only the sender whose package it was given."""
    first, second = Client(1, sender), Client(2, sender)
    forged = ExternalSender().add(group_id=GROUP, epoch=0, user_id=2, package=second.package)
    with pytest.raises(ValueError, match=r"."):
        first.commit(append_payload([forged]))
