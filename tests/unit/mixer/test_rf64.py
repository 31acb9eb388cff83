"""WAV past 4 GiB: RF64, whose sizes have 64 bits (EBU Tech 3306)."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from contracts.clock import TICKS_PER_SECOND
from mixer.formats.ffmpeg import FfmpegWriter, find_ffmpeg
from tests.builders import tone
from tests.judge import tone_level

MINUTE = np.zeros((60 * TICKS_PER_SECOND, 1), dtype=np.int16)
MINUTES = 750  # 12.5 hours of 16 bits: 4.32 GB
_DS64 = struct.Struct("<4sIQQQ")


@pytest.mark.soak
def test_a_wav_past_4_gib_is_rf64_and_keeps_its_end(tmp_path: Path):
    """Sizes in `ds64` are the file's, and the last second, beyond 32 bits, is where two readers look for it."""
    path, last = tmp_path / "long.wav", (tone(1000.0, 1.0) * 32767).astype("<i2")
    with FfmpegWriter(find_ffmpeg(), path, kind="wav") as writer:
        for _ in range(MINUTES):
            writer.write(MINUTE)
        writer.write(last)
    size = path.stat().st_size
    samples = MINUTES * len(MINUTE) + len(last)
    assert size > 1 << 32
    with path.open("rb") as file:
        head = file.read(48)
        file.seek(size - last.nbytes)
        assert file.read() == last.tobytes()
    assert head[:12] == b"RF64\xff\xff\xff\xffWAVE"
    name, _, riff_bytes, data_bytes, count = _DS64.unpack_from(head, 12)
    assert (name, riff_bytes, data_bytes, count) == (b"ds64", size - 8, 2 * samples, samples)
    source = ("-ss", str(MINUTES * 60 - 1), "-i", str(path))
    command = [find_ffmpeg().path, "-v", "error", *source, "-f", "f32le", "pipe:1"]
    end = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, "<f4").reshape(-1, 1)
    assert len(end) == 2 * TICKS_PER_SECOND
    assert not end[:TICKS_PER_SECOND].any()
    assert tone_level(end[TICKS_PER_SECOND:], 1000.0) == pytest.approx(0.2, rel=0.01)
    assert read_by_soundfile(path) == samples


def read_by_soundfile(path: Path) -> int:
    """Frames as libsndfile, another implementation, counts them."""
    soundfile = pytest.importorskip("soundfile")
    return soundfile.info(str(path)).frames


def test_a_short_wav_is_a_plain_one(tmp_path: Path):
    """RIFF, as every player reads it."""
    with FfmpegWriter(find_ffmpeg(), tmp_path / "x.wav", kind="wav") as writer:
        writer.write(MINUTE[:TICKS_PER_SECOND])
    assert (tmp_path / "x.wav").read_bytes()[:4] == b"RIFF"
