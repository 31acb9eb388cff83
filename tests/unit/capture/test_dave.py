"""Frames are opened first in, first out, with real keys; what cannot be opened is kept with its reason."""

from __future__ import annotations

import pytest

from capture.voice.dave import HELD_PACKETS, HOLD_NS, UNKNOWN_HOLD_NS, FrameOpener, Heard, Sealed
from contracts.packets import SILENCE_FRAME, Outcome
from tests.dave_group import CallGroup, Line

BOT, ADA, BELA = 100, 101, 102
SECOND = 1_000_000_000


def sealed(payload: bytes, number: int = 0, arrival_ns: int = 0) -> Sealed:
    return Sealed(number, 960 * number, arrival_ns, payload, 30)


def opus(number: int) -> bytes:
    return b"\x78" + number.to_bytes(2) * 20


def heard(decided: list[Heard]) -> list[tuple[int, bytes, Outcome]]:
    return [(each.sealed.sequence, each.payload, each.outcome) for each in decided]


class Case:
    """A group of the bot, Ada and Bela, and an opener of frames of one SSRC."""

    def __init__(self, *members: int, session: bool = True) -> None:
        self.call = CallGroup()
        self.call.join(*(members or (BOT, ADA, BELA)))
        self.line = Line(self.call.members[BOT].session if session else None)
        self.line.own_user = BOT
        self.names: list[int] = []
        self.opener = FrameOpener(self.line, self.names.append)

    def said(self, user: int, number: int) -> bytes:
        """What a member sends."""
        return self.call.members[user].encrypt(opus(number))


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_known_speakers_frames_open(case: Case):
    """Each at once, to what was said."""
    case.opener.user_id = ADA
    for number in range(50):
        assert heard(case.opener.push(sealed(case.said(ADA, number), number), 0)) == [
            (number, opus(number), Outcome.VOICE)
        ]
    assert case.opener.held == 0


def test_a_key_tells_whose_ssrc_it_is(case: Case):
    """The gateway named nobody: only the sender's key opens the frame, and that names the SSRC, once."""
    for number in range(3):
        assert heard(case.opener.push(sealed(case.said(BELA, number), number), 0)) == [
            (number, opus(number), Outcome.VOICE)
        ]
    assert case.names == [BELA]
    assert case.opener.user_id == BELA


def test_every_speaker_is_told_apart_by_key():
    """Six people, six SSRCs, no name from the gateway."""
    users = list(range(101, 107))
    case = Case(BOT, *users)
    for user in users:
        names: list[int] = []
        opener = FrameOpener(case.line, names.append)
        assert heard(opener.push(sealed(case.said(user, user)), 0)) == [(0, opus(user), Outcome.VOICE)]
        assert names == [user]


def test_frames_wait_in_order_until_the_session_is_there():
    """No session yet: all wait, and come out first in, first out, when there is one."""
    late = Case(session=False)
    frames = [late.said(ADA, number) for number in range(20)]
    for number, frame in enumerate(frames):
        assert late.opener.push(sealed(frame, number), 0) == []
    assert late.opener.held == 20
    late.line.session = late.call.members[BOT].session
    assert heard(late.opener.retry(SECOND)) == [(number, opus(number), Outcome.VOICE) for number in range(20)]
    assert late.names == [ADA]


def test_frames_wait_for_the_gateway_to_name_the_speaker(case: Case):
    """Somebody whose key is another SSRC's in the gateway's words: held until that is mended."""
    case.line.named = {77: ADA}
    assert case.opener.push(sealed(case.said(ADA, 1)), 0) == []
    case.line.named = {}
    assert heard(case.opener.retry(1)) == [(0, opus(1), Outcome.VOICE)]


def test_a_speaker_that_joins_is_heard_with_the_new_keys():
    """Frames of the newcomer, and of those whose keys changed, across every change of the group."""
    case = Case(BOT, ADA)
    openers = {user: FrameOpener(case.line, case.names.append) for user in (ADA, BELA)}
    number = 0
    for change in (lambda: None, lambda: case.call.join(BELA), lambda: None, lambda: case.call.leave(BELA)):
        change()
        for user in case.call.members.keys() - {BOT}:
            number += 1
            decided = openers[user].push(sealed(case.said(user, number), number), 0)
            assert heard(decided) == [(number, opus(number), Outcome.VOICE)]


