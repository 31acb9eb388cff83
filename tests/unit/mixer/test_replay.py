"""The fold of the log: the same messages, in whatever way they come, are the same session."""

from __future__ import annotations

import msgspec
import pytest

from contracts.events import NoteAdded, SpeakerIdentified, SpeakerJoined, encode_fact
from contracts.jetstream.replay import LogMessage
from contracts.packets import Outcome, Packet, PacketBatch, encode_batch
from contracts.subjects import facts, packets
from mixer.replay import Session, SessionFold
from tests.builders import RECORDER_SSRC, STARTED_UNIX_NS, TAKE, build_session

BUILT = build_session(6.0, 2, plan=[[(1.0, 3.0)], []])


def fold(messages: list[LogMessage]) -> Session:
    state = SessionFold()
    for message in messages:
        state.apply(message.subject, message.data)
    return state.session()


def fact(kind: type, identifier: str, at_ns: int = 0, **fields: object) -> LogMessage:
    made = kind(id=identifier, session=BUILT.session, at_ns=at_ns, unix_ns=STARTED_UNIX_NS + at_ns, **fields)
    return LogMessage(0, facts(BUILT.session), identifier, encode_fact(made))


def batch(ssrc: int, outcome: Outcome = Outcome.VOICE) -> LogMessage:
    made = PacketBatch(TAKE, ssrc, 0, 1_000_000_000, (Packet(7, 960, 0, b"\xf8\x01\x02", outcome),))
    return LogMessage(0, packets(BUILT.session, TAKE, ssrc), made.message_id, encode_batch(made))


def packet_count(session: Session) -> int:
    return sum(len(source.stamps) for track in session.tracks for source in track.sources)


def test_a_message_twice_changes_nothing():
    once, twice = fold(BUILT.messages), fold(BUILT.messages + BUILT.messages)
    assert packet_count(once) == packet_count(twice) == 105
    assert msgspec.structs.replace(once, tracks=()) == msgspec.structs.replace(twice, tracks=())


def test_a_person_who_never_spoke_is_there_but_has_no_track():
    session = fold(BUILT.messages)
    assert session.people == {"100000": "Speaker 0", "100001": "Speaker 1"}
    assert [track.user_id for track in session.tracks] == ["100000"]


def test_a_speaker_may_be_identified_after_the_packets():
    anonymous = build_session(6.0, 1, plan=[[(1.0, 3.0)]], identify=False)
    ssrc = anonymous.people[0].ssrc
    late = fact(SpeakerIdentified, "late", 5_000_000_000, take=TAKE, ssrc=ssrc, user_id="9", name="Ada", by="key")
    assert [(track.user_id, track.name) for track in fold([*anonymous.messages, late]).tracks] == [("9", "Ada")]


def test_a_key_knows_a_speaker_better_than_the_gateway():
    ssrc = BUILT.people[0].ssrc
    by_key = fact(SpeakerIdentified, "key", 1, take=TAKE, ssrc=ssrc, user_id="9", name="Ada", by="key")
    by_gateway = fact(SpeakerIdentified, "gw", 2, take=TAKE, ssrc=ssrc, user_id="8", name="Bob", by="gateway")
    assert [track.user_id for track in fold([*BUILT.messages, by_key, by_gateway]).tracks] == ["9"]


def test_the_recorder_has_no_track():
    assert [track.user_id for track in fold([*BUILT.messages, batch(RECORDER_SSRC)]).tracks] == ["100000"]


def test_one_person_on_two_ssrcs_is_one_track():
    again = fact(SpeakerIdentified, "again", 1, take=TAKE, ssrc=77, user_id="100000", name="Speaker 0", by="key")
    (track,) = fold([*BUILT.messages, again, batch(77)]).tracks
    assert {source.ssrc for source in track.sources} == {77, BUILT.people[0].ssrc}


@pytest.mark.parametrize("outcome", [Outcome.NO_KEY, Outcome.TRANSPORT, Outcome.PADDING, Outcome.SILENCE])
def test_what_cannot_sound_makes_no_track(outcome: Outcome):
    assert [track.user_id for track in fold([*BUILT.messages, batch(78, outcome)]).tracks] == ["100000"]


def test_a_bot_that_says_nothing_is_not_listed():
    bot = fact(SpeakerJoined, "bot", take=TAKE, user_id="5", name="Music", bot=True)
    assert "5" not in fold([*BUILT.messages, bot]).people


def test_notes_are_kept_in_the_order_of_their_moments():
    notes = [fact(NoteAdded, f"n{at}", at, text=str(at)) for at in (30, 10, 20)]
    assert [note.text for note in fold([*BUILT.messages, *notes]).notes] == ["10", "20", "30"]


def test_what_cannot_be_read_is_counted():
    garbage = [
        LogMessage(0, subject, "", b"\xc1") for subject in (facts(BUILT.session), packets(BUILT.session, 1, 2), "other")
    ]
    assert fold([*BUILT.messages, *garbage, *garbage]).malformed == 3
