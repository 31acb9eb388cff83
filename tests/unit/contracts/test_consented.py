"""What may be heard of a log: never what came while its speaker was withheld, never of who was forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts import subjects
from contracts.consented import Consented
from contracts.events import PersonForgotten, SessionFact, SpeakerAdmitted, SpeakerIdentified, SpeakerWithheld
from contracts.packets import Packet, PacketBatch, decode_batch, encode_batch
from tests.golden import SESSION

ADA, BELA = "1", "2"
SECOND = 1_000_000_000


def fact(kind: type, at_s: int, user_id: str, **more: object) -> SessionFact:
    return kind(id=f"{kind}{at_s}{user_id}", session=SESSION, at_ns=at_s * SECOND, unix_ns=0, user_id=user_id, **more)


def owns(ssrc: int, user_id: str) -> SessionFact:
    return fact(SpeakerIdentified, 0, user_id, take=1, ssrc=ssrc, name="", by="key")


def batch(ssrc: int) -> PacketBatch:
    """A packet each second, ten of them."""
    return PacketBatch(1, ssrc, 0, 0, tuple(Packet(each, each, each * 1_000_000, bytes([each])) for each in range(10)))


def heard(facts: list[SessionFact], ssrc: int) -> list[int]:
    kept = Consented(facts).message(subjects.packets(SESSION, 1, ssrc), encode_batch(batch(ssrc)))
    return [] if kept is None else [packet.sequence for packet in decode_batch(kept).packets]


@given(st.permutations(range(7)))
def test_what_came_in_between_is_left_out_whatever_the_order(order: list[int]):
    """Withheld at 3 s, admitted at 6 s: the packets of 3, 4 and 5 s are not heard; the other's all are."""
    facts = [
        owns(7, ADA),
        owns(8, BELA),
        fact(SpeakerWithheld, 3, ADA, why="opted_out"),
        fact(SpeakerWithheld, 3, ADA, why="opted_out"),
        fact(SpeakerAdmitted, 6, ADA),
        fact(SpeakerAdmitted, 8, BELA),
        fact(SpeakerWithheld, 20, BELA, why="opted_out"),
    ]
    shuffled = [facts[each] for each in order]
    assert heard(shuffled, 7) == [0, 1, 2, 6, 7, 8, 9]
    assert heard(shuffled, 8) == list(range(10))


def test_who_was_forgotten_is_never_heard():
    """Not even where a packet of theirs is in the log again; an SSRC that nobody owns is left alone."""
    forgotten = PersonForgotten(
        id="p", session=SESSION, at_ns=99, unix_ns=0, user_id=ADA, messages=1, packets=1, kept_sha256=""
    )
    assert heard([owns(7, ADA), forgotten], 7) == []
    assert heard([owns(7, ADA), forgotten], 9) == list(range(10))


def test_where_nobody_was_withheld_nothing_is_touched():
    """The same bytes, also of what cannot be read."""
    consented = Consented([owns(7, ADA)])
    data = encode_batch(batch(7))
    assert consented.message(subjects.packets(SESSION, 1, 7), data) is data
    refusing = Consented([owns(7, ADA), fact(SpeakerWithheld, 3, ADA, why="opted_out")])
    assert refusing.message("rec.x.pkt.1.7", b"\xff") == b"\xff"
    assert refusing.message(subjects.facts(SESSION), b"{}") == b"{}"
