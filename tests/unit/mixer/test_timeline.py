"""Placement: right within a millisecond, and a function of the packets alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.clock import TICKS_PER_SECOND
from contracts.jetstream.replay import LogMessage
from contracts.packets import Outcome, Packet, PacketBatch, decode_batch, encode_batch
from contracts.recipes import Alignment
from contracts.subjects import PacketSubject, parse
from mixer.lanes import OVERLAP_TICKS
from mixer.replay import STAMP, Session, SessionFold, Track
from mixer.report import report_track
from mixer.timeline import PlacedSource, Timeline
from tests.builders import FRAME_S, Built, Network, build_session
from tests.senders import source_of

START_P95_MS = 1.0  # the goal where the sender's clock runs on
SEEDS = range(3)


def fold(messages: list[LogMessage]) -> Session:
    state = SessionFold()
    for message in messages:
        state.apply(message.subject, message.data)
    return state.session()


def placements(messages: list[LogMessage], alignment: Alignment = "hindsight") -> dict[str, list[PlacedSource]]:
    tracks = fold(messages).tracks
    timeline = Timeline(tracks, alignment)
    return {track.user_id: list(timeline.place(track)) for track in tracks}


def start_errors_ms(built: Built) -> np.ndarray:
    """Error of every utterance's first packet, less each speaker's median: the constant delay cannot be known."""
    errors = []
    for (placed,) in placements(built.messages).values():
        captured = np.array(built.placed[placed.source.ssrc])[placed.record]
        first = np.concatenate(([True], np.diff(captured) > 10 * FRAME_S))
        error = placed.tick[first] / TICKS_PER_SECOND - captured[first]
        errors.append((error - np.median(error)) * 1000)
    return np.concatenate(errors)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "network",
    [
        Network(jitter_ms=4.0, skew_ppm=100.0),
        Network(jitter_ms=15.0, skew_ppm=100.0, loss=0.05),
        Network(),
    ],
    ids=["home", "bad wifi", "perfect"],
)
def test_utterances_start_within_a_millisecond(network: Network, seed: int):
    """Ten minutes through jitter, loss and clocks that are off by up to 100 ppm."""
    built = build_session(600.0, 2, 0.35, seed, network=network)
    assert np.quantile(np.abs(start_errors_ms(built)), 0.95) <= START_P95_MS


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sender_whose_clock_stops_in_silence_is_placed_by_arrival(seed: int):
    built = build_session(300.0, 2, 0.35, seed, network=Network(jitter_ms=4.0, stopped_clock=True))
    assert np.quantile(np.abs(start_errors_ms(built)), 0.95) <= 2 * START_P95_MS


def test_skew_is_found_in_parts_per_million():
    built = build_session(600.0, 3, 0.35, 5, network=Network(jitter_ms=4.0, skew_ppm=100.0))
    for (placed,) in placements(built.messages).values():
        captured = np.array(built.placed[placed.source.ssrc])[placed.record]
        stamps = placed.source.stamps[placed.record]
        rtp = np.unwrap(stamps["timestamp"].astype(float), period=2**32) / TICKS_PER_SECOND
        true = (captured[-1] - captured[0]) / (rtp[-1] - rtp[0]) - 1
        assert placed.notes.skews[0].skew == pytest.approx(true, abs=1e-6)


def test_lost_packets_keep_their_place():
    lossy = build_session(60.0, 1, 0.5, 9, network=Network(loss=0.2))
    (placed,) = placements(lossy.messages)["100000"]
    captured = np.array(lossy.placed[placed.source.ssrc])[placed.record]
    error = placed.tick / TICKS_PER_SECOND - captured
    assert np.ptp(error) < 2 / TICKS_PER_SECOND
    lost = round((captured[-1] - captured[0]) / FRAME_S) + 1 - len(captured)
    assert 0 < placed.lost.sum() <= lost


def test_a_sender_that_stalls_is_followed_and_reported():
    """From 20 s on everything comes 700 ms later, with RTP time running on: the sound was captured later."""
    built = build_session(40.0, 1, plan=[[(1.0, 38.0)]])
    messages = [
        change_packets(message, lambda at_ns, packet: (at_ns + stall(at_ns), packet)) for message in built.messages
    ]
    (placed,) = placements(messages)["100000"]
    assert [round(step.milliseconds) for step in placed.notes.steps] == [700]
    captured = np.array(built.placed[placed.source.ssrc])[placed.record]
    late = placed.tick / TICKS_PER_SECOND - captured
    assert late[-1] - late[0] == pytest.approx(0.7, abs=0.001)


def test_where_a_map_jumps_back_nothing_is_lost_and_nothing_overlaps():
    """From 20 s on everything comes 400 ms earlier, in mid-speech: both ends are kept, side by side."""
    built = build_session(40.0, 1, plan=[[(1.0, 38.0)]])

    def hurry(at_ns: int, packet: Packet) -> tuple[int, Packet]:
        return at_ns - (400_000_000 if at_ns > 20_000_000_000 else 0), packet

    lanes = placements([change_packets(message, hurry) for message in built.messages])["100000"]
    assert len(lanes) == 2
    assert sum(len(lane.tick) for lane in lanes) == len(lanes[0].source.stamps)
    for lane in lanes:
        assert (lane.tick[1:] >= lane.tick[:-1] + lane.ticks[:-1] - 1).all()


def stall(at_ns: int) -> int:
    return 700_000_000 if at_ns > 20_000_000_000 else 0


def test_a_sender_that_starts_anew_on_its_ssrc_is_placed_anew():
    """Sequence and timestamp jump to other random values in mid-session."""

    def restart(at_ns: int, packet: Packet) -> tuple[int, Packet]:
        if at_ns < 20_000_000_000:
            return at_ns, packet
        return at_ns, msgspec.structs.replace(
            packet,
            sequence=(packet.sequence + 30_000) & 0xFFFF,
            timestamp=(packet.timestamp + 3_000_000_000) & 0xFFFF_FFFF,
        )

    built = build_session(40.0, 1, 0.6, 4)
    (placed,) = placements([change_packets(message, restart) for message in built.messages])["100000"]
    captured = np.array(built.placed[placed.source.ssrc])[placed.record]
    assert len(placed.notes.skews) == 2
    assert np.ptp(placed.tick / TICKS_PER_SECOND - captured) < 2 / TICKS_PER_SECOND


def change_packets(message: LogMessage, change: Callable[[int, Packet], tuple[int, Packet]]) -> LogMessage:
    if not isinstance(parse(message.subject), PacketSubject):
        return message
    batch = decode_batch(message.data)
    changed = [change(batch.arrival_ns(packet), packet) for packet in batch.packets]
    packets = tuple(
        msgspec.structs.replace(packet, arrival_us=(at_ns - batch.base_ns) // 1000) for at_ns, packet in changed
    )
    return msgspec.structs.replace(message, data=encode_batch(msgspec.structs.replace(batch, packets=packets)))


ALIGNMENTS = st.sampled_from(["hindsight", "follow", "arrival"])
REFERENCE = build_session(30.0, 3, 0.5, 2, network=Network(jitter_ms=8.0, loss=0.03, skew_ppm=80.0))


def same(one: dict[str, list[PlacedSource]], other: dict[str, list[PlacedSource]]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(a.tick, b.tick) and np.array_equal(a.source.stamps, b.source.stamps) and a.notes == b.notes
        for user in one
        for a, b in zip(one[user], other[user], strict=True)
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), copies=st.integers(0, 40), alignment=ALIGNMENTS)
def test_any_order_and_duplication_of_the_log_gives_the_same_timeline(seed: int, copies: int, alignment: Alignment):
    chance = random.Random(seed)
    shuffled = REFERENCE.messages + chance.choices(REFERENCE.messages, k=copies)
    chance.shuffle(shuffled)
    assert same(placements(shuffled, alignment), placements(REFERENCE.messages, alignment))


@settings(max_examples=15, deadline=None)
@given(size=st.integers(1, 40), alignment=ALIGNMENTS)
def test_any_split_into_batches_gives_the_same_timeline(size: int, alignment: Alignment):
    assert same(placements(resplit(REFERENCE.messages, size), alignment), placements(REFERENCE.messages, alignment))


def test_by_arrival_each_talkspurt_lies_where_it_came_in():
    """The RTP clock of a sender jumps by seconds at every pause: arrivals do not care."""
    built = build_session(60.0, 1, 0.5, 4, network=Network(jitter_ms=4.0))
    jumps = random.Random(1)
    shift, last_ns = 0, 0

    def wild(at_ns: int, packet: Packet) -> tuple[int, Packet]:
        nonlocal shift, last_ns
        shift += jumps.randrange(2**30) if at_ns - last_ns > 300_000_000 else 0
        last_ns = at_ns
        return at_ns, msgspec.structs.replace(packet, timestamp=(packet.timestamp + shift) & 0xFFFF_FFFF)

    lanes = placements([change_packets(message, wild) for message in built.messages], "arrival")["100000"]
    for placed in lanes:
        captured = np.array(built.placed[placed.source.ssrc])[placed.record]
        late = placed.tick / TICKS_PER_SECOND - captured
        assert np.ptp(late) < 0.02


@settings(max_examples=40, deadline=None)
@given(data=st.data(), alignment=ALIGNMENTS)
def test_whatever_is_in_the_log_each_packet_has_one_place_or_none(data: st.DataObject, alignment: Alignment):
    """Garbage in every field: no error, nothing twice, lanes free of overlaps."""
    count = data.draw(st.integers(1, 60))
    stamps = np.zeros(count, dtype=STAMP)
    start_ns = data.draw(st.integers(-(10**9), 10**11))
    gaps_ns = data.draw(st.lists(st.integers(-(10**8), 10**11), min_size=count, max_size=count))
    stamps["arrival_ns"] = start_ns + np.cumsum(gaps_ns)
    stamps["sequence"] = data.draw(st.lists(st.integers(0, 2**16 - 1), min_size=count, max_size=count))
    stamps["timestamp"] = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=count, max_size=count))
    stamps["ticks"] = data.draw(st.lists(st.sampled_from([0, 120, 960, 5760]), min_size=count, max_size=count))
    stamps["outcome"] = data.draw(st.lists(st.sampled_from(list(Outcome)), min_size=count, max_size=count))
    track = Track("1", "Ada", (source_of(stamps, take=1, ssrc=7),))
    lanes = Timeline([track], alignment).place(track)
    records = np.concatenate([np.empty(0, np.int64), *(lane.record for lane in lanes)])
    assert len(np.unique(records)) == len(records)
    assert (stamps["ticks"][records] > 0).all()
    for lane in lanes:
        assert (lane.tick[1:] >= lane.tick[:-1] + lane.ticks[:-1] - OVERLAP_TICKS).all()
    report_track(track, lanes)


def resplit(messages: list[LogMessage], size: int) -> list[LogMessage]:
    """The same packets in batches of another size."""
    flat: dict[tuple[str, int, int], list[tuple[int, Packet]]] = {}
    out = []
    for message in messages:
        if isinstance(parse(message.subject), PacketSubject):
            batch = decode_batch(message.data)
            flat.setdefault((message.subject, batch.take, batch.ssrc), []).extend(
                (batch.arrival_ns(packet), packet) for packet in batch.packets
            )
        else:
            out.append(message)
    for (subject, take, ssrc), rows in flat.items():
        for number, start in enumerate(range(0, len(rows), size)):
            part = rows[start : start + size]
            packets = tuple(
                msgspec.structs.replace(packet, arrival_us=(at_ns - part[0][0]) // 1000) for at_ns, packet in part
            )
            batch = PacketBatch(take=take, ssrc=ssrc, number=number, base_ns=part[0][0], packets=packets)
            out.append(LogMessage(0, subject, batch.message_id, encode_batch(batch)))
    return out


def test_packets_that_cannot_be_opened_are_lost_frames_not_sound():
    def lock(at_ns: int, packet: Packet) -> tuple[int, Packet]:
        locked = packet.outcome is Outcome.VOICE and packet.sequence % 7 == 0
        return at_ns, msgspec.structs.replace(packet, outcome=Outcome.NO_KEY) if locked else packet

    built = build_session(20.0, 1, 0.6, 1)
    (placed,) = placements([change_packets(message, lock) for message in built.messages])["100000"]
    assert placed.lost.sum() == (placed.source.stamps["outcome"] == Outcome.NO_KEY).sum() - on_the_edge(placed)


def on_the_edge(placed: PlacedSource) -> int:
    """Locked packets before the first or after the last that can be heard."""
    heard = np.flatnonzero(placed.source.stamps["outcome"] != Outcome.NO_KEY)
    return int(heard[0] + len(placed.source.stamps) - 1 - heard[-1])
