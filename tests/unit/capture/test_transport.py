"""A datagram opens to what was sealed, and to nothing else."""

from __future__ import annotations

import contextlib
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.voice.transport import (
    AES256_GCM,
    XCHACHA20,
    Frame,
    Header,
    TransportError,
    audio_level,
    is_rtcp,
    is_rtp,
    open_datagram,
    opener,
    parse_header,
    strip_padding,
)
from contracts.errors import MalformedError
from contracts.packets import NO_LEVEL
from tests.sealer import KEY, one_byte_elements, seal, seal_raw, two_byte_elements
from tests.strategies import u16, u32

MODES = st.sampled_from([XCHACHA20, AES256_GCM])
OPENERS = {mode: opener(mode, KEY) for mode in (XCHACHA20, AES256_GCM)}
Elements: TypeAlias = list[tuple[int, bytes]]

levels = st.none() | st.integers(0, 127)
others = st.lists(st.tuples(st.integers(2, 14), st.binary(min_size=1, max_size=16)), max_size=4)


def opened(data: bytes, mode: str = XCHACHA20) -> tuple[Header, Frame]:
    header = parse_header(data)
    return header, open_datagram(data, header, OPENERS[mode])


datagrams = st.fixed_dictionaries(
    {
        "payload": st.binary(max_size=200),
        "sequence": u16,
        "timestamp": u32,
        "ssrc": u32,
        "counter": u32,
        "mode": MODES,
        "csrcs": st.lists(u32, max_size=15).map(tuple),
        "padding": st.integers(0, 255),
    }
)


@given(datagrams, levels, others, others, st.sampled_from(["none", "one", "two", "other"]))
def test_what_is_sealed_opens(said: dict[str, Any], level: int | None, before: Elements, after: Elements, form: str):
    """Any payload behind any contributing sources, extension of either form, and padding, in both modes."""
    mine = [] if level is None else [(1, bytes([0x80 | level]))]
    elements = [*before, *mine, *after]
    extension = {
        "none": None,
        "one": (0xBEDE, one_byte_elements(elements)),
        "two": (0x1005, two_byte_elements(elements)),
        "other": (0xABCD, one_byte_elements(elements)),
    }[form]
    data = seal(**said, extension=extension)
    header, frame = opened(data, said["mode"])
    assert is_rtp(data)
    assert not is_rtcp(data)
    clear = (header.sequence, header.timestamp, header.ssrc, header.payload_type)
    assert clear == (said["sequence"], said["timestamp"], said["ssrc"], 120)
    assert frame.payload == said["payload"]
    assert frame.level == (NO_LEVEL if level is None or form in {"none", "other"} else level)


@given(MODES, st.integers(1, 255))
def test_padding_alone_is_an_empty_payload(mode: str, padding: int):
    """A packet that holds nothing but padding is well-formed."""
    assert opened(seal(b"", mode=mode, padding=padding), mode)[1].payload == b""


@given(MODES, st.integers(0, 40))
def test_padding_longer_than_the_packet_is_malformed(mode: str, size: int):
    """A count of 0, or of more than there is."""
    clear = bytes([0xA0]) + seal(b"")[1:12]  # says that it is padded
    for count in (0, size + 2, 255):
        with pytest.raises(MalformedError):
            opened(seal_raw(clear, bytes(size) + bytes([count]), mode=mode), mode)
    with pytest.raises(MalformedError):
        strip_padding(b"")


def test_an_extension_longer_than_the_packet_is_malformed():
    """Its length is in the clear part, and may promise more words than were encrypted."""
    clear = seal(b"", extension=(0xBEDE, b""))[:14] + (9).to_bytes(2)
    with pytest.raises(MalformedError, match="extension"):
        opened(seal_raw(clear, bytes(20)))


@given(st.binary(max_size=60), MODES, st.data())
def test_any_changed_byte_fails_the_authentication(payload: bytes, mode: str, data: st.DataObject):
    """Of the header, the ciphertext, the tag or the counter: MalformedError, mostly TransportError."""
    datagram = bytearray(seal(payload, mode=mode, extension=(0xBEDE, b"\x10\xaa\0\0"), csrcs=(9,)))
    position = data.draw(st.integers(0, len(datagram) - 1))
    datagram[position] ^= data.draw(st.integers(1, 255))
    if is_rtp(bytes(datagram)):
        with pytest.raises(MalformedError):
            opened(bytes(datagram), mode)


@given(st.binary(max_size=40), MODES)
def test_a_cut_datagram_is_malformed(payload: bytes, mode: str):
    """At every length."""
    whole = seal(payload, mode=mode, extension=(0xBEDE, b"\x10\xaa\0\0"), padding=3)
    for length in range(12, len(whole)):
        with pytest.raises(MalformedError):
            opened(whole[:length], mode)


@settings(max_examples=500)
@given(st.binary(min_size=12, max_size=120), MODES)
def test_garbage_is_malformed(garbage: bytes, mode: str):
    """Random bytes never raise anything else, and never open."""
    with pytest.raises(MalformedError):
        opened(garbage, mode)


@given(st.binary(max_size=40))
def test_every_datagram_can_be_classified(data: bytes):
    """Short ones and foreign ones are simply no RTP."""
    if is_rtp(data):
        assert len(data) >= 12
        is_rtcp(data)
        with contextlib.suppress(MalformedError):
            parse_header(data)


def test_another_key_does_not_open():
    """Nor does the other mode."""
    for mode in OPENERS:
        data = seal(b"opus", mode=mode)
        with pytest.raises(TransportError):
            open_datagram(data, parse_header(data), opener(mode, bytes(32)))
        (other,) = set(OPENERS) - {mode}
        with pytest.raises(TransportError):
            opened(data, other)


def test_an_unknown_mode_is_named():
    """So that the log says what Discord chose."""
    with pytest.raises(MalformedError, match="aead_new"):
        opener("aead_new", KEY)


@given(st.integers(0, 2**16 - 1) | st.sampled_from([0xBEDE, 0x1000, 0x100F]), st.binary(max_size=40))
def test_any_extension_has_a_level_or_none(profile: int, elements: bytes):
    """Whatever stands in it, the answer is 0 to 127 or NO_LEVEL."""
    assert NO_LEVEL <= audio_level(profile, elements) <= 127


@pytest.mark.parametrize("kind", range(192, 224))
def test_rtcp_is_told_by_its_type(kind: int):
    """200 to 206 on Discord; the whole range of RFC 5761."""
    assert is_rtcp(bytes([0x80, kind]))
    assert not is_rtcp(bytes([0x80, 120 | 0x80]))
