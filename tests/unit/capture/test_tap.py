"""Every datagram becomes a record, a duplicate, or a counted other thing; none raises, none vanishes."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from types import SimpleNamespace

import pytest

from capture.clock import boottime_ns
from capture.voice import tap as tap_module
from capture.voice.dave import HOLD_NS, Heard
from capture.voice.reorder import EPOCH_WAIT_NS, WAIT_NS
from capture.voice.stamps import StampedReader
from capture.voice.tap import SILENT_NS, SWITCH_NS, Tap
from contracts.packets import SILENCE_FRAME, Outcome
from tests.dave_group import CallGroup, Line
from tests.sealer import seal

BOT, ADA, BELA = 100, 101, 102
SSRC = 4000
FRAME_NS = 20_000_000
MUTATED = 100_000


class Call:
    """A tap, what it recorded, and a clock that moves by a frame with each datagram."""

    def __init__(self, *, encrypted: bool = False) -> None:
        self.group = CallGroup()
        self.group.join(BOT, ADA, BELA)
        self.line = Line(self.group.members[BOT].session, encrypted=encrypted)
        self.line.own_user = BOT
        self.heard: list[tuple[int, Heard]] = []
        self.identified: list[tuple[int, int]] = []
        self.reports: list[tuple[int, bytes, int]] = []
        self.tap = Tap(
            self.line,
            lambda ssrc: lambda heard: self.heard.append((ssrc, heard)),
            lambda ssrc, user: self.identified.append((ssrc, user)),
            lambda *report: self.reports.append(report),
        )
        self.now_ns = 10**12

    def hear(self, data: bytes) -> None:
        """A datagram comes, a frame after the last."""
        self.now_ns += FRAME_NS
        self.tap.tick(self.now_ns)
        self.tap.datagram(data, self.now_ns)

    def finish(self) -> list[tuple[int, int, bytes, Outcome]]:
        """What was recorded: SSRC, sequence, payload, outcome."""
        self.tap.finish(self.now_ns)
        return [(ssrc, each.sealed.sequence, each.payload, each.outcome) for ssrc, each in self.heard]


def test_speech_becomes_records_in_order():
    """Voice, silence and padding, with both clocks and the level."""
    call = Call()
    level = (0xBEDE, b"\x10\x9e\0\0")
    call.hear(seal(b"one", ssrc=SSRC, sequence=1, timestamp=960, extension=level))
    call.hear(seal(b"two", ssrc=SSRC, sequence=2, timestamp=1920, padding=7))
    call.hear(seal(SILENCE_FRAME, ssrc=SSRC, sequence=3))
    call.hear(seal(b"", ssrc=SSRC, sequence=4, padding=255))
    assert call.finish() == [
        (SSRC, 1, b"one", Outcome.VOICE),
        (SSRC, 2, b"two", Outcome.VOICE),
        (SSRC, 3, SILENCE_FRAME, Outcome.SILENCE),
        (SSRC, 4, b"", Outcome.PADDING),
    ]
    first = call.heard[0][1].sealed
    assert (first.timestamp, first.arrival_ns, first.level) == (960, 10**12 + FRAME_NS, 30)
    assert not call.tap.ignored


def test_what_is_no_audio_is_counted_by_its_cause():
    """And leaves no record."""
    call = Call()
    call.line.video = {77}
    for data in (
        b"",
        b"\x13\x37\xf0\x0d\0\0\0\1",
        bytes(74),
        b"\x80\xc8" + bytes(30),
        seal(b"v", payload_type=101),
        seal(b"v", ssrc=77),
        seal(b"me", ssrc=1),
        b"\x90\x78" + bytes(10),
    ):
        call.hear(data)
    assert call.tap.ignored == {"not_rtp": 3, "unauthentic": 1, "video": 2, "own": 1, "malformed_header": 1}
    assert call.finish() == []


def test_a_duplicate_is_recorded_once_and_counted():
    """The network sent it twice."""
    call = Call()
    for _ in range(3):
        call.hear(seal(b"x", ssrc=SSRC, sequence=9))
    assert len(call.finish()) == 1
    assert call.tap.streams[SSRC].order.duplicates == 2


def test_a_forged_datagram_does_not_take_the_place_of_the_true_one():
    """Its authentication fails: it is a record of its own, and the true one is no duplicate."""
    call = Call()
    call.hear(seal(b"first", ssrc=SSRC, sequence=0))
    call.hear(seal(b"forged", ssrc=SSRC, sequence=1, key=bytes(32)))
    call.hear(seal(b"true", ssrc=SSRC, sequence=1))
    outcomes = {payload if outcome is Outcome.VOICE else b"": outcome for _, _, payload, outcome in call.finish()}
    assert outcomes == {b"first": Outcome.VOICE, b"": Outcome.TRANSPORT, b"true": Outcome.VOICE}
    assert call.tap.streams[SSRC].order.duplicates == 0


def test_a_broken_inside_is_a_record():
    """Authentic, but no RTP inside: kept as it came."""
    call = Call()
    broken = seal(b"", ssrc=SSRC, extension=(0xBEDE, b""))
    assert struct.unpack(">H", broken[14:16]) == (0,)
    call.hear(seal(b"abc", ssrc=SSRC, sequence=1))
    call.hear(seal(b"abc" + bytes(1), ssrc=SSRC, sequence=2))  # no padding said: an ordinary payload
    assert [outcome for *_, outcome in call.finish()] == [Outcome.VOICE, Outcome.VOICE]


def test_audio_before_the_key_and_after_a_new_one():
    """Without a key it cannot be opened; a key that is replaced is used from the next datagram on."""
    call = Call()
    call.line.key = b""
    call.hear(seal(b"early", ssrc=SSRC, sequence=1))
    call.line.key = bytes(range(32))
    call.hear(seal(b"one", ssrc=SSRC, sequence=2))
    call.line.key = bytes(reversed(range(32)))
    call.hear(seal(b"two", ssrc=SSRC, sequence=3, key=call.line.key))
    call.line.mode, call.line.key = "aead_aes256_gcm_rtpsize", bytes(range(1, 33))
    call.hear(seal(b"three", ssrc=SSRC, sequence=4, key=call.line.key, mode=call.line.mode))
    outcomes = [(sequence, outcome) for _, sequence, _, outcome in call.finish()]
    assert outcomes == [(2, Outcome.VOICE), (3, Outcome.VOICE), (4, Outcome.VOICE)]
    assert call.tap.ignored == {"unauthentic": 1}


def test_an_unknown_mode_is_counted():
    """A transport encryption of next year: nothing opens, everything is counted, nothing raises."""
    call = Call()
    call.line.mode = "aead_next_year"
    call.hear(seal(b"x", ssrc=SSRC, sequence=1))
    assert call.finish() == []
    assert call.tap.ignored == {"unauthentic": 1}


def test_reordered_first_packets_all_open():
    """DAVE's replay window starts at the first nonce it accepts: the order is restored before."""
    call = Call(encrypted=True)
    frames = [seal(call.group.members[ADA].encrypt(b"\x78" + bytes([n])), ssrc=SSRC, sequence=n) for n in range(10)]
    for number in (2, 0, 1, 3, 5, 4, 6, 9, 8, 7):
        call.tap.datagram(frames[number], call.now_ns)
    call.tap.tick(call.now_ns + WAIT_NS)
    assert [(n, p, o) for _, n, p, o in call.finish()] == [(n, b"\x78" + bytes([n]), Outcome.VOICE) for n in range(10)]
    assert call.identified == [(SSRC, ADA)]


