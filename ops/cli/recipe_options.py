"""The options of `retold mix` that say what to make, and the recipe they add up to."""

from __future__ import annotations

import argparse
import math
import re
import time
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from contracts.clock import ns_to_ticks, seconds_to_ticks
from contracts.directory import SessionEntry
from contracts.errors import MalformedError, RetoldError
from contracts.presets import PRESETS, load_preset
from contracts.recipes import Alignment, Container, Format, Loudness, Recipe, decode_recipe, encode_recipe

FORMATS: Final = get_args(Format)
DEFAULT_FORMATS: Final = {"matroska": "opus"}  # of containers; FLAC in the others
CLOCK_PARTS: Final = 3
NOW: Final = float("inf")
OPTIONS: Final = {  # what the recipe's fields are called on the command line
    "bitrate_kbps": "--bitrate",
    "vbr_quality": "--vbr",
    "bits": "--bits",
    "container": "--container",
    "gate_db": "--gate",
    "gain_db": "--gain",
    "start_tick": "--from",
    "stop_tick": "--to",
    "same_room": "--same-room",
}
_SAME_NAMES: Final = ("loudness", "levelling", "silence", "alignment", "same_room", "chapters")
_FIELD: Final = re.compile(r"(\$\.)?\b(" + "|".join(OPTIONS) + r")\b")


class RecipeError(RetoldError):
    """The mix cannot be made like this."""


def add_recipe_options(mix: argparse.ArgumentParser) -> None:
    """Add them."""
    own = "or one of your own (--save-preset)"
    mix.add_argument("--preset", metavar="NAME", help=f"begin with {', '.join(PRESETS)}, {own}; options change it")
    mix.add_argument("--recipe", type=Path, metavar="FILE", help="a whole recipe as JSON; no option is used beside it")
    _add_what(mix.add_argument_group("what"))
    _add_sound(mix.add_argument_group("sound"))
    _add_files(mix.add_argument_group("files"))


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--tracks", action="store_true", help="one file per speaker, all of equal length, not one mix")
    group.add_argument("--only", action="append", default=[], metavar="WHO", help="this person's voice; repeatable")
    group.add_argument("--mute", action="append", default=[], metavar="WHO", help="without this person; repeatable")
    group.add_argument("--from", dest="start", type=parse_clock, metavar="TIME", help="seconds, m:ss or h:mm:ss")
    group.add_argument(
        "--to", dest="stop", type=parse_stop, metavar="TIME", help="the same; `now` in a running session"
    )
    group.add_argument("--last", type=parse_clock, metavar="TIME", help="from so long before the end, or before now")
    group.add_argument("--silence", choices=("keep", "trim"), help="trim: at most a second where nobody speaks")
    group.add_argument("--alignment", choices=get_args(Alignment), help="follow in a mix, hindsight in tracks")
    group.add_argument(
        "--same-room",
        action=argparse.BooleanOptionalAction,
        help="lay people onto each other who sit in one room, by what their microphones hear of each other",
    )


def _add_sound(group: argparse._ArgumentGroup) -> None:
    flag = argparse.BooleanOptionalAction
    group.add_argument("--gain", action="append", default=[], metavar="WHO=DB", help="louder or quieter; repeatable")
    group.add_argument(
        "--loudness",
        choices=get_args(Loudness),
        help="-16 LUFS, followed (a mix) or exact by a first pass; off (tracks): untouched",
    )
    group.add_argument("--levelling", action=flag, help="bring all voices to one level; on in a mix")
    group.add_argument("--gate", type=parse_decibels, metavar="DB", help="mute a voice where it is quieter, as -50")


