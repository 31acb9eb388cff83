"""What is encoded decodes to the same, and bytes that mean nothing are MalformedError and nothing else."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import artifacts, commands, directory, events, packets, recipes
from contracts.errors import MalformedError
from contracts.packets import Outcome, PacketBatch
from tests import strategies

DECODERS = {
    "fact": events.decode_fact,
    "batch": packets.decode_batch,
    "recipe": recipes.decode_recipe,
    "job": artifacts.decode_job,
    "render fact": artifacts.decode_render_fact,
    "reply": commands.decode_reply,
    "entry": directory.decode_entry,
}
NASTY = {
    "nothing": b"",
    "null": b"null",
    "no UTF-8 in a string": b'{"type":"note_added.1","id":"\xff"}',
    "no UTF-8 in a key": b'{"\xff":1}',
    "no UTF-8 in a job": b'{"id":"\xff"}',
    "deep": b'{"a":' * 100_000,
    "deep arrays": b'{"a":' + b"[" * 100_000,
    "MessagePack, deep": b"\x96\x01" + b"\x91" * 100_000,
    "a lone surrogate": b'{"id":"\\ud800"}',
    "a huge number": b'{"type":"note_added.1","at_ns":' + b"9" * 5000 + b"}",
}


@given(strategies.facts)
def test_a_fact_survives_the_wire(fact: events.SessionFact):
    """decode(encode(fact)) is the fact."""
    assert events.decode_fact(events.encode_fact(fact)) == fact


@given(strategies.batches)
def test_a_batch_survives_the_wire(batch: PacketBatch):
    """decode(encode(batch)) is the batch, whatever its packets hold."""
    assert packets.decode_batch(packets.encode_batch(batch)) == batch


@pytest.mark.parametrize("what", DECODERS)
@pytest.mark.parametrize("nasty", NASTY)
def test_nasty_bytes_are_malformed(what: str, nasty: str):
    """Nobody can make a decoder raise anything but MalformedError."""
    with pytest.raises(MalformedError):
        DECODERS[what](NASTY[nasty])


@pytest.mark.parametrize("what", DECODERS)
@given(data=st.binary(max_size=80))
def test_random_bytes_are_malformed_or_a_value(what: str, data: bytes):
    """Random bytes do not surprise a decoder."""
    with contextlib.suppress(MalformedError):
        DECODERS[what](data)


@pytest.mark.parametrize(
    "damage",
    [
        {"base_ns": 1 << 62},
        {"base_ns": -(1 << 62)},
        {"number": -1},
        {"ssrc": 1 << 32},
        {"packets": (packets.Packet(1 << 16, 0, 0, b""),)},
        {"packets": (packets.Packet(0, 1 << 32, 0, b""),)},
        {"packets": (packets.Packet(0, 0, 1 << 62, b""),)},
    ],
)
def test_a_batch_of_numbers_that_nobody_sends_is_malformed(damage: dict[str, object]):
    """They would not fit into what is calculated with."""
    batch = packets.PacketBatch(take=1, ssrc=2, number=3, base_ns=4, packets=())
    assert packets.decode_batch(packets.encode_batch(batch)) == batch
    with pytest.raises(MalformedError):
        packets.decode_batch(packets.encode_batch(msgspec.structs.replace(batch, **damage)))


@given(strategies.facts, st.data())
def test_a_damaged_fact_is_malformed_or_another_fact(fact: events.SessionFact, data: st.DataObject):
    """One changed byte of a fact gives MalformedError, or a fact."""
    wire = bytearray(events.encode_fact(fact))
    position = data.draw(st.integers(0, len(wire) - 1))
    wire[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedError):
        events.decode_fact(bytes(wire))


def test_an_unknown_tag_is_malformed():
    """A fact of a later version is not taken for one of ours."""
    with pytest.raises(MalformedError, match=r"session_started\.2"):
        events.decode_fact(b'{"type":"session_started.2"}')


def test_fields_of_a_later_version_are_ignored():
    """A new field, which has a default, does not keep an old reader from reading."""
    fact = events.NoteAdded(id="a", session="b", at_ns=1, unix_ns=2, text="x")
    wire = {**msgspec.to_builtins(fact), "colour": "red"}
    assert events.decode_fact(msgspec.json.encode(wire)) == fact
    batch = [1, 1, 2, 0, 0, [[1, 2, 3, b"x", 0, -1, "later"]], "later"]
    assert packets.decode_batch(msgspec.msgpack.encode(batch)).packets[0].payload == b"x"


@given(st.lists(strategies.tracks, max_size=4))
def test_every_packet_counts_once(tracks: list[events.TrackCount]):
    """Recorded and undecryptable packets together are all packets."""
    totals = events.count_outcomes(tuple(tracks))
    assert totals["recorded"] + totals["undecryptable"] == sum(sum(track.outcomes.values()) for track in tracks)
    undecryptable = [outcome.name for outcome in Outcome if outcome.undecryptable]
    expected = sum(track.outcomes.get(name, 0) for track in tracks for name in undecryptable)
    assert totals["undecryptable"] == expected


def test_an_outcome_of_a_later_version_is_not_recorded():
    """An unknown outcome gives us no Opus, so it counts as undecryptable, and breaks nothing."""
    track = events.TrackCount(take=1, ssrc=2, batches=1, outcomes={"VOICE": 3, "FROM_THE_FUTURE": 2})
    assert events.count_outcomes((track,)) == {"recorded": 3, "undecryptable": 2, "lost": 0, "duplicates": 0}


@given(strategies.batches)
def test_a_packets_arrival_is_on_the_session_clock(batch: PacketBatch):
    """Arrival = base + offset, to the microsecond."""
    assert [batch.arrival_ns(packet) - batch.base_ns for packet in batch.packets] == [
        packet.arrival_us * 1000 for packet in batch.packets
    ]
