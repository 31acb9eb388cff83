"""Judges a rendered file against the plan: second by second somebody must sound, may sound, or must not.

A cell is *required* where its speaker talks through all of it, *forbidden* where no one does with EDGE_S to spare, and
*optional* between. (The idea of livekit/egress' content checks.)
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import numpy as np

from contracts.clock import TICKS_PER_SECOND
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.opus import Samples

CELL_S = 1.0
EDGE_S = 0.12  # arrival lies a frame and the network's delay after capture, and concealment may ring for 100 ms
SOUND_RMS = 10 ** (-40 / 20)  # speech is 15-25 dB above, tones of the tests 20
QUIET_RMS = 10 ** (-60 / 20)  # digital silence after a lossy codec stays far below


class Rule(Enum):
    """What a cell asks for."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    FORBIDDEN = "forbidden"


def decode_file(path: Path, *, channels: int = 1, decoder: str = "") -> Samples:
    """A sound file as float32 (samples, channels) at 48 kHz, by FFmpeg, with the decoder of that name if given."""
    done = subprocess.run(
        [
            find_ffmpeg().path,
            *("-hide_banner", "-loglevel", "error", *(("-c:a", decoder) if decoder else ()), "-i", str(path)),
            *("-f", "f32le", "-ar", str(TICKS_PER_SECOND), "-ac", str(channels), "pipe:1"),
        ],
        capture_output=True,
        check=True,
    )
    assert not done.stderr, done.stderr.decode()
    return np.frombuffer(done.stdout, dtype="<f4").reshape(-1, channels)


def rule_of(spoke: Iterable[tuple[float, float]], start_s: float, stop_s: float) -> Rule:
    """What the half-open interval [start_s, stop_s) asks for."""
    spoke = list(spoke)
    if any(first <= start_s - EDGE_S and stop_s + EDGE_S <= last for first, last in spoke):
        return Rule.REQUIRED
    if all(stop_s <= first - EDGE_S or last + EDGE_S <= start_s for first, last in spoke):
        return Rule.FORBIDDEN
    return Rule.OPTIONAL


def verdicts(pcm: Samples, spoke: Iterable[tuple[float, float]]) -> list[str]:
    """Every complaint about a file that should sound as `spoke` says (seconds from the file's start)."""
    spoke = list(spoke)
    complaints = []
    for start in np.arange(0, len(pcm) / TICKS_PER_SECOND, CELL_S):
        cell = pcm[round(start * TICKS_PER_SECOND) : round((start + CELL_S) * TICKS_PER_SECOND)]
        rms = float(np.sqrt(np.mean(np.square(cell, dtype=np.float64))))
        rule = rule_of(spoke, start, start + len(cell) / TICKS_PER_SECOND)
        if (rule is Rule.REQUIRED and rms < SOUND_RMS) or (rule is Rule.FORBIDDEN and rms > QUIET_RMS):
            complaints.append(f"{start:.0f} s: {rule.value}, {20 * np.log10(rms + 1e-12):.0f} dBFS")
    return complaints


def tone_level(pcm: Samples, frequency_hz: float) -> float:
    """Amplitude of a sine of this frequency in mono samples."""
    time = np.arange(len(pcm)) / TICKS_PER_SECOND
    window = np.hanning(len(pcm))
    spectrum = np.sum(pcm[:, 0] * window * np.exp(-2j * np.pi * frequency_hz * time))
    return float(2 * abs(spectrum) / window.sum())
