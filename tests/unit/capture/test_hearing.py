"""What the packet path hears of a call, end to end: every packet once, in both modes, whatever the sender does."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest

from capture.consent import Consent
from capture.take import Take
from capture.voice.reorder import WAIT_NS
from contracts.guilds import GuildSettings
from contracts.packets import Outcome, Packet, PacketBatch
from ops.loopback.transport import AES_GCM, XCHACHA, TransportCipher
from tests.sealed_call import SealedCall, opus

ADA, BELA, SSRC = 501, 502, 4242
FRAME_NS = 20_000_000
SPACE = 1 << 16


class Ear:
    """A take that records one sealed call."""

    def __init__(self, *users: int, mode: str = XCHACHA) -> None:
        self.call = SealedCall(*(users or (ADA,)), mode=mode)
        self.batches: list[PacketBatch] = []
        self.reports: list[tuple[int, bytes, int]] = []
        self.identified: list[tuple[int, int]] = []
        self.take = Take(
            consent=Consent(GuildSettings(guild_id="1")),
            number=1,
            zero_ns=0,
            connection=self.call.connection,
            publish=self.batches.append,
            identified=lambda ssrc, user: self.identified.append((ssrc, user)),
            reported=lambda ssrc, raw, arrival_ns: self.reports.append((ssrc, raw, arrival_ns)),
        )

    def hear(self, datagrams: Iterable[tuple[int, bytes]]) -> None:
        """Each at its time, with a tick before it."""
        for arrival_ns, data in datagrams:
            self.take.tick(arrival_ns)
            self.take.datagram(data, arrival_ns)

    def finish(self) -> list[Packet]:
        """Everything that was recorded, in order."""
        self.take.finish()
        return [packet for batch in self.batches for packet in batch.packets]


@pytest.mark.parametrize("mode", [XCHACHA, AES_GCM])
def test_both_modes_are_heard_with_counters_that_wrap_in_mid_spurt(mode: str) -> None:
    """16-bit sequence numbers and 32-bit timestamps begin anew while somebody speaks; nothing is lost or doubled."""
    ear = Ear(mode=mode)
    start, time = SPACE - 100, 2**32 - 60 * 960
    ear.hear(
        (
            n * FRAME_NS,
            ear.call.datagram(ear.call.say(ADA, opus(n)), sequence=start + n, timestamp=time + n * 960, ssrc=SSRC),
        )
        for n in range(200)
    )
    packets = ear.finish()
    assert [packet.payload for packet in packets] == [opus(n) for n in range(200)]
    assert [packet.sequence for packet in packets] == [(start + n) % SPACE for n in range(200)]
    assert [packet.timestamp for packet in packets] == [(time + n * 960) % 2**32 for n in range(200)]
    assert {packet.level for packet in packets} == {30}


def test_a_hundred_thousand_packets_out_of_order_are_recorded_once() -> None:
    """Delays of up to 120 ms and duplicates, over two wraps of the sequence: nothing is lost, nothing is doubled."""
    ear = Ear()
    chance = random.Random(5)
    arrivals = []
    for n in range(100_000):
        data = ear.call.datagram(ear.call.say(ADA, opus(n)), sequence=SPACE - 500 + n, ssrc=SSRC)
        copies = 2 if chance.random() < 0.02 else 1
        arrivals += [(n * FRAME_NS + chance.randrange(120_000_000), n, data) for _ in range(copies)]
    ear.hear((at_ns, data) for at_ns, _, data in sorted(arrivals))
    packets = ear.finish()
    assert [packet.payload for packet in packets] == [opus(n) for n in range(100_000)]
    assert {packet.outcome for packet in packets} == {Outcome.VOICE}
    (count,) = ear.take.counts()
    assert (count.duplicates, count.lost) == (len(arrivals) - 100_000, 0)


@pytest.mark.parametrize("jump", [5_000, -5_000, 30_000, -30_000])
def test_a_sender_that_starts_anew_is_heard_without_a_stall(jump: int) -> None:
    """A jump of thousands inside one SSRC is neither thousands of losses nor a wait; out of order it is still heard."""
    ear = Ear()
    numbers = [*range(40_000, 40_050), *(40_050 + jump + k for k in (1, 0, 2, *range(3, 50)))]
    frames = sorted(range(100), key=lambda n: numbers[n] if n >= 50 else -1)  # the sender's order
    said = {}
    for n in frames:
        said[n] = ear.call.datagram(ear.call.say(ADA, opus(numbers[n])), sequence=numbers[n], ssrc=SSRC)
    ear.hear((n * FRAME_NS, said[n]) for n in range(100))
    ear.take.tick(100 * FRAME_NS + WAIT_NS)
    assert sum(len(batch.packets) for batch in ear.batches) >= 75  # whole batches are out already
    packets = ear.finish()
    assert [packet.payload for packet in packets] == [opus(numbers[n]) for n in frames]
    (count,) = ear.take.counts()
    assert (count.lost, count.duplicates) == (0, 0)


def test_one_stray_number_does_not_disturb_the_others() -> None:
    """A single packet from far off is recorded once, and those around it stay in order."""
    ear = Ear()
    data = [ear.call.datagram(ear.call.say(ADA, opus(n)), sequence=1000 + n, ssrc=SSRC) for n in range(40)]
    stray = ear.call.datagram(ear.call.say(ADA, opus(40)), sequence=30_000, ssrc=SSRC)
    ear.hear((n * FRAME_NS, each) for n, each in enumerate([*data[:20], stray, stray, *data[20:]]))
    packets = ear.finish()
    assert Counter(packet.payload for packet in packets) == Counter(opus(n) for n in range(41))
    assert [packet.sequence for packet in packets if packet.sequence < 2000] == list(range(1000, 1040))
    (count,) = ear.take.counts()
    assert (count.lost, count.duplicates) == (0, 1)


def test_sender_reports_are_kept_raw() -> None:
    """As they were before encryption, with SSRC and arrival; other types and forgeries are counted by cause."""
    ear = Ear()
    raw, sealed = ear.call.report(SSRC)
    _, receiver = ear.call.report(SSRC, kind=201)
    forged = sealed[:-6] + bytes(6)
    pong = b"\x13\x37\xf0\x0d\0\0\0\1"
    ear.hear(enumerate([sealed, receiver, forged, sealed[:9], bytes(74), pong], start=5))
    assert ear.reports == [(SSRC, raw, 5)]
    assert ear.take.tap.ignored == {"rtcp_201": 1, "unauthentic": 1, "not_rtp": 3}


def test_video_is_ignored_and_counted() -> None:
    """By payload type, and by the SSRCs that the gateway announced."""
    ear = Ear()
    ear.call.connection.video.add(SSRC + 1)
    frame = ear.call.say(ADA, opus(1))
    ear.hear(
        [
            (1, ear.call.datagram(frame, sequence=1, ssrc=SSRC, payload_type=101)),
            (2, ear.call.datagram(frame, sequence=1, ssrc=SSRC + 1)),
            (3, ear.call.datagram(frame, sequence=1, ssrc=ear.call.connection.own_ssrc)),
        ]
    )
    assert ear.finish() == []
    assert ear.take.tap.ignored == {"video": 2, "own": 1}


def test_forgeries_leave_no_ssrc_behind() -> None:
    """A datagram of a new SSRC that is not authentic is counted; it takes nobody's place in the table of SSRCs."""
    ear = Ear()
    other = TransportCipher.fresh(XCHACHA)
    true, ear.call.cipher = ear.call.cipher, other
    ear.hear((n, ear.call.datagram(b"x" * 40, sequence=n, ssrc=10_000 + n)) for n in range(100))
    ear.call.cipher = true
    ear.hear([(200, ear.call.datagram(ear.call.say(ADA, opus(1)), sequence=1, ssrc=SSRC))])
    assert [packet.payload for packet in ear.finish()] == [opus(1)]
    assert list(ear.take.tap.streams) == [SSRC]
    assert ear.take.tap.ignored == {"unauthentic": 100}


