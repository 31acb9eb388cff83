"""Files: pages that add up, and an FFmpeg that says what is wrong and dies when told."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.clock import TICKS_PER_SECOND
from mixer.errors import EncoderError, FfmpegMissingError
from mixer.formats.about import About
from mixer.formats.ffmpeg import FfmpegWriter, find_ffmpeg
from mixer.formats.ogg import FRESH_START, GRID_TICKS, PAGE_TICKS, SILENCE, OggOpusWriter, crc32_ogg, silence
from mixer.opus import DECODER_DELAY_TICKS, is_well_formed, packet_ticks
from tests.builders import encode_opus, tone
from tests.judge import decode_file

PACKETS = encode_opus(tone(440.0, 1.0))


def crc_by_definition(data: bytes) -> int:
    """RFC 3533 §6, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7 if crc & 0x8000_0000 else crc << 1) & 0xFFFF_FFFF
    return crc


@given(data=st.binary(max_size=200))
def test_the_page_checksum_is_the_one_of_the_standard(data: bytes):
    assert crc32_ogg(data) == crc_by_definition(data)


def pages(data: bytes) -> list[tuple[int, int, int, list[bytes]]]:
    """(flags, granule, number, packets) of every page, each checksum verified."""
    found = []
    while data:
        magic, version, flags, granule, _, number, crc, segments = struct.unpack_from("<4sBBqIIIB", data)
        assert (magic, version) == (b"OggS", 0)
        lacing = data[27 : 27 + segments]
        size = 27 + segments + sum(lacing)
        assert crc_by_definition(data[:22] + b"\0\0\0\0" + data[26:size]) == crc
        body, packets, current = data[27 + segments : size], [], b""
        for length in lacing:
            current, body = current + body[:length], body[length:]
            if length < 255:
                packets.append(current)
                current = b""
        assert not current, "every packet ends on its page"
        found.append((flags, granule, number, packets))
        data = data[size:]
    return found


@settings(max_examples=30, deadline=None)
@given(plan=st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 60)), max_size=5), extra=st.integers(0, 100_000))
def test_pages_carry_their_time_and_end_with_the_session(plan: list[tuple[int, int]], extra: int):
    file = io.BytesIO()
    writer = OggOpusWriter(file, serial=7, tags={"title": "ä" * 300, "artist": ""})
    for pause, frames in plan:
        writer.append(silence(pause))
        for packet in PACKETS[:frames]:
            writer.append([(960, packet)])
    total = max(writer.ticks - DECODER_DELAY_TICKS, 0) + extra
    writer.close(total)
    (head, tags), *rest = [pages(file.getvalue())[:2], *pages(file.getvalue())[2:]]
    assert head[3][0][:8] == b"OpusHead"
    assert struct.unpack_from("<H", head[3][0], 10) == (DECODER_DELAY_TICKS,)
    assert tags[3][0][:8] == b"OpusTags"
    assert (head[0], rest[-1][0]) == (2, 4)
    assert [page[2] for page in rest] == list(range(2, 2 + len(rest)))
    ticks = 0
    for _, granule, _, packets in rest[:-1]:
        page_ticks = sum(map(packet_ticks, packets))
        ticks += page_ticks
        assert granule == ticks
        assert page_ticks <= PAGE_TICKS
    last = ticks + sum(map(packet_ticks, rest[-1][3]))
    assert rest[-1][1] == total + DECODER_DELAY_TICKS <= last


@given(ticks=st.integers(0, 500_000))
def test_a_pause_is_as_long_as_the_grid_allows(ticks: int):
    assert abs(sum(length for length, _ in silence(ticks)) - ticks) <= GRID_TICKS / 2


def test_silence_packets_are_what_they_say():
    for size, payload in (*SILENCE, FRESH_START):
        assert packet_ticks(payload) == size
        assert is_well_formed(payload)


def test_ffmpeg_says_what_is_wrong(tmp_path: Path):
    """A file it cannot write: the error carries its last lines."""
    pcm = np.zeros((TICKS_PER_SECOND, 1), np.int16)

    def encode() -> None:
        with FfmpegWriter(find_ffmpeg(), tmp_path / "missing" / "x.flac", kind="flac") as writer:
            for _ in range(100):
                writer.write(pcm)

    with pytest.raises(EncoderError, match="No such file or directory"):
        encode()


def test_ffmpeg_ends_with_its_render(tmp_path: Path):
    writer = FfmpegWriter(find_ffmpeg(), tmp_path / "x.flac", kind="flac")

    def encode() -> None:
        with writer:
            writer.write(np.zeros((TICKS_PER_SECOND, 1), np.int16))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        encode()
    assert writer._process.poll() is not None


def test_a_wrong_setting_is_named():
    with pytest.raises(FfmpegMissingError, match="RETOLD_FFMPEG: /bin/false"):
        find_ffmpeg("/bin/false")


def test_flac_and_wav_hold_the_very_samples(tmp_path: Path):
    pcm = (tone(440.0, 1.5) * 32767).astype("<i2")
    for kind in ("flac", "wav"):
        with FfmpegWriter(find_ffmpeg(), tmp_path / f"x.{kind}", kind=kind) as writer:
            writer.write(pcm)
        assert np.array_equal(np.rint(decode_file(tmp_path / f"x.{kind}") * 32768), pcm)


def test_an_mp3_says_how_much_its_encoder_added(tmp_path: Path):
    """The LAME tag: players cut the encoder's delay, and the length is the session's."""
    path = tmp_path / "x.mp3"
    with FfmpegWriter(find_ffmpeg(), path, kind="mp3", about=About({"title": "A session"})) as writer:
        writer.write(to_int16(tone(440.0, 1.5)))
    assert b"Info" in path.read_bytes()[:2000]
    assert len(decode_file(path)) == 1.5 * TICKS_PER_SECOND


def to_int16(samples: np.ndarray) -> np.ndarray:
    return (samples * 32767).astype("<i2")
