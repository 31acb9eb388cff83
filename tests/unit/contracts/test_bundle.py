"""A bundle reads to what was written, or is refused: no damage goes unnoticed."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable
from io import BytesIO

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.bundle import (
    MAGIC,
    MAX_RECORD_BYTES,
    BundleError,
    BundleHeader,
    BundleMessage,
    BundleReader,
    BundleWriter,
)
from contracts.errors import MalformedError
from tests import strategies
from tests.golden import BUNDLE_FILE, FOLDER

HEADER = BundleHeader("s", 1, "test")
SMALL = (BundleMessage("rec.s.evt", "1", b"one"), BundleMessage("rec.s.evt", "2", b"two"))


def written(messages: Iterable[BundleMessage], header: BundleHeader = HEADER) -> bytes:
    file = BytesIO()
    writer = BundleWriter(file, header)
    for message in messages:
        writer.write(message)
    writer.close()
    return file.getvalue()


def read(data: bytes) -> tuple[BundleHeader, list[BundleMessage]]:
    reader = BundleReader(BytesIO(data))
    return reader.header, list(reader.messages())


def record(*fields: object) -> bytes:
    body = msgspec.msgpack.encode(fields)
    return struct.pack(">II", len(body), zlib.crc32(body)) + body


@given(strategies.text, st.lists(strategies.messages, max_size=20))
def test_a_bundle_reads_to_what_was_written(session: str, messages: list[BundleMessage]):
    """read(write(messages)) is the messages, whatever they hold."""
    header = BundleHeader(session, 5, "test")
    assert read(written(messages, header)) == (header, messages)


def test_a_bundle_cut_anywhere_is_refused():
    """A file that ends before its last byte is an error, never fewer messages."""
    whole = written(SMALL)
    for length in range(len(whole)):
        with pytest.raises(BundleError):
            read(whole[:length])


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_noticed(bit: int):
    """Every single bit of the file is guarded."""
    whole = (FOLDER / BUNDLE_FILE).read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bit
        with pytest.raises(BundleError):
            read(bytes(damaged))


@settings(max_examples=300)
@given(st.data())
def test_any_other_damage_is_noticed(data: st.DataObject):
    """A stretch that is replaced, doubled or cut out is an error."""
    whole = written(SMALL)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    piece = data.draw(st.binary(max_size=30) | st.just(whole[start:stop] * 2))
    damaged = whole[:start] + piece + whole[stop:]
    if damaged != whole:
        with pytest.raises(BundleError):
            read(damaged)


def test_two_bundles_in_one_file_are_refused():
    """What stands behind the end record is not silently dropped."""
    with pytest.raises(BundleError, match="follows"):
        read(written(SMALL) + written(SMALL))


def test_a_record_that_was_taken_out_is_noticed():
    """The end record counts and sums: whole records cannot go, come or change places."""
    one, two = (msgspec.msgpack.encode(message) for message in SMALL)
    pieces = [struct.pack(">II", len(body), zlib.crc32(body)) + body for body in (one, two)]
    head = written(())[: len(MAGIC) + len(record(0, "s", 1, "test"))]
    end = written(SMALL)[len(head) + len(pieces[0]) + len(pieces[1]) :]
    assert read(head + pieces[0] + pieces[1] + end)[1] == list(SMALL)
    for order in ([], [0], [1], [1, 0], [0, 1, 1], [0, 0]):
        with pytest.raises(BundleError):
            read(head + b"".join(pieces[number] for number in order) + end)


def test_fields_of_a_later_version_are_summed_as_they_stand():
    """A longer record of a later version is read, and its sum holds."""
    body = msgspec.msgpack.encode((1, "rec.s.evt", "1", b"one", "later"))
    longer = struct.pack(">II", len(body), zlib.crc32(body)) + body
    data = MAGIC + record(0, "s", 1, "test") + longer + record(2, 1, hashlib.sha256(body).digest())
    assert read(data)[1] == [SMALL[0]]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RETOLD-BUNDLE 2\n",
        MAGIC,
        MAGIC + record(1, "rec.s.evt", "1", b"no header"),
        MAGIC + record(0, "s", 1, "test") * 2,
        MAGIC + record(9, "a later kind"),
        MAGIC + record(0, "s", "not a number", "test"),
        MAGIC + struct.pack(">II", MAX_RECORD_BYTES + 1, 0),
        MAGIC + struct.pack(">II", 5, zlib.crc32(b"\x94\x00\xa1\xff\x01")) + b"\x94\x00\xa1\xff\x01",
    ],
)
def test_what_is_no_bundle_is_refused(data: bytes):
    """Each with a BundleError, which is a MalformedError."""
    with pytest.raises(BundleError) as caught:
        read(data)
    assert isinstance(caught.value, MalformedError)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_bundle(data: bytes):
    """Nor are they behind the magic line."""
    for noise in (data, MAGIC + data):
        with pytest.raises(BundleError):
            read(noise)


def test_a_message_can_be_fetched_by_its_place():
    """`message_at` reads the record that starts where `tell` stood."""
    file = BytesIO(written(SMALL))
    reader = BundleReader(file)
    places = []
    position = file.tell()
    for _ in reader.messages():
        places.append(position)
        position = file.tell()
    assert [reader.message_at(place) for place in places] == list(SMALL)
    with pytest.raises(BundleError):
        reader.message_at(position)