def test_frames_of_the_old_epoch_open_after_the_change():
    """What was under way while the keys changed is not lost."""
    case = Case(BOT, ADA)
    case.opener.user_id = ADA
    before = [case.said(ADA, number) for number in range(5)]
    case.call.join(BELA)
    for number, frame in enumerate(before):
        assert heard(case.opener.push(sealed(frame, number), 0)) == [(number, opus(number), Outcome.VOICE)]


def test_a_frame_from_before_our_welcome_is_kept_as_it_came():
    """The bot came later: no key of ours opens it, and after the hold it is WRONG_KEY, with its ciphertext."""
    case = Case(ADA, BELA, BOT)  # the session of BOT is replaced below
    call = CallGroup()
    call.join(ADA, BELA)
    early = call.members[ADA].encrypt(opus(1))
    call.join(BOT)
    case.line.session = call.members[BOT].session
    case.opener.user_id = ADA
    assert case.opener.push(sealed(early), 0) == []
    assert case.opener.retry(HOLD_NS) == []
    assert heard(case.opener.retry(HOLD_NS + 1)) == [(0, early, Outcome.WRONG_KEY)]
    after = call.members[ADA].encrypt(opus(2))
    assert heard(case.opener.push(sealed(after, 1), 0)) == [(1, opus(2), Outcome.VOICE)]


def early_and_good() -> tuple[CallGroup, Line, list[bytes]]:
    """A call that the bot joined late: two frames of Ada's from before, then three that it can open."""
    call = CallGroup()
    call.join(ADA, BELA)
    frames = [call.members[ADA].encrypt(opus(number)) for number in (0, 1)]
    call.join(BOT)
    frames += [call.members[ADA].encrypt(opus(number)) for number in (2, 3, 4)]
    line = Line(call.members[BOT].session)
    line.own_user = BOT
    return call, line, frames


@pytest.mark.parametrize("user", [ADA, None])
def test_frames_from_before_our_welcome_hold_up_no_later_one(user: int | None):
    """Keys only go forward: the first frame that opens decides those before it, whether the speaker is known or not."""
    _, line, frames = early_and_good()
    opener = FrameOpener(line, lambda _user: None)
    opener.user_id = user
    reason = Outcome.UNKNOWN_SPEAKER if user is None else Outcome.WRONG_KEY
    assert [opener.push(sealed(frame, number), 0) for number, frame in enumerate(frames[:2])] == [[], []]
    assert heard(opener.push(sealed(frames[2], 2), 0)) == [
        (0, frames[0], reason),
        (1, frames[1], reason),
        (2, opus(2), Outcome.VOICE),
    ]
    assert heard(opener.push(sealed(frames[3], 3), 0)) == [(3, opus(3), Outcome.VOICE)]


def test_who_leaves_soon_after_our_welcome_was_heard():
    """What came before the keys went with their owner was opened at once, though behind frames that never open."""
    call, line, frames = early_and_good()
    opener = FrameOpener(line, lambda _user: None)
    decided = [each for number, frame in enumerate(frames) for each in opener.push(sealed(frame, number), 0)]
    call.leave(ADA)
    decided += opener.retry(HOLD_NS)
    assert [each.outcome for each in decided] == [Outcome.UNKNOWN_SPEAKER] * 2 + [Outcome.VOICE] * 3


def test_a_late_frame_of_the_old_keys_gives_up_no_newer_one():
    """A frame that waits for keys that are under way goes on waiting when an earlier one comes behind it."""
    case = Case(BOT, ADA)
    case.opener.user_id = ADA
    late = case.said(ADA, 0)
    present = case.line.session
    new = CallGroup()
    new.join(BOT, ADA)
    newer = new.members[ADA].encrypt(opus(1))
    assert case.opener.push(sealed(newer, 1), 0) == []
    assert heard(case.opener.push(sealed(late, 0), 0)) == [(0, opus(0), Outcome.VOICE)]
    assert case.opener.held == 1
    case.line.earlier_session, case.line.session = present, new.members[BOT].session
    assert heard(case.opener.retry(1)) == [(1, opus(1), Outcome.VOICE)]


