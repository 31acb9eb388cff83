"""Packets in columns: what goes in comes out, by source and number, however it came."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from contracts.packets import Outcome, Packet, PacketBatch
from mixer import columns
from mixer.columns import Columns
from mixer.opus import durations, is_well_formed, packet_ticks

PAYLOADS = st.binary(max_size=60)
PACKETS = st.builds(
    Packet,
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFF_FFFF),
    arrival_us=st.integers(-500_000, 1_000_000),
    payload=PAYLOADS,
    outcome=st.sampled_from(Outcome),
)
SOURCES = st.lists(st.lists(st.lists(PACKETS, max_size=4), min_size=1, max_size=5), min_size=1, max_size=3)


def batches_of(sources: list[list[list[Packet]]]) -> list[PacketBatch]:
    return [
        PacketBatch(1, ssrc, number, 10**9 * number, tuple(packets))
        for ssrc, found in enumerate(sources)
        for number, packets in enumerate(found)
    ]


@given(sources=SOURCES, seed=st.integers(0, 1000), flush=st.sampled_from([1, 5, 1000]))
def test_every_packet_comes_back_with_its_payload(sources: list[list[list[Packet]]], seed: int, flush: int):
    """In any order, with batches twice, whenever they are written: each source by number, each batch once."""
    given_ = batches_of(sources)
    shuffled = [*given_, *given_[: seed % 4]]
    random.Random(seed).shuffle(shuffled)
    previous, columns.FLUSH_PACKETS = columns.FLUSH_PACKETS, flush
    try:
        held = Columns()
        for batch in shuffled:
            held.append(batch)
    finally:
        columns.FLUSH_PACKETS = previous
    assert held.sources() == [(1, ssrc) for ssrc in range(len(sources))]
    for ssrc, found in enumerate(sources):
        expected = [
            (packet, 10**9 * number + packet.arrival_us * 1000)
            for number, packets in enumerate(found)
            for packet in packets
        ]
        rows = held.rows((1, ssrc))
        stamps = rows["stamp"]
        assert stamps["sequence"].tolist() == [packet.sequence for packet, _ in expected]
        assert stamps["timestamp"].tolist() == [packet.timestamp for packet, _ in expected]
        assert stamps["outcome"].tolist() == [packet.outcome for packet, _ in expected]
        assert stamps["arrival_ns"].tolist() == [arrival for _, arrival in expected]
        together = held.payloads(rows["offset"], rows["size"].astype(np.int64))
        assert together == b"".join(packet.payload for packet, _ in expected)
        assert held.voiced((1, ssrc)) == any(packet.outcome == Outcome.VOICE for packet, _ in expected)


@given(payloads=st.lists(PAYLOADS, max_size=20))
def test_a_buffer_of_packets_lasts_as_long_as_its_packets(payloads: list[bytes]):
    """What libopus would not take has no duration."""
    size = np.array([len(payload) for payload in payloads], dtype=np.int64)
    found = durations(b"".join(payloads), np.cumsum(size) - size, size)
    assert found.tolist() == [packet_ticks(payload) if is_well_formed(payload) else 0 for payload in payloads]
