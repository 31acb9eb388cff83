"""One Matroska file with a track per speaker: copied, not encoded again, by FFmpeg."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mixer.errors import EncoderError
from mixer.formats.about import About, ffmetadata
from mixer.formats.ffmpeg import BITEXACT, STDERR_LINES, Ffmpeg

_CLUSTER_MS: Final = 1000  # so that players seek and start at once


def mux_tracks(ffmpeg: Ffmpeg, path: Path, tracks: Sequence[tuple[Path, str]], about: About) -> None:
    """Put sound files side by side.

    Parameters
    ----------
    tracks
        (file, speaker): Ogg Opus or FLAC, at least one.

    Raises
    ------
    EncoderError
        If FFmpeg fails.
    """
    files = [part for file, _ in tracks for part in ("-i", str(file))]
    maps = [part for number in range(len(tracks)) for part in ("-map", f"{number}:a")]
    with tempfile.TemporaryFile() as told:
        told.write(ffmetadata(about))
        told.seek(0)
        done = subprocess.run(
            [
                *(ffmpeg.path, "-hide_banner", "-loglevel", "error", "-nostdin", *files),
                *("-f", "ffmetadata", "-i", f"pipe:{told.fileno()}", *maps, "-c", "copy"),
                *("-map_metadata", str(len(tracks)), "-map_chapters", str(len(tracks))),
                *("-map_metadata:s", "-1", *_titles(tracks), "-cluster_time_limit", str(_CLUSTER_MS)),
                *("-max_interleave_delta", "0", *BITEXACT, "-f", "matroska", "-y", str(path)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            pass_fds=(told.fileno(),),
        )
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()[-STDERR_LINES:]
        raise EncoderError("\n".join([f"FFmpeg ended with {done.returncode}:", *lines]))


def _titles(tracks: Sequence[tuple[Path, str]]) -> list[str]:
    return [part for number, (_, who) in enumerate(tracks) for part in (f"-metadata:s:a:{number}", f"title={who}")]