def test_a_transport_key_of_another_length_is_not_used() -> None:
    """A malformed key makes datagrams unauthentic, never a crash; the right one is taken when it comes."""
    ear = Ear()
    key, ear.call.connection.key = ear.call.connection.key, b"short"
    data = ear.call.datagram(ear.call.say(ADA, opus(1)), sequence=1, ssrc=SSRC)
    ear.hear([(1, data)])
    ear.call.connection.key = key
    ear.hear([(2, data)])
    assert [packet.payload for packet in ear.finish()] == [opus(1)]
    assert ear.take.tap.ignored == {"unauthentic": 1}


def test_a_newcomers_keys_cost_no_frame_of_those_who_speak() -> None:
    """Frames from before and after a change of keys, interleaved by the network, open each by its own key."""
    ear = Ear(ADA)
    frames = [(n, ear.call.say(ADA, opus(n))) for n in range(30)]
    ear.call.join(BELA)
    frames += [(n, ear.call.say(ADA, opus(n))) for n in range(30, 60)]
    chance = random.Random(3)
    late = sorted((n * FRAME_NS + chance.randrange(120_000_000), n, frame) for n, frame in frames)
    ear.hear((at_ns, ear.call.datagram(frame, sequence=n, ssrc=SSRC, padding=7)) for at_ns, n, frame in late)
    assert [packet.payload for packet in ear.finish()] == [opus(n) for n in range(60)]
    assert ear.identified == [(SSRC, ADA)]


def test_frames_under_way_when_encryption_ends_are_opened() -> None:
    """After a downgrade to version 0 plain frames are taken as they are, and late encrypted ones are still opened."""
    ear = Ear()
    late = ear.call.datagram(ear.call.say(ADA, opus(1)), sequence=2, ssrc=SSRC)
    ear.call.connection.plain_allowed = True
    plain = [ear.call.datagram(opus(0), sequence=1, ssrc=SSRC), ear.call.datagram(opus(2), sequence=3, ssrc=SSRC)]
    ear.hear([(1, plain[0]), (2, late), (3, plain[1])])
    assert [(packet.payload, packet.outcome) for packet in ear.finish()] == [(opus(n), Outcome.VOICE) for n in range(3)]