def test_the_gateways_name_is_taken_when_it_comes():
    """Held frames are named, and open, at the next tick."""
    call = Call(encrypted=True)
    call.line.named = {9: ADA}
    call.hear(seal(call.group.members[ADA].encrypt(b"\x78hello"), ssrc=SSRC))
    call.tap.tick(call.now_ns + EPOCH_WAIT_NS)
    assert (call.heard, call.tap.held) == ([], 1)
    call.line.named = {SSRC: ADA}
    call.tap.tick(call.now_ns + WAIT_NS + 1)
    assert [each.payload for _, each in call.heard] == [b"\x78hello"]
    assert (call.identified, call.tap.held) == ([], 0)


def test_time_gives_up_what_no_key_opens():
    """The record comes without another datagram, by the tick alone."""
    call = Call(encrypted=True)
    call.line.session = None
    call.hear(seal(b"\x78sealed by nobody", ssrc=SSRC))
    call.tap.tick(call.now_ns + WAIT_NS)
    assert call.heard == []
    call.tap.tick(call.now_ns + HOLD_NS + 1)
    assert [each.outcome for _, each in call.heard] == [Outcome.NO_KEY]


def test_ssrcs_are_bounded(monkeypatch: pytest.MonkeyPatch):
    """Beyond the bound they are counted, and those that are known go on."""
    monkeypatch.setattr(tap_module, "SSRCS", 3)
    call = Call()
    for ssrc in (10, 11, 12, 13, 14, 10):
        call.hear(seal(b"x", ssrc=ssrc, sequence=len(call.heard)))
    assert call.tap.ignored["too_many_ssrcs"] == 2
    assert set(call.tap.streams) == {10, 11, 12}


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_hundred_thousand_mutated_datagrams_raise_nothing(encrypted: bool):  # noqa: FBT001
    """Every one is a record, a duplicate, or counted by its cause: the sums agree."""
    call, rng = Call(encrypted=encrypted), random.Random(11)
    member = call.group.members[ADA]
    seeds = [
        seal(
            member.encrypt(b"\x78" + rng.randbytes(40)),
            ssrc=SSRC,
            sequence=number,
            padding=number % 3,
            csrcs=(5,) * (number % 2),
        )
        for number in range(60)
    ]
    seeds += [seal(SILENCE_FRAME, ssrc=SSRC, sequence=60), b"\x80\xc8" + rng.randbytes(40), bytes(74)]
    for number in range(MUTATED):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 4)):
            kind = rng.random()
            if kind < 0.6 and data:
                data[rng.randrange(len(data))] = rng.randrange(256)
            elif kind < 0.8:
                del data[rng.randrange(len(data) + 1) :]
            else:
                data += rng.randbytes(rng.randrange(8))
        call.tap.datagram(bytes(data), call.now_ns)
        if number % 100 == 0:
            call.now_ns += FRAME_NS
            call.tap.tick(call.now_ns)
    call.tap.finish(call.now_ns)
    outcomes = Counter(each.outcome for _, each in call.heard)
    duplicates = sum(stream.order.duplicates for stream in call.tap.streams.values())
    assert outcomes.total() + duplicates + call.tap.ignored.total() + len(call.reports) == MUTATED
    assert outcomes[Outcome.VOICE] <= 60


