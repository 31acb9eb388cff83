"""Opus packets: what they announce is what libopus decodes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.packets import SILENCE_FRAME
from mixer.opus import (
    DECODER_DELAY_TICKS,
    MAX_PACKET_TICKS,
    Decoder,
    decode_packets,
    is_well_formed,
    packet_ticks,
    version,
)
from tests.builders import encode_opus, speech_samples, tone


@pytest.mark.parametrize("ticks", [120, 240, 480, 960, 1920, 2880, 3840, 4800, 5760])
def test_every_frame_size_is_announced_and_decoded(ticks: int):
    """2.5 to 120 ms (RFC 6716 §3.2)."""
    packets = encode_opus(tone(440.0, 0.6), frame_ticks=ticks)
    assert {packet_ticks(packet) for packet in packets} == {ticks}
    assert len(decode_packets(packets)) == ticks * len(packets)


def test_a_silence_frame_is_twenty_milliseconds():
    assert packet_ticks(SILENCE_FRAME) == 960
    assert np.abs(decode_packets([SILENCE_FRAME])).max() < 1e-30


@given(payload=st.binary(max_size=40))
def test_what_is_well_formed_decodes_to_what_it_announces(payload: bytes):
    """Any bytes at all: broken packets are told apart, and never decode to another length."""
    room = np.empty(MAX_PACKET_TICKS, dtype=np.float32)
    samples = Decoder().decode(payload, room.ctypes.data) if payload else -1
    assert is_well_formed(payload) == (samples > 0)
    if samples > 0:
        assert samples == packet_ticks(payload)


def test_the_decoder_lags_by_the_delay_that_is_subtracted():
    source = tone(440.0, 1.0, 0.5)
    decoded = decode_packets(encode_opus(source, bitrate=256_000))[DECODER_DELAY_TICKS:]
    part = slice(4800, 43_200)
    assert np.abs(decoded[part] - source[part]).max() < 0.05


def test_a_decoder_goes_back_to_the_moment_that_was_saved():
    packets = encode_opus(tone(440.0, 0.2))
    decoder, room = Decoder(), np.zeros(MAX_PACKET_TICKS, dtype=np.float32)
    decoder.decode(packets[0], room.ctypes.data)
    decoder.save()
    decoder.decode(packets[1], room.ctypes.data)
    straight = room.copy()
    decoder.restore()
    decoder.conceal(480, room.ctypes.data)
    decoder.restore()
    decoder.decode(packets[1], room.ctypes.data)
    assert np.array_equal(room, straight)


def test_the_library_says_which_it_is():
    assert version()


@pytest.mark.parametrize("bitrate", [12_000, 64_000, 320_000])
@pytest.mark.parametrize("ticks", [120, 480, 960, 1920, 5760])
def test_packets_in_a_row_sound_as_one_by_one(ticks: int, bitrate: int):
    """Sample for sample, whatever the size of their frames, and as many as there is room for."""
    payloads = encode_opus(speech_samples(2.4), frame_ticks=ticks, bitrate=bitrate)
    durations = np.full(len(payloads), ticks, dtype=np.int32)
    room = np.empty(3 * MAX_PACKET_TICKS, dtype=np.float32)
    decoder, together, done = Decoder(), [], 0
    while done < len(payloads):
        sizes = np.array([len(payload) for payload in payloads[done:]], dtype=np.int32)
        count, samples, broken = decoder.decode_row(
            b"".join(payloads[done:]), sizes, durations[done:], room.ctypes.data, len(room)
        )
        assert count >= 1
        assert samples == count * ticks
        assert not broken
        together.append(room[:samples].copy())
        done += count
    assert np.array_equal(np.concatenate(together), decode_packets(payloads)[:, 0])