def _add_files(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", choices=FORMATS, help="mp3 for a mix, flac for tracks; dat, json: waveform peaks")
    group.add_argument("--container", choices=get_args(Container), help="tracks in one file, or a project")
    group.add_argument("--bitrate", type=int, metavar="KBPS", help="of MP3, AAC (m4a), or a mixed Opus")
    group.add_argument("--vbr", type=int, metavar="0-9", help="MP3 of variable bit rate; 0 is best")
    group.add_argument("--bits", type=int, choices=(16, 24), help="of FLAC and WAV")
    group.add_argument("--chapters", action=argparse.BooleanOptionalAction, help="notes as chapters; on")


def parse_decibels(text: str) -> float:
    """A number; ArgumentTypeError if it is none."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of decibels")
    return found


def parse_clock(text: str) -> float:
    """Seconds of `83.5`, `1:23.5` or `1:02:03`; ArgumentTypeError if it is none."""
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if not 0 < len(numbers) <= CLOCK_PARTS or any(not 0 <= number < 1e7 for number in numbers):  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 83.5, 1:23.5 or 1:02:03")
    seconds = 0.0
    for number in numbers:
        seconds = seconds * 60 + number
    return seconds


def parse_stop(text: str) -> float:
    """The same, or `now`: to the end of what there is."""
    return NOW if text == "now" else parse_clock(text)


def build_recipe(arguments: argparse.Namespace, entry: SessionEntry, data: Path) -> Recipe:
    """The recipe that the options ask for.

    Parameters
    ----------
    data
        The installation's folder, where presets of one's own are.

    Raises
    ------
    RecipeError, PresetError
        If it names somebody who was not there, or makes no sense; the option is named.
    MalformedError
        If the file of --recipe is none.
    """
    if arguments.recipe is not None:
        try:
            return decode_recipe(arguments.recipe.read_bytes())
        except OSError as error:
            raise RecipeError(f"cannot read {arguments.recipe}: {error.strerror}") from error
    base = Recipe() if arguments.preset is None else load_preset(arguments.preset, data)
    try:
        recipe = msgspec.structs.replace(base, **_changes(arguments, entry, base))
        return decode_recipe(encode_recipe(recipe))  # checks what the types alone do not
    except MalformedError as error:
        raise RecipeError(_FIELD.sub(lambda found: OPTIONS[found[2]], str(error))) from error


def _changes(arguments: argparse.Namespace, entry: SessionEntry, base: Recipe) -> dict[str, Any]:
    """Fields that the options change."""
    asked = {
        "people": tuple(find_person(who, entry) for who in arguments.only) or None,
        "mute": tuple(find_person(who, entry) for who in arguments.mute) or None,
        "gain_db": dict(_gain(text, entry) for text in arguments.gain) or None,
        "start_tick": _start_tick(arguments, entry),
        "stop_tick": None if arguments.stop in {None, NOW} else seconds_to_ticks(arguments.stop),
        "gate_db": arguments.gate,
        "bits": arguments.bits,
        **{name: getattr(arguments, name) for name in _SAME_NAMES},
    }
    return {name: value for name, value in asked.items() if value is not None} | _files(arguments, base)


def _start_tick(arguments: argparse.Namespace, entry: SessionEntry) -> int | None:
    if arguments.last is None:
        return None if arguments.start is None else seconds_to_ticks(arguments.start)
    if arguments.start is not None:
        raise RecipeError("--last and --from exclude each other")
    so_far_ns = time.time_ns() - entry.started_unix_ns if entry.duration_ns is None else entry.duration_ns
    return max(ns_to_ticks(so_far_ns) - seconds_to_ticks(arguments.last), 0)


def _files(arguments: argparse.Namespace, base: Recipe) -> dict[str, Any]:
    """Output, container, format, quality: a container holds tracks, and another format forgets a preset's quality."""
    held = arguments.container or (base.container if base.output == "tracks" else "files")
    tracks = arguments.tracks or base.output == "tracks" or held != "files"
    kind = arguments.format or _usual_format(arguments, base, held, tracks=tracks)
    found: dict[str, Any] = {"output": "tracks" if tracks else "mix", "container": held, "format": kind}
    if (kind, found["output"]) != (base.format, base.output):
        found["bits"] = arguments.bits or 16
    quality = {"bitrate_kbps": arguments.bitrate, "vbr_quality": arguments.vbr}
    changed = kind != base.format or arguments.bitrate is not None or arguments.vbr is not None
    return found | (quality if changed else {})


def _usual_format(arguments: argparse.Namespace, base: Recipe, held: str, *, tracks: bool) -> str:
    if arguments.preset is not None and held == base.container:
        return base.format
    return DEFAULT_FORMATS.get(held, "flac") if tracks else "mp3"


def find_person(who: str, entry: SessionEntry) -> str:
    """The user id of a person of this session, by id or by name, whatever its case.

    Raises
    ------
    RecipeError
        Naming who was there.
    """
    found = [user for user, name in entry.people.items() if who == user or who.casefold() == name.casefold()]
    if len(found) == 1:
        return found[0]
    people = ", ".join(f"{name} ({user})" for user, name in entry.people.items()) or "nobody"
    problem = "is more than one person" if found else "was not there"
    raise RecipeError(f"{who!r} {problem} in session {entry.session}; there were: {people}")


def _gain(text: str, entry: SessionEntry) -> tuple[str, float]:
    who, equals, decibels = text.rpartition("=")
    if not equals:
        raise RecipeError(f"--gain {text!r}: write it as WHO=DB, for example Ada=-3.5")
    try:
        return find_person(who, entry), parse_decibels(decibels)
    except argparse.ArgumentTypeError as error:
        raise RecipeError(f"--gain {text!r}: write it as WHO=DB, for example Ada=-3.5") from error
