"""What a recipe does to sound: its levels, its loudness, its limiter."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from contracts.recipes import Recipe
from mixer.opus import Samples
from mixer.sound import Sound
from mixer.survey import Survey

CEILING_DBTP: Final = -1.0  # EBU R128, of what a listener's decoder gives
METER_ROOM_DB: Final = 0.2  # by which meters of true peaks differ
LOSSY_ROOM_DB: Final = 0.8  # by which a lossy encoder may raise a peak (measured: tests/unit/mixer/test_masters.py)
LOSSY: Final = ("mp3", "m4a", "opus")


def sound_of(recipe: Recipe) -> Sound:
    """What to do to the voices; where the loudness is exact, `fixed_db` is to be found first."""
    return Sound(
        levelling=recipe.levels,
        loudness="followed" if recipe.aims_at == "followed" else "fixed",
        ceiling_dbtp=_ceiling_dbtp(recipe),
        gate_db=recipe.gate_db,
        gain_db=recipe.gain_db,
    )


def unlimited(sound: Sound) -> Sound:
    """The same before its loudness is made: what a survey listens to."""
    return msgspec.structs.replace(sound, ceiling_dbtp=None)


def made_exact(sound: Sound, blocks: Iterable[Samples]) -> Sound:
    """The same with the gain that brings these blocks, which are all of it, `unlimited`, to the target."""
    survey = Survey(sound.ceiling_dbtp or 0.0)
    for block in blocks:
        survey.add(block)
    return msgspec.structs.replace(sound, fixed_db=survey.gain_db())


def is_untouched(recipe: Recipe, user_id: str) -> bool:
    """Whether this person's track sounds as it came, so that its packets can be copied."""
    changed = recipe.levels or recipe.aims_at != "off" or recipe.gate_db is not None
    return not changed and not recipe.gain_db.get(user_id)


def _ceiling_dbtp(recipe: Recipe) -> float | None:
    """Where the limiter stands: nowhere for tracks that are left as they are."""
    if recipe.output == "tracks" and not recipe.levels and recipe.aims_at == "off":
        return None
    return CEILING_DBTP - METER_ROOM_DB - (LOSSY_ROOM_DB if recipe.format in LOSSY else 0.0)
