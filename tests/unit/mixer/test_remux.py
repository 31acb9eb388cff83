"""Opus copies: each packet where it belongs, and what is lost keeps its time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from contracts.clock import FRAME_TICKS, TICKS_PER_SECOND
from contracts.packets import Packet, PacketBatch
from mixer.columns import Columns
from mixer.feed import PLACED
from mixer.formats.ogg import OggOpusWriter
from mixer.opus import MAX_PACKET_TICKS, Decoder, Samples, concealed, decode_packets, packet_ticks
from mixer.remux import CONCEAL_TICKS, Remuxer
from tests.builders import encode_opus, speech_samples, tone
from tests.judge import decode_file

SECONDS = 4.0
TONE_RMS = 0.2 / np.sqrt(2)
MODES = {"CELT": 64_000, "SILK": 8_000}


def packets_of(bitrate: int, frame_ticks: int = FRAME_TICKS) -> list[bytes]:
    return encode_opus(tone(440.0, 3.0), bitrate=bitrate, frame_ticks=frame_ticks)


def copy(placed: list[tuple[int, bytes, int]], path: Path) -> tuple[Samples, Remuxer]:
    """A file of packets (tick, payload, frames lost after it), decoded."""
    columns = Columns()
    columns.append(PacketBatch(1, 2, 0, 0, tuple(Packet(0, 0, 0, payload) for _, payload, _ in placed)))
    rows = columns.rows((1, 2))
    packets = np.zeros(len(placed), dtype=PLACED)
    packets["tick"], packets["lost"] = [tick for tick, _, _ in placed], [lost for _, _, lost in placed]
    packets["ticks"] = rows["stamp"]["ticks"]
    packets["offset"], packets["size"] = rows["offset"], rows["size"]
    with path.open("wb") as file:
        remuxer = Remuxer(
            OggOpusWriter(file, serial=1, tags={}), columns, start_tick=0, stop_tick=round(SECONDS * TICKS_PER_SECOND)
        )
        remuxer.write(packets)
        remuxer.close()
    return decode_file(path, decoder="libopus"), remuxer


def run(payloads: list[bytes], at: int, lost: range = range(0)) -> list[tuple[int, bytes, int]]:
    found = [[at + number * FRAME_TICKS, payload, 0] for number, payload in enumerate(payloads)]
    if lost:
        found[lost.start - 1][2] = len(lost)
    return [tuple(packet) for number, packet in enumerate(found) if number not in lost]


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(samples**2)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_what_is_lost_is_concealed_and_the_rest_stays_in_its_place(mode: str, frames: int, tmp_path: Path):
    payloads = packets_of(MODES[mode])
    whole, _ = copy(run(payloads, 24_000), tmp_path / "whole.opus")
    part, remuxer = copy(run(payloads, 24_000, range(60, 60 + frames)), tmp_path / "lossy.opus")
    hole = slice(24_000 + 60 * FRAME_TICKS, 24_000 + (60 + frames) * FRAME_TICKS)
    assert rms(part[hole][: 2 * FRAME_TICKS]) > 0.3 * TONE_RMS  # concealment of 60 ms and more fades
    after = slice(hole.stop + 4 * FRAME_TICKS, hole.stop + 60 * FRAME_TICKS)
    lags = [rms(part[after] - whole[after.start + lag : after.stop + lag]) for lag in (-120, 0, 120)]
    assert lags.index(min(lags)) == 1
    assert remuxer.overlapping == 0


def test_a_long_loss_is_concealed_for_a_tenth_of_a_second_and_then_silent(tmp_path: Path):
    pcm, _ = copy(run(packets_of(64_000), 24_000, range(60, 90)), tmp_path / "x.opus")
    hole = 24_000 + 60 * FRAME_TICKS
    assert rms(pcm[hole : hole + FRAME_TICKS]) > 0.3 * TONE_RMS
    assert rms(pcm[hole + CONCEAL_TICKS + 2 * FRAME_TICKS : hole + 29 * FRAME_TICKS]) < 1e-4


def test_a_clock_that_is_stepped_leaves_no_hole_in_speech(tmp_path: Path):
    """Ten milliseconds that nobody lost: drift, taken out in mid-word."""
    payloads = packets_of(64_000)
    placed = run(payloads[:60], 24_000) + run(payloads[60:120], 24_000 + 60 * FRAME_TICKS + 490)
    pcm, _ = copy(placed, tmp_path / "x.opus")
    at = 24_000 + 60 * FRAME_TICKS
    assert rms(pcm[at : at + 480]) > 0.3 * TONE_RMS


def test_where_two_would_sound_at_once_the_second_is_left_out(tmp_path: Path):
    payloads = packets_of(64_000)
    _, remuxer = copy(
        run(payloads[:60], 24_000) + run(payloads[60:100], 24_000 + 50 * FRAME_TICKS), tmp_path / "x.opus"
    )
    assert remuxer.overlapping == 10


@pytest.mark.parametrize("mode", MODES)
def test_packets_without_a_frame_last_as_long_as_they_say(mode: str):
    toc = packets_of(MODES[mode])[50][0]
    step = 120 if mode == "CELT" else 480
    for ticks in (step, 480, 960, 1440, 4800):
        filling = concealed(toc, ticks)
        assert sum(length for length, _ in filling) == ticks
        assert [packet_ticks(payload) for _, payload in filling] == [length for length, _ in filling]
        assert len(decode_packets([payload for _, payload in filling])) == ticks


def test_ffmpegs_own_decoder_takes_a_copy_with_losses(tmp_path: Path):
    """It conceals nothing, but says nothing either, and what follows keeps its place."""
    payloads = packets_of(64_000)
    copy(run(payloads, 24_000), tmp_path / "whole.opus")
    copy(run(payloads, 24_000, range(60, 63)), tmp_path / "lossy.opus")
    whole, part = (decode_file(tmp_path / name) for name in ("whole.opus", "lossy.opus"))
    assert len(part) == round(SECONDS * TICKS_PER_SECOND)
    after = slice(24_000 + 70 * FRAME_TICKS, 24_000 + 120 * FRAME_TICKS)
    assert rms(part[after] - whole[after]) < 0.1 * TONE_RMS


def test_in_band_fec_brings_back_a_lost_frame():
    """SILK with FEC on: the frame before the one that came is in it, and better than a guess."""
    payloads = encode_opus(speech_samples(2.0), bitrate=20_000, fec=True)
    errors = {}
    for way in ("conceal", "recover"):
        decoder, room = Decoder(), np.zeros(MAX_PACKET_TICKS, dtype=np.float32)
        whole = decode_packets(payloads[:61])[60 * FRAME_TICKS :, 0]
        for payload in payloads[:60]:
            decoder.decode(payload, room.ctypes.data)
        if way == "conceal":
            decoder.conceal(FRAME_TICKS, room.ctypes.data)
        else:
            decoder.recover(payloads[61], FRAME_TICKS, room.ctypes.data)
        errors[way] = float(np.sqrt(np.mean((room[:FRAME_TICKS] - whole) ** 2)))
    assert errors["recover"] < errors["conceal"]


def test_pages_are_cut_the_same_however_packets_come():
    payloads = packets_of(64_000)
    one, many = io.BytesIO(), io.BytesIO()
    for file, step in ((one, len(payloads)), (many, 7)):
        writer = OggOpusWriter(file, serial=1, tags={})
        for first in range(0, len(payloads), step):
            part = payloads[first : first + step]
            writer.extend(b"".join(part), [len(payload) for payload in part], [FRAME_TICKS] * len(part))
        writer.close(len(payloads) * FRAME_TICKS)
    assert one.getvalue() == many.getvalue()
