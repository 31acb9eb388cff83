"""The voice socket's wire formats: whatever is packed is unpacked again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.loopback import rtp
from ops.loopback.errors import MalformedMessageError
from ops.loopback.transport import AES_GCM, XCHACHA, TransportCipher

U16, U32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
ELEMENTS = st.dictionaries(st.integers(1, 14), st.binary(min_size=1, max_size=16), max_size=4)


@given(st.builds(rtp.Header, U16, U32, U32, st.integers(0, 127), st.booleans(), st.booleans()))
def test_header_survives_the_wire(header: rtp.Header):
    """Unpacking a packed header gives the header."""
    packed = header.pack()
    assert len(packed) == 12
    assert rtp.unpack_header(packed + b"payload") == header


@given(ELEMENTS)
def test_extension_elements_survive_the_wire(elements: dict[int, bytes]):
    """Unpacking packed elements gives the elements, in whole words."""
    packed = rtp.pack_elements(elements)
    assert len(packed) % 4 == 0
    assert rtp.unpack_elements(packed) == elements


def test_speech_carries_level_and_flags_in_one_word():
    """The extension of ordinary speech is BE DE, one word, elements 1 and 9."""
    packed = rtp.voice_elements(30)
    assert rtp.extension_preamble(packed) == bytes.fromhex("bede0001")
    assert packed == bytes([0x10, 0x80 | 30, 0x90, 0x02])


@given(st.binary(max_size=200), st.integers(1, 255))
def test_padding_comes_off_again(payload: bytes, count: int):
    """Unpadding a padded payload gives the payload; the count byte counts itself."""
    padded = rtp.pad(payload, count)
    assert len(padded) == len(payload) + count
    assert rtp.unpad(padded) == payload


@pytest.mark.parametrize("padded", [b"", b"\0", b"\5abc"])
def test_padding_that_does_not_fit_is_malformed(padded: bytes):
    """A padding count of zero or beyond the packet is refused."""
    with pytest.raises(MalformedMessageError):
        rtp.unpad(padded)


@given(U32, st.ip_addresses(v=4), U16)
def test_discovery_survives_the_wire(ssrc: int, address: object, port: int):
    """The question is told from everything else, and the answer carries address and port."""
    question, answer = rtp.discovery_question(ssrc), rtp.discovery_answer(ssrc, str(address), port)
    assert len(question) == len(answer) == 74
    assert rtp.read_discovery_question(question) == ssrc
    assert rtp.read_discovery_question(answer) is None
    assert rtp.read_discovery_answer(answer) == (ssrc, str(address), port)


def test_sender_report_has_the_layout_of_rfc_3550():
    """A report is 28 bytes, type 200, NTP seconds since 1900."""
    report = rtp.sender_report(ssrc=7, unix_ns=1_500_000_000, rtp_time=2**32 + 5, packets=3, octets=9)
    assert len(report) == 28
    assert report[:4] == bytes.fromhex("80c80006")
    assert int.from_bytes(report[8:12], "big") == rtp.NTP_EPOCH_S + 1
    assert int.from_bytes(report[12:16], "big") == 2**31
    assert [int.from_bytes(report[at : at + 4], "big") for at in (16, 20, 24)] == [5, 3, 9]


@pytest.mark.parametrize("mode", [XCHACHA, AES_GCM])
@given(clear=st.binary(min_size=8, max_size=16), payload=st.binary(max_size=100))
def test_what_is_sealed_can_be_opened(mode: str, clear: bytes, payload: bytes):
    """Opening a sealed datagram gives the payload; the clear part stays readable; the counter moves on."""
    cipher = TransportCipher.fresh(mode)
    first, second = cipher.seal(clear, payload), cipher.seal(clear, payload)
    assert first.startswith(clear)
    assert (first[-4:], second[-4:]) == (bytes(4), bytes([0, 0, 0, 1]))
    assert cipher.open(second, clear_bytes=len(clear)) == cipher.open(first, clear_bytes=len(clear)) == payload