def test_the_first_frame_of_an_epoch_is_waited_for_longer():
    """Whatever is opened before it costs it; once one frame is open, a later gap is not worth that."""
    call = Call(encrypted=True)
    call.line.named = {SSRC: ADA}
    frames = [
        seal(call.group.members[ADA].encrypt(b"\x78" + bytes([number])), ssrc=SSRC, sequence=number)
        for number in range(6)
    ]
    start = call.now_ns
    call.tap.datagram(frames[1], start)
    call.tap.tick(start + EPOCH_WAIT_NS - 1)
    assert not call.heard
    call.tap.datagram(frames[0], start + EPOCH_WAIT_NS - 1)
    call.tap.tick(start + EPOCH_WAIT_NS)
    assert [each.payload for _, each in call.heard] == [b"\x78\0", b"\x78\1"]
    call.line.keys_changed_ns = start - SWITCH_NS
    call.tap.datagram(frames[3], start + EPOCH_WAIT_NS)
    call.tap.tick(start + EPOCH_WAIT_NS + WAIT_NS)
    call.tap.datagram(frames[2], start + EPOCH_WAIT_NS + WAIT_NS)
    assert [each.payload[1] for _, each in call.heard] == [0, 1, 3, 2]
    assert {each.outcome for _, each in call.heard} == {Outcome.VOICE}


async def test_what_is_unread_is_not_missing():
    """After a stall of ours the time for a gap is over, but the packet that fills it is in the kernel's hands."""
    call = Call(encrypted=True)
    call.line.named = {SSRC: ADA}
    frames = [
        seal(call.group.members[ADA].encrypt(b"\x78" + bytes([number])), ssrc=SSRC, sequence=number)
        for number in range(2)
    ]
    call.now_ns = boottime_ns()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        reader = StampedReader(SimpleNamespace(socket=receiver), asyncio.get_running_loop(), call.tap.datagram)
        reader.resume()
        call.tap.datagram(frames[1], call.now_ns)
        sender.sendto(frames[0], receiver.getsockname())
        assert call.tap.waits
        reader.catch_up()
        call.tap.tick(call.now_ns + EPOCH_WAIT_NS)
        reader.stop()
    assert [(each.payload[1], each.outcome) for _, each in call.heard] == [(0, Outcome.VOICE), (1, Outcome.VOICE)]


def test_what_waits_is_opened_before_the_keys_go():
    """Somebody fell silent behind a gap and leaves: no more is waited for; who goes on speaking waits for the gap."""
    call = Call(encrypted=True)
    call.line.named = {SSRC: ADA, SSRC + 1: BELA}
    sent = {
        (ssrc, number): seal(call.group.members[user].encrypt(b"\x78" + bytes([number])), ssrc=ssrc, sequence=number)
        for ssrc, user in call.line.named.items()
        for number in range(3)
    }
    call.tap.datagram(sent[SSRC, 0], call.now_ns)
    call.tap.datagram(sent[SSRC, 2], call.now_ns)
    call.tap.datagram(sent[SSRC + 1, 2], call.now_ns + SILENT_NS)
    call.tap.settle(call.now_ns + SILENT_NS + 1)
    assert [(ssrc, each.payload[1], each.outcome) for ssrc, each in call.heard] == [
        (SSRC, 0, Outcome.VOICE),
        (SSRC, 2, Outcome.VOICE),
    ]