@pytest.mark.parametrize(
    ("prepare", "outcome", "patience_ns"),
    [
        ("no session", Outcome.NO_KEY, HOLD_NS),
        ("stranger", Outcome.NO_KEY, HOLD_NS),
        ("nobody's", Outcome.UNKNOWN_SPEAKER, UNKNOWN_HOLD_NS),
        ("another's", Outcome.WRONG_KEY, HOLD_NS),
    ],
)
def test_patience_ends_with_the_right_reason(case: Case, prepare: str, outcome: Outcome, patience_ns: int):
    """Each reason waits for its own time, not a nanosecond less, and keeps the ciphertext."""
    frame = case.said(ADA, 1)
    if prepare == "no session":
        case.line.session = None
    elif prepare == "stranger":
        case.opener.user_id = 999
    elif prepare == "nobody's":
        other = CallGroup()
        other.join(ADA, BELA)
        frame = other.members[ADA].encrypt(opus(1))
    else:
        case.opener.user_id = BELA
    start = 5 * SECOND
    assert case.opener.push(sealed(frame, arrival_ns=start), start) == []
    assert case.opener.retry(start + patience_ns) == []
    assert case.opener.held == 1
    assert heard(case.opener.retry(start + patience_ns + 1)) == [(0, frame, outcome)]
    assert case.opener.held == 0


def test_at_the_end_everything_is_decided_at_once():
    """The take is over: what opens now is voice, the rest has its reason."""
    late = Case(session=False)
    frames = [late.said(ADA, number) for number in range(3)]
    for number, frame in enumerate(frames):
        late.opener.push(sealed(frame, number), 0)
    assert heard(late.opener.give_up()) == [(number, frame, Outcome.NO_KEY) for number, frame in enumerate(frames)]
    for number, frame in enumerate(frames):
        late.opener.push(sealed(frame, number), 0)
    late.line.session = late.call.members[BOT].session
    assert heard(late.opener.give_up()) == [(number, opus(number), Outcome.VOICE) for number in range(3)]


def test_silence_and_padding_pass_a_hold(case: Case):
    """They need no key, so they do not wait for one."""
    case.line.session = None
    case.opener.push(sealed(case.said(ADA, 1)), 0)
    assert heard(case.opener.push(sealed(SILENCE_FRAME, 1), 0)) == [(1, SILENCE_FRAME, Outcome.SILENCE)]
    assert heard(case.opener.push(sealed(b"", 2), 0)) == [(2, b"", Outcome.PADDING)]
    broken = Sealed(3, 0, 0, b"raw", -1, Outcome.MALFORMED)
    assert heard(case.opener.push(broken, 0)) == [(3, b"raw", Outcome.MALFORMED)]
    assert case.opener.held == 1


@pytest.mark.parametrize("plain", [opus(1), b"\x78", b"\xfa\xfa", bytes(200)])
def test_a_plain_frame_in_an_encrypted_call_is_kept_but_not_trusted(case: Case, plain: bytes):
    """PLAINTEXT, at once: waiting would not help."""
    case.opener.user_id = ADA
    assert heard(case.opener.push(sealed(plain), 0)) == [(0, plain, Outcome.PLAINTEXT)]


def test_without_dave_frames_are_opus(case: Case):
    """A call that is not end-to-end encrypted: the payload is the frame, whoever it is."""
    case.line.session, case.line.plain_allowed = None, True
    assert heard(case.opener.push(sealed(opus(3)), 0)) == [(0, opus(3), Outcome.VOICE)]
    assert case.opener.user_id is None


def test_no_more_is_held_than_there_is_room_for(case: Case):
    """A key that never comes cannot fill the memory; nothing is dropped for it."""
    case.line.session = None
    out: list[Heard] = []
    for number in range(HELD_PACKETS + 100):
        out += case.opener.push(sealed(case.said(ADA, number), number), 0)
        assert case.opener.held <= HELD_PACKETS
    assert [each.sealed.sequence for each in out] == list(range(100))
    assert {each.outcome for each in out} == {Outcome.NO_KEY}


def test_a_failed_try_costs_no_later_frame(case: Case):
    """Trying every member's key on every held frame moves no replay window."""
    case.line.named = {1: ADA, 2: BELA}  # nobody is left to try
    frames = [case.said(ADA, number) for number in range(30)]
    for number, frame in enumerate(frames):
        case.opener.push(sealed(frame, number), 0)
    case.line.named = {2: BELA}
    other = FrameOpener(case.line, case.names.append)
    assert other.push(sealed(case.said(BELA, 99)), 0) == []
    assert heard(case.opener.retry(1)) == [(number, opus(number), Outcome.VOICE) for number in range(30)]


def test_the_record_has_its_arrival_after_the_base():
    """In whole microseconds, negative before it."""
    one = Heard(sealed(b"x", 5, 2_000_500), b"o", Outcome.VOICE)
    packet = one.packet(1_000_000)
    assert (packet.sequence, packet.timestamp, packet.arrival_us, packet.payload) == (5, 4800, 1000, b"o")
    assert (packet.outcome, packet.level) == (Outcome.VOICE, 30)
    assert one.packet(3_000_500).arrival_us == -1000
