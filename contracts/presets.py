"""Presets: recipes with a name, to start from; those that ship with Retold, and an installation's own.

`tabletop` is for those who want to find again who said what; `podcast` for those who publish; `raw` for those who edit.
Own ones are recipes as JSON in the installation's folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from contracts.errors import RetoldError
from contracts.recipes import Recipe, decode_recipe, encode_recipe

PRESETS: Final[dict[str, Recipe]] = {
    "tabletop": Recipe(output="mix", format="mp3", bitrate_kbps=96, silence="trim"),
    "podcast": Recipe(output="mix", format="mp3", bitrate_kbps=160, loudness="exact"),
    "raw": Recipe(output="tracks", format="flac", container="zip"),
}
FOLDER: Final = "presets"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


class PresetError(RetoldError):
    """There is no such preset."""


def load_preset(name: str, data: Path) -> Recipe:
    """A preset that comes with Retold, or one of the installation's own.

    Raises
    ------
    PresetError
        Naming those that there are.
    MalformedError
        If its file is no recipe.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = _path(name, data)
    if not path.is_file():
        raise PresetError(f"preset {name}: there is none of that name; there are {', '.join(preset_names(data))}")
    return decode_recipe(path.read_bytes())


def preset_names(data: Path) -> list[str]:
    """Those that come with Retold, then the installation's own."""
    return [*PRESETS, *sorted(found.stem for found in (data / FOLDER).glob("*.json"))]


def save_preset(name: str, recipe: Recipe, data: Path) -> Path:
    """Keep a recipe under a name, without its range of time; where it is kept.

    Raises
    ------
    PresetError
        If the name is taken by Retold, or the folder cannot be written.
    """
    if name in PRESETS:
        raise PresetError(f"preset {name}: that one comes with Retold; take another name")
    path = _path(name, data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_recipe(msgspec.structs.replace(recipe, start_tick=0, stop_tick=None)))
    except OSError as error:
        raise PresetError(f"preset {name}: cannot write {path}: {error.strerror}") from error
    return path


def _path(name: str, data: Path) -> Path:
    if not _NAME.fullmatch(name):
        raise PresetError(f"{name!r} is no name of a preset: lower-case letters, digits and hyphens, at most 40")
    return data / FOLDER / f"{name}.json"
