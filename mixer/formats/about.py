"""What a file says about itself: tags and chapters, in the words of each format that is not FFmpeg's own business.

Times of chapters are ticks of 1/48000 s from the beginning of the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from contracts.clock import TICKS_PER_SECOND

OPENING: Final = "Start"  # the chapter before the first note
_SPECIAL: Final = re.compile(r"([=;#\\\n])")  # what FFmpeg's metadata format wants escaped
_MOST_CHAPTERS: Final = 999  # CHAPTERxxx has three digits


class Chapter(msgspec.Struct, frozen=True):
    """A part of a file, half-open."""

    start_tick: int
    stop_tick: int
    title: str


class About(msgspec.Struct, frozen=True):
    """Tags by FFmpeg's names (`title`, `artist`, `date`), and chapters in order, without gaps."""

    tags: dict[str, str] = {}
    chapters: tuple[Chapter, ...] = ()


def divide(marks: Sequence[tuple[int, str]], ticks: int) -> tuple[Chapter, ...]:
    """Chapters that begin at the marks (tick, title); none if there are no marks.

    Parameters
    ----------
    ticks
        Length of the file. Marks outside of it are left out, and of marks at one tick all but the last.
    """
    starts = {tick: title for tick, title in sorted(marks, key=lambda mark: mark[0]) if 0 <= tick < ticks}
    if not starts:
        return ()
    starts = {0: OPENING} | starts
    ordered = sorted(starts.items())[:_MOST_CHAPTERS]
    stops = [*(tick for tick, _ in ordered[1:]), ticks]
    return tuple(Chapter(tick, stop, title) for (tick, title), stop in zip(ordered, stops, strict=True))


def ffmetadata(about: About) -> bytes:
    """FFmpeg's metadata file: https://ffmpeg.org/ffmpeg-formats.html#Metadata-2."""
    lines = [";FFMETADATA1", *(f"{_escape(key)}={_escape(value)}" for key, value in about.tags.items() if value)]
    for chapter in about.chapters:
        lines += [
            *("[CHAPTER]", f"TIMEBASE=1/{TICKS_PER_SECOND}"),
            *(f"START={chapter.start_tick}", f"END={chapter.stop_tick}", f"title={_escape(chapter.title)}"),
        ]
    return ("\n".join(lines) + "\n").encode()


def comments(about: About) -> dict[str, str]:
    """Vorbis comments with chapters: CHAPTER000=00:01:02.500, CHAPTER000NAME=... (wiki.xiph.org/Chapter_Extension)."""
    found = {key.upper(): value for key, value in about.tags.items() if value}
    for number, chapter in enumerate(about.chapters):
        found[f"CHAPTER{number:03}"] = _clock(chapter.start_tick)
        found[f"CHAPTER{number:03}NAME"] = chapter.title
    return found


def _clock(tick: int) -> str:
    thousandths = tick * 1000 // TICKS_PER_SECOND
    seconds, thousandth = divmod(thousandths, 1000)
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{second:02}.{thousandth:03}"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text.replace("\0", "").replace("\r", ""))
