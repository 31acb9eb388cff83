"""Voices: real recordings as ready 20 ms Opus frames.

A recording is resampled to 48 kHz, freed of the silence around it, its inner pauses cut short, and encoded once by
discord.py's own encoder. A person's utterance is a cut whose first and last frames sound, so that "spoke from a to b"
is true within a frame. There are three speakers in the recordings; further voices are theirs, higher or lower.
"""

import ctypes.util
import importlib.util
import random
from functools import cache
from pathlib import Path

import discord.opus
import numpy as np
import numpy.typing as npt
import soundfile

SAMPLE_RATE = 48_000
FRAME_SAMPLES = 960  # 20 ms
BITRATE_KBPS = 64
SOURCES = (
    ("jfk.flac",),
    tuple(f"sense_and_sensibility_01_austen_64kb-{part}.wav" for part in ("0870", "0880", "0890", "0920", "0930")),
    ("livekit-change-amelia.ogg",),
)
PITCHES = ((1, 1), (6, 7), (7, 6), (12, 13), (13, 12), (4, 5))  # up, down: the factor by which a voice is stretched
AUDIBLE_DBFS = -40.0  # after levelling; speech lies at -30 and above, the recordings' floor below -45
LEVEL_RMS = 0.08  # of the sounding frames: -22 dBFS
PAUSE_FRAMES = 10  # pauses inside a recording are cut to 200 ms

Samples = npt.NDArray[np.float32]


class Voice:
    """The frames of one voice, and which of them sound."""

    def __init__(self, frames: list[bytes], sounding: list[bool]) -> None:
        self.frames = frames
        self.sounding = sounding

    def utterance(self, frames: int, *, rng: random.Random) -> list[bytes]:
        """`frames` consecutive frames, from a random place where both ends sound; the recording repeats if short."""
        size = len(self.frames)
        starts = [at for at in rng.sample(range(size), size) if self._sounds_at_both_ends(at, frames)]
        beginnings = (at for at in starts if not self.sounding[at - 1])  # of a word
        start = next(beginnings, starts[0])
        return [self.frames[(start + number) % size] for number in range(frames)]

    def _sounds_at_both_ends(self, start: int, frames: int) -> bool:
        return self.sounding[start] and self.sounding[(start + frames - 1) % len(self.frames)]


@cache
def voice(number: int) -> Voice:
    """
    Voice `number`; equal numbers give the same frames.

    Takes about 50 ms per second of recording the first time; kept for the life of the process.
    """
    pitch, source = divmod(number, len(SOURCES))
    up, down = PITCHES[pitch % len(PITCHES)]
    folder = Path(__file__).parent / "voices"
    pieces = [_audible(_stretched(_load(folder / name), up=up, down=down)) for name in SOURCES[source]]
    blocks = np.concatenate(pieces)
    return Voice(_encode(blocks), [bool(loud) for loud in _sounding(blocks)])


def load_libopus() -> None:
    """Give discord.py the libopus that the opuslib wheel carries, unless it has one already."""
    if discord.opus.is_loaded():
        return
    spec = importlib.util.find_spec("opuslib_next")
    places = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    bundled = [path for place in places for path in Path(place).rglob("libopus*.so*")]
    discord.opus.load_opus(str(bundled[0]) if bundled else ctypes.util.find_library("opus") or "libopus.so.0")


def _load(path: Path) -> Samples:
    """A recording as mono float32 at 48 kHz, shape (samples,)."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _resampled(samples.mean(axis=1), up=SAMPLE_RATE, down=rate)


def _stretched(samples: Samples, *, up: int, down: int) -> Samples:
    return samples if up == down else _resampled(samples, up=up, down=down)


def _resampled(samples: Samples, *, up: int, down: int) -> Samples:
    """At `up / down` times the rate, by its spectrum: cut off or continued by zeros. Shape (samples * up // down,)."""
    size = len(samples) * up // down
    resampled = np.fft.irfft(np.fft.rfft(samples), size) * (size / len(samples))
    return resampled.astype(np.float32)


def _audible(samples: Samples) -> Samples:
    """Levelled frames of 20 ms, shape (frames, 960): no silence around them, short pauses inside."""
    blocks = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    loudest = np.sqrt((blocks**2).mean(axis=1))
    blocks = blocks * np.float32(LEVEL_RMS / loudest[loudest > np.median(loudest)].mean())
    sounds = np.flatnonzero(_sounding(blocks))
    since = np.arange(len(blocks)) - sounds[np.searchsorted(sounds, np.arange(len(blocks)), side="right") - 1]
    keep = (since >= 0) & (since <= PAUSE_FRAMES)
    keep[: sounds[0]] = keep[sounds[-1] + 1 :] = False
    return np.clip(blocks[keep], -1.0, 1.0)


def _sounding(blocks: Samples) -> npt.NDArray[np.bool_]:
    level: npt.NDArray[np.float32] = np.sqrt((blocks**2).mean(axis=1))
    return np.asarray(level > 10 ** (AUDIBLE_DBFS / 20))


def _encode(blocks: Samples) -> list[bytes]:
    load_libopus()
    encoder = discord.opus.Encoder(bitrate=BITRATE_KBPS, fec=False, signal_type="voice")
    stereo = np.repeat((blocks * 32767).astype("<i2")[:, :, None], 2, axis=2)
    return [encoder.encode(block.tobytes(), FRAME_SAMPLES) for block in stereo]
