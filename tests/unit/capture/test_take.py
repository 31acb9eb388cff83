"""A take numbers its batches without a gap and counts every packet; facts carry both clocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from capture.batches import BATCH_NS, Batcher
from capture.clock import SessionClock, boot_id, boottime_ns
from capture.consent import Consent
from capture.take import Take
from capture.voice.dave import Heard, Sealed
from capture.voice.reorder import WAIT_NS
from contracts.guilds import GuildSettings
from contracts.packets import BATCH_PACKETS, Outcome, PacketBatch
from tests.dave_group import Line
from tests.sealer import seal

ZERO_NS = 5 * 10**12
FRAME_NS = 20_000_000


def heard(number: int, at_ns: int, outcome: Outcome = Outcome.VOICE) -> Heard:
    return Heard(Sealed(number % 65_536, number, at_ns, b"", -1), number.to_bytes(4), outcome)


@given(st.lists(st.tuples(st.integers(0, 2 * BATCH_NS), st.sampled_from(Outcome)), max_size=150))
def test_packets_come_out_in_batches_without_a_gap(steps: list[tuple[int, Outcome]]):
    """Numbered from 0, no larger than agreed, none older than agreed; every packet once, with its arrival."""
    out: list[PacketBatch] = []
    batcher = Batcher(take=2, ssrc=7, zero_ns=ZERO_NS, publish=out.append)
    now_ns, arrivals = ZERO_NS, []
    for number, (step_ns, outcome) in enumerate(steps):
        now_ns += step_ns
        batcher.tick(now_ns)
        batcher.add(heard(number, now_ns, outcome))
        arrivals.append(now_ns - ZERO_NS)
    batcher.flush()
    batcher.flush()
    assert [batch.number for batch in out] == list(range(len(out))) == list(range(batcher.number))
    assert all(0 < len(batch.packets) <= BATCH_PACKETS and (batch.take, batch.ssrc) == (2, 7) for batch in out)
    packets = [(batch, packet) for batch in out for packet in batch.packets]
    assert [packet.payload for _, packet in packets] == [number.to_bytes(4) for number in range(len(steps))]
    for (batch, packet), arrival_ns in zip(packets, arrivals, strict=True):
        assert 0 <= arrival_ns - batch.arrival_ns(packet) < 1000
        assert arrival_ns - batch.base_ns < BATCH_NS + 2 * BATCH_NS
    assert batcher.outcomes.total() == len(steps)


def test_a_batch_waits_no_longer_than_agreed():
    """The first packet's age decides, by the tick alone."""
    out: list[PacketBatch] = []
    batcher = Batcher(take=1, ssrc=7, zero_ns=0, publish=out.append)
    batcher.add(heard(1, 0))
    batcher.add(heard(2, BATCH_NS - 1))
    batcher.tick(BATCH_NS - 1)
    assert out == []
    batcher.tick(BATCH_NS)
    assert [len(batch.packets) for batch in out] == [2]
    batcher.tick(5 * BATCH_NS)
    assert len(out) == 1


def test_a_takes_counts_are_what_it_published():
    """Batches, outcomes, duplicates and losses per SSRC, and whose it is."""
    out: list[PacketBatch] = []
    line = Line(encrypted=False)
    take = Take(
        number=3,
        zero_ns=ZERO_NS,
        connection=line,
        publish=out.append,
        identified=lambda _ssrc, _user: None,
        consent=Consent(GuildSettings(guild_id="1")),
    )
    now_ns = ZERO_NS
    for number in [*range(10), 9, 12, *range(13, 60)]:
        now_ns += FRAME_NS
        take.datagram(seal(b"opus", ssrc=70, sequence=number), now_ns)
        take.tick(now_ns + 1)
    take.datagram(seal(b"", ssrc=71, sequence=5, padding=4), now_ns)
    take.datagram(seal(b"x", ssrc=71, sequence=6, key=bytes(32)), now_ns)
    line.named = {70: 300}
    assert take.last_audio_ns is not None
    take.tick(now_ns + WAIT_NS)
    take.finish()
    first, second = take.counts()
    assert (first.take, first.ssrc, first.user_id, first.duplicates, first.lost) == (3, 70, "300", 1, 2)
    assert first.outcomes == {"VOICE": 58}
    assert second.outcomes == {"PADDING": 1, "TRANSPORT": 1}
    assert second.user_id is None
    for count in (first, second):
        mine = [batch for batch in out if batch.ssrc == count.ssrc]
        assert [batch.number for batch in mine] == list(range(count.batches))
        assert sum(len(batch.packets) for batch in mine) == sum(count.outcomes.values())
    assert all(batch.take == 3 and batch.base_ns < now_ns - ZERO_NS + 1 for batch in out)


def test_the_session_clock_starts_at_zero():
    """And runs with CLOCK_BOOTTIME; the boot has a name."""
    before = boottime_ns()
    clock = SessionClock.start()
    assert before <= clock.zero_boottime_ns <= boottime_ns()
    assert clock.at_ns(clock.zero_boottime_ns + 7) == 7
    assert 0 <= clock.now_ns() < 10**9
    assert boot_id() == boot_id()
