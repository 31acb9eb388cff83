"""Loudness and true peak by another implementation: FFmpeg's ebur128."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np

from contracts.clock import TICKS_PER_SECOND
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.opus import Samples


class Measured(NamedTuple):
    """What FFmpeg says, to 0.1 dB."""

    loudness_lufs: float
    peak_dbtp: float


def measure(sound: Samples | Path) -> Measured:
    """Mono samples at 48 kHz, float32 (samples, 1), or a sound file."""
    source: tuple[str, ...] = ("-i", str(sound))
    if not isinstance(sound, Path):
        source = ("-f", "f32le", "-ar", str(TICKS_PER_SECOND), "-ac", "1", "-i", "pipe:0")
    done = subprocess.run(
        [
            *(find_ffmpeg().path, "-hide_banner", "-nostats", *source),
            *("-filter_complex", "ebur128=peak=true:framelog=verbose", "-f", "null", "-"),
        ],
        input=b"" if isinstance(sound, Path) else np.ascontiguousarray(sound, dtype="<f4").tobytes(),
        capture_output=True,
        check=True,
    )
    said = done.stderr.decode()
    loudness = re.findall(r"I:\s+(\S+) LUFS", said)[-1]
    peak = re.findall(r"Peak:\s+(\S+) dBFS", said)[-1]
    return Measured(float(loudness), float(peak))
