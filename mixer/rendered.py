"""What to render, and what came of it: the two ends of every render."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from contracts.clock import TICKS_PER_SECOND, ticks_to_seconds
from contracts.recipes import Recipe
from mixer import names
from mixer.errors import RequestError
from mixer.formats.ffmpeg import Ffmpeg
from mixer.replay import Session
from mixer.report import SpeakerReport
from mixer.sound import SoundFold

LONGEST_TICKS: Final = 40 * 86_400 * TICKS_PER_SECOND  # nobody talks that long; what says so is damaged


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to render, and under which names."""

    session: str
    recipe: Recipe
    log_end: int
    engine: str
    ffmpeg: Ffmpeg


class RenderedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file; `user_id` is None for the mix."""

    path: str
    name: str
    filename: str
    user_id: str | None
    speaker: str
    sha256: str
    bytes: int
    duration_ticks: int
    loudness_lufs: float | None = None
    peak_dbtp: float | None = None
    losses: tuple[tuple[int, int, int], ...] = ()


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """All files of a recipe, and what was judged on the way."""

    files: tuple[RenderedFile, ...]
    speakers: tuple[SpeakerReport, ...]
    malformed_messages: int


def check_range(recipe: Recipe, session: Session) -> range:
    """The ticks of the session that the recipe asks for.

    Raises
    ------
    RequestError
        If it names people who were not there, or a time past the end.
    """
    named = {*(recipe.people or ()), *recipe.mute, *recipe.gain_db}
    if strangers := sorted(named - session.people.keys()):
        raise RequestError(f"not in this session: {', '.join(strangers)}. Its people: {', '.join(session.people)}")
    end = session.duration_ticks if recipe.stop_tick is None else min(recipe.stop_tick, session.duration_ticks)
    if recipe.start_tick >= end:
        length = ticks_to_seconds(session.duration_ticks)
        raise RequestError(f"nothing is left of that range: the session is {length:.3f} s long")
    if end - recipe.start_tick > LONGEST_TICKS:
        days = ticks_to_seconds(end - recipe.start_tick) / 86_400
        raise RequestError(f"{days:.0f} days are too long for a file: ask for a part of it (start_tick, stop_tick)")
    return range(recipe.start_tick, end)


def describe_file(
    path: Path,
    session: Session,
    recipe: Recipe,
    *,
    user_id: str | None,
    ticks: int,
    sound: SoundFold | None = None,
) -> RenderedFile:
    """A file that is finished.

    Parameters
    ----------
    ticks
        Its length.
    sound
        How it was made to sound, if it was.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return RenderedFile(
        path=str(path),
        name=path.name,
        filename=names.filename(
            session,
            user_id=user_id,
            extension=recipe.extension,
            variant=names.variant(recipe, path.name),
            what=recipe.container if recipe.container in {"audacity", "reaper"} else recipe.output,
        ),
        user_id=user_id,
        speaker="" if user_id is None else session.people.get(user_id, user_id),
        sha256=digest,
        bytes=path.stat().st_size,
        duration_ticks=ticks,
        loudness_lufs=None if sound is None else sound.loudness_lufs,
        peak_dbtp=None if sound is None else sound.peak_dbtp,
    )
