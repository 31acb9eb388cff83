"""How numbers are said to people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from contracts.clock import NS_PER_SECOND, ticks_to_seconds
from contracts.recipes import Recipe

UNITS: Final = ("kB", "MB", "GB", "TB")
KILO: Final = 1000
FULL_HUNDRED: Final = 99.95  # from here on a decimal place would say 100.0
MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_HOURS: Final = 24


def say_bytes(size: int) -> str:
    """`3.4 MB`: decimal units, as download dialogs show them."""
    if size < KILO:
        return f"{size} bytes"
    value = float(size)
    for unit in UNITS:
        value /= KILO
        if value < KILO - 0.5 or unit == UNITS[-1]:
            break
    return f"{value:.0f} {unit}" if value >= FULL_HUNDRED else f"{value:.1f} {unit}"


def say_seconds(seconds: float) -> str:
    """`1:02:03` or `2:03`, cut off to whole seconds."""
    whole = int(seconds)
    hours, rest = divmod(whole, HOUR_S)
    minutes, last = divmod(rest, MINUTE_S)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"


def say_duration_iso(seconds: float) -> str:
    """The same for machines: `PT123S`."""
    return f"PT{int(seconds)}S"


def say_moment(unix_ns: int) -> str:
    """`22 November 2026, 21:58 UTC`."""
    moment = datetime.fromtimestamp(unix_ns // NS_PER_SECOND, UTC)
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"


def say_moment_iso(unix_ns: int) -> str:
    """The same for machines."""
    return datetime.fromtimestamp(unix_ns // NS_PER_SECOND, UTC).isoformat()


def say_recipe(recipe: Recipe, people: Mapping[str, str]) -> str:
    """What is special about a recipe: `without Bob, 0:10 to 1:00`; empty for one without any choice."""
    parts = []
    if recipe.people is not None:
        parts.append("only " + _say_people(recipe.people, people))
    if recipe.mute:
        parts.append("without " + _say_people(recipe.mute, people))
    if recipe.gain_db:
        parts.append(", ".join(f"{people.get(user, user)} {gain:+g} dB" for user, gain in recipe.gain_db.items()))
    if recipe.start_tick or recipe.stop_tick is not None:
        stop = "the end" if recipe.stop_tick is None else say_seconds(ticks_to_seconds(recipe.stop_tick))
        parts.append(f"{say_seconds(ticks_to_seconds(recipe.start_tick))} to {stop}")
    if recipe.bitrate_kbps is not None:
        parts.append(f"{recipe.bitrate_kbps} kbit/s")
    return ", ".join(parts)


def _say_people(users: tuple[str, ...], people: Mapping[str, str]) -> str:
    return " and ".join(people.get(user, user) for user in users) or "nobody"


def say_hours(hours: float) -> str:
    """How long a grace lasts: in hours, or in days from two days on; nothing if it does not last."""
    if hours <= 0:
        return ""
    count, unit = (hours / DAY_HOURS, "day") if hours >= 2 * DAY_HOURS else (hours, "hour")
    number = f"{count:.1f}".removesuffix(".0")
    return f"{number} {unit}" if number == "1" else f"{number} {unit}s"
