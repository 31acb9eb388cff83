"""MP3 in segments: frame for frame what one encoder makes, wherever it was stopped and gone on with."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from contracts.clock import TICKS_PER_SECOND
from mixer.errors import EncoderError
from mixer.formats import mp3
from mixer.formats.about import About
from mixer.formats.ffmpeg import Ffmpeg, find_ffmpeg
from mixer.formats.mp3 import FRAME_TICKS, Mp3Frames, Mp3Writer, frame_bytes, id3_tag, info_frame
from tests.builders import speech_samples
from tests.judge import decode_file

KBPS = 96
SHORT_SEGMENT = 400  # frames: ten seconds


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp3, "SEGMENT_FRAMES", SHORT_SEGMENT)


def pcm(seconds: float) -> np.ndarray:
    """Speech, silence, speech: attacks, and nothing at all."""
    sound = speech_samples(seconds)
    sound[len(sound) // 3 : len(sound) // 2] = 0
    return (sound * 25_000).astype(np.int16)


def encode(sound: np.ndarray, path: Path, *, block: int = TICKS_PER_SECOND) -> bytes:
    with path.open("wb") as file, Mp3Frames(find_ffmpeg(), file, kbps=KBPS) as frames:
        for start in range(0, len(sound), block):
            frames.write(sound[start : start + block])
        frames.finish()
    return path.read_bytes()


def in_one_run(sound: np.ndarray) -> bytes:
    return subprocess.run(
        [
            *(find_ffmpeg().path, "-loglevel", "error", "-f", "s16le", "-ar", "48000", "-ac", "1", "-i", "pipe:0"),
            *("-c:a", "libmp3lame", "-b:a", f"{KBPS}k", "-reservoir", "0", "-write_xing", "0", "-id3v2_version", "0"),
            *("-flags:a", "+bitexact", "-f", "mp3", "pipe:1"),
        ],
        input=sound.tobytes(),
        capture_output=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("seconds", [3.0, SHORT_SEGMENT * FRAME_TICKS / TICKS_PER_SECOND, 35.7])
def test_segments_are_frame_for_frame_one_run(seconds: float, tmp_path: Path):
    """Shorter than a segment, exactly one, and several with a rest."""
    assert encode(pcm(seconds), tmp_path / "frames") == in_one_run(pcm(seconds))


def test_frames_do_not_depend_on_how_the_sound_came(tmp_path: Path):
    sound = pcm(25.0)
    assert encode(sound, tmp_path / "a", block=7777) == encode(sound, tmp_path / "b", block=len(sound))


def test_a_segment_that_just_began_can_be_begun_anew(tmp_path: Path):
    """The state between two segments: the file as it is, and the fresh sound; the encoder that was is gone."""
    sound, path, at = pcm(35.0), tmp_path / "frames", 0
    with path.open("wb") as file, Mp3Frames(find_ffmpeg(), file, kbps=KBPS) as frames:
        while frames.segments < 2:
            frames.write(sound[at : at + TICKS_PER_SECOND])
            at += TICKS_PER_SECOND
            if frames.fresh is not None:
                frames.store()
        segments, fresh = frames.segments, frames.fresh
    assert fresh is not None
    with path.open("ab") as file, Mp3Frames(find_ffmpeg(), file, kbps=KBPS, segments=segments, fresh=fresh) as frames:
        frames.write(sound[at:])
        frames.finish()
    assert path.read_bytes() == in_one_run(sound)


def test_listeners_hear_of_every_frame_in_order(tmp_path: Path):
    """In pieces, each frame once; segments at work together may tell of theirs in any order."""
    heard: dict[int, bytes] = {}

    def take(number: int, frames: bytes) -> None:
        heard[number] = frames

    with (tmp_path / "frames").open("wb") as file, Mp3Frames(find_ffmpeg(), file, kbps=KBPS, take=take) as frames:
        frames.write(pcm(25.0))
        frames.finish()
    assert b"".join(heard[number] for number in sorted(heard)) == (tmp_path / "frames").read_bytes()


def test_the_file_is_as_long_as_its_sound_and_keeps_its_tag(tmp_path: Path):
    """Players cut what the encoder added, by the LAME tag; FFmpeg's decoder warns of none of it."""
    sound = pcm(12.345)
    with Mp3Writer(find_ffmpeg(), tmp_path / "x.mp3", kbps=KBPS, about=About({"title": "A session"})) as writer:
        writer.write(sound)
    decoded = decode_file(tmp_path / "x.mp3")
    assert len(decoded) == len(sound)
    assert b"A session" in id3_tag(tmp_path / "x.mp3")
    late = np.sqrt(np.mean((decoded[:, 0] - sound[:, 0] / 32768) ** 2))
    assert late < 0.1 * np.sqrt(np.mean((sound / 32768) ** 2))
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp3"]


def test_a_render_that_fails_leaves_no_frames(tmp_path: Path):
    writer = Mp3Writer(find_ffmpeg(), tmp_path / "x.mp3")

    def fail() -> None:
        with writer:
            writer.write(pcm(3.0))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_the_info_frame_is_a_frame():
    assert len(info_frame(KBPS, frames=10, ticks=10_000)) == frame_bytes(KBPS)


def test_an_encoder_that_ends_says_so(tmp_path: Path):
    frames = Mp3Frames(Ffmpeg("/bin/false", "none"), (tmp_path / "frames").open("wb"), kbps=KBPS)
    with pytest.raises(EncoderError, match="FFmpeg ended with 1"):
        frames.finish()
    frames.__exit__(None, None, None)
