"""The form "make this mix", read into a recipe. Pure.

as        a mix "mp3", or all tracks in one file "zip/flac"; CHOICES are offered, others may be sent
mute      a user id, repeated         gain_<user id>  decibels
from, to  83.5, 1:23.5 or 1:02:03; empty = start, end
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from contracts.clock import seconds_to_ticks, ticks_to_seconds
from contracts.errors import MalformedError
from contracts.recipes import Recipe, decode_recipe
from gateway.pages.words import say_seconds

CHOICES: Final = (
    ("One mix", (("mp3", "MP3"), ("m4a", "AAC"), ("opus", "Opus"), ("flac", "FLAC"), ("wav", "WAV"))),
    (
        "All tracks",
        (
            ("zip/flac", "FLAC in a ZIP"),
            ("zip/mp3", "MP3 in a ZIP"),
            ("audacity/flac", "Audacity project"),
            ("reaper/flac", "Reaper project"),
        ),
    ),
)
GAIN: Final = "gain_"
CLOCK_PARTS: Final = 3
MAX_SECONDS: Final = 1e7


def read_form(fields: Iterable[tuple[str, str]]) -> Recipe:
    """The recipe that a form asks for.

    Raises
    ------
    MalformedError
        Naming the field that is wrong or unknown.
    """
    recipe: dict[str, Any] = {"output": "mix", "mute": [], "gain_db": {}}
    for name, value in fields:
        match name:
            case "as":
                recipe |= _read_choice(value)
            case "mute":
                recipe["mute"].append(value)
            case "from" | "to" if value.strip():
                recipe["start_tick" if name == "from" else "stop_tick"] = seconds_to_ticks(read_clock(value))
            case "from" | "to":
                pass
            case _ if name.startswith(GAIN):
                if gain := _read_number(value or "0", name):
                    recipe["gain_db"][name.removeprefix(GAIN)] = gain
            case _:
                raise MalformedError(f"not a recipe: there is no field {name[:40]!r}")
    start, stop = recipe.get("start_tick", 0), recipe.get("stop_tick")
    if stop is not None and stop <= start:
        until, since = (say_seconds(ticks_to_seconds(tick)) for tick in (stop, start))
        raise MalformedError(f"the end, {until}, is not after the beginning, {since}")
    return decode_recipe(msgspec.json.encode(recipe)).canonical()


def _read_choice(value: str) -> dict[str, str]:
    container, _, inside = value.rpartition("/")
    return {"output": "tracks", "container": container, "format": inside} if container else {"format": inside}


def read_clock(text: str) -> float:
    """Seconds of `83.5`, `1:23.5` or `1:02:03`; MalformedError if it is none."""
    parts = [_read_number(part, "a time") for part in text.strip().split(":")]
    if len(parts) > CLOCK_PARTS or any(not 0 <= part < MAX_SECONDS for part in parts):
        raise MalformedError(f"{text[:20]!r} is no time: 83.5, 1:23.5 or 1:02:03")
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + part
    return seconds


def _read_number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise MalformedError(f"{text[:20]!r} is no number: {what[:40]}")
    return number
