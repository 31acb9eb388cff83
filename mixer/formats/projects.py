"""Projects of editors: text files that stand beside the tracks and say where they and the notes belong.

Audacity opens a list of files (`.lof`) and imports labels; Reaper opens a project (`.rpp`) with markers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from contracts.clock import ticks_to_seconds

_REAPER_SOURCES: Final = {"flac": "FLAC", "wav": "WAVE"}
_QUOTES: Final = "\"'`"


def audacity_list(filenames: Iterable[str]) -> bytes:
    """A `.lof`: every file from the beginning (manual.audacityteam.org, LOF files)."""
    lines = (f'file "{name}" offset 0.000000\n' for name in filenames)
    return "".join(lines).encode()


def audacity_labels(marks: Iterable[tuple[int, str]]) -> bytes:
    """A label track: start, end and title, by tabs, in seconds (manual.audacityteam.org, label tracks)."""
    lines = (
        f"{ticks_to_seconds(tick):.6f}\t{ticks_to_seconds(tick):.6f}\t{' '.join(title.split())}\n"
        for tick, title in marks
    )
    return "".join(lines).encode()


def reaper_project(
    tracks: Sequence[tuple[str, str]], marks: Iterable[tuple[int, str]], *, ticks: int, kind: str, unix_s: int
) -> bytes:
    """A `.rpp`: a track per speaker with its file, and markers (github.com/Perlence/rpp has the grammar).

    Parameters
    ----------
    tracks
        (name, filename) of every track, all of the same length.
    kind
        `flac` or `wav`.
    unix_s
        When the session began.
    """
    lines = [f'<REAPER_PROJECT 0.1 "6.80/linux-x86_64" {unix_s}', "  SAMPLERATE 48000 0 0", "  TEMPO 120 4 4"]
    for number, (tick, title) in enumerate(marks, 1):
        lines.append(f"  MARKER {number} {ticks_to_seconds(tick):.6f} {_quote(title)} 0")
    for name, filename in tracks:
        lines += [
            *("  <TRACK", f"    NAME {_quote(name)}", "    <ITEM", "      POSITION 0"),
            *(f"      LENGTH {ticks_to_seconds(ticks):.6f}", "      LOOP 0", f"      NAME {_quote(filename)}"),
            *(f"      <SOURCE {_REAPER_SOURCES[kind]}", f"        FILE {_quote(filename)}", "      >"),
            *("    >", "  >"),
        ]
    return "\n".join([*lines, ">", ""]).encode()


def _quote(text: str) -> str:
    """In the first kind of quotes that the text does not hold; if it holds all, its backticks become apostrophes."""
    flat = " ".join(text.split())
    for quote in _QUOTES:
        if quote not in flat:
            return f"{quote}{flat}{quote}"
    return "`" + flat.replace("`", "'") + "`"
