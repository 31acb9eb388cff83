"""A person taken out of a log: theirs goes, everything else stays, byte for byte."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from contracts import subjects
from contracts.events import (
    EpochChanged,
    NoteAdded,
    SessionEnded,
    SessionFact,
    SpeakerIdentified,
    SpeakerJoined,
    SpeakerLeft,
    TrackCount,
    encode_fact,
)
from contracts.forgetting import Removal, Sources
from contracts.packets import Packet, PacketBatch, encode_batch
from tests import strategies
from tests.golden import FACT, SESSION

ADA, BELA = "300000000000000001", "300000000000000002"


def identified(ssrc: int, user_id: str, by: str = "key") -> SpeakerIdentified:
    return SpeakerIdentified(id=f"i{ssrc}{user_id}", **FACT, take=1, ssrc=ssrc, user_id=user_id, name="", by=by)


def batch(ssrc: int, number: int) -> tuple[str, bytes]:
    packets = tuple(Packet(each, each, 0, b"voice of %d" % ssrc) for each in range(3))
    return subjects.packets(SESSION, 1, ssrc), encode_batch(PacketBatch(1, ssrc, number, 0, packets))


def removed(facts: list[SessionFact], messages: list[tuple[str, bytes]]) -> tuple[Removal, list[bytes | None]]:
    sources = Sources(ADA)
    for fact in facts:
        sources.apply(fact)
    removal = Removal(sources)
    return removal, [removal.apply(*message) for message in messages]


def test_their_packets_go_and_others_stay_as_they_are():
    """By key or by the gateway's word; an SSRC that another's key opened is the other's."""
    facts: list[SessionFact] = [identified(7, ADA), identified(8, BELA), identified(9, ADA, "gateway")]
    facts += [identified(10, ADA, "gateway"), identified(10, BELA, "key")]
    messages = [batch(ssrc, 0) for ssrc in (7, 8, 9, 10, 11)]
    removal, kept = removed(facts, messages)
    assert kept == [None, messages[1][1], None, messages[3][1], messages[4][1]]
    assert (removal.messages, removal.packets) == (2, 6)


def test_facts_lose_their_part():
    """Joining and leaving go; the group's members, notes, counts and the start keep everybody else's part."""
    joined = SpeakerJoined(id="j", **FACT, take=1, user_id=ADA, name="Ada")
    facts: list[SessionFact] = [
        joined,
        SpeakerLeft(id="l", **FACT, take=1, user_id=ADA),
        EpochChanged(id="e", **FACT, take=1, epoch=2, dave_version=1, members=(ADA, BELA), privacy_code="1"),
        NoteAdded(id="n1", **FACT, text="mine", author="Ada", author_id=ADA),
        NoteAdded(id="n2", **FACT, text="an old one of mine", author="Ada"),
        NoteAdded(id="n3", **FACT, text="hers", author="Ada", author_id=BELA),
        SessionEnded(
            id="s",
            **FACT,
            cause="stopped",
            ended_by=ADA,
            tracks=(
                TrackCount(take=1, ssrc=7, batches=1, outcomes={"VOICE": 3}, user_id=ADA),
                TrackCount(take=1, ssrc=8, batches=1, outcomes={"VOICE": 3}, user_id=BELA),
            ),
        ),
    ]
    _, kept = removed(facts, [(subjects.facts(SESSION), encode_fact(fact)) for fact in facts])
    assert kept[:2] == [None, None]
    rest = b"".join(each for each in kept if each)
    assert ADA.encode() not in rest
    assert kept[5] == encode_fact(facts[5])
    assert rest.count(b'"author"') == 1
    assert BELA.encode() in rest


@given(st.lists(strategies.facts, max_size=12))
def test_who_was_not_there_leaves_no_gap(facts: list[SessionFact]):
    """Taking out a stranger changes no byte of any fact."""
    stranger = Sources("1")
    messages = [(subjects.facts(SESSION), encode_fact(fact)) for fact in facts if "1" not in _ids(fact)]
    removal = Removal(stranger)
    assert [removal.apply(*message) for message in messages] == [data for _, data in messages]


def _ids(fact: SessionFact) -> list[str]:
    said = msgspec.to_builtins(fact)
    return [str(said.get(name)) for name in ("user_id", "author_id", "started_by", "ended_by", "author")] + [
        str(each) for each in said.get("members", ())
    ]


def test_what_cannot_be_read_stays():
    """A message of a later version is not dropped."""
    removal, kept = removed([], [(subjects.facts(SESSION), b"{}"), ("rec.x.pkt.1.7", b"\xff"), ("other", b"x")])
    assert kept == [b"{}", b"\xff", b"x"]
    assert removal.messages == 0
