"""What files are called: objects by recipe and engine, downloads so that a person knows them again."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from contracts.artifacts import MIX
from contracts.recipes import Recipe, render_name
from mixer.replay import Session

VARIANT_CHARACTERS: Final = 6
MAX_FILENAME_BYTES: Final = 200  # every file system takes 255
_UNSAFE: Final = re.compile(r'[\\/:*?"<>|\s]+')  # path separators, and what Windows forbids


def object_name(recipe: Recipe, *, log_end: int, engine: str, user_id: str | None) -> str:
    """`<render name>-<user id, "mix" or "tracks">.<extension>`."""
    return f"{render_name(recipe, log_end=log_end, engine=engine)}-{user_id or recipe.output}.{recipe.extension}"


def title(session: Session) -> str:
    """The session's name, or its channel's."""
    started = session.started
    return (started.name or started.channel_name or started.session) if started else "session"


def date(session: Session) -> str:
    """When it began: `2026-11-22 19-30`, UTC; empty if the log does not say."""
    if session.started is None:
        return ""
    return datetime.fromtimestamp(session.started.unix_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H-%M")


def variant(recipe: Recipe, name: str) -> str:
    """What tells a mix of one's own from the default one: a few characters of its render name; else empty."""
    default = Recipe(output=recipe.output, container=recipe.container, format=recipe.format)
    return "" if recipe.canonical() == default else name[:VARIANT_CHARACTERS]


def stem(session: Session) -> str:
    """`<date> <session name or channel>`, safe everywhere."""
    return _shorten(_safe(f"{date(session)} {title(session)}"), MAX_FILENAME_BYTES * 2 // 3)


def speaker_stems(people: Mapping[str, str]) -> dict[str, str]:
    """A safe name per speaker, none twice, whatever the file system: namesakes get their id."""
    safe = {user: _shorten(_safe(name), MAX_FILENAME_BYTES // 3) for user, name in people.items()}
    folded = Counter(name.casefold() for name in safe.values())
    return {user: f"{name} {user}" if folded[name.casefold()] > 1 else name for user, name in safe.items()}


def tags(session: Session, speakers: Sequence[str]) -> dict[str, str]:
    """What a file says about itself, by FFmpeg's names: title, speakers, date, and the session's id."""
    return {
        "title": title(session),
        "artist": ", ".join(speakers),
        "album": session.started.guild_name if session.started else "",
        "date": date(session).partition(" ")[0],
        "comment": f"Session {session.started.session}" if session.started else "",
    }


def filename(session: Session, *, user_id: str | None, extension: str, variant: str = "", what: str = MIX) -> str:
    """`<date> <session name or channel> - <speaker> <variant>.flac`, safe everywhere; namesakes get their id.

    Parameters
    ----------
    what
        Stands in the speaker's place where a file is nobody's alone: `mix`, `tracks`, `audacity`.
    """
    people = session.people
    speaker = what if user_id is None else people.get(user_id, user_id)
    if user_id is not None and list(people.values()).count(speaker) > 1:
        speaker = f"{speaker} {user_id}"
    ending = _shorten(_safe(speaker), MAX_FILENAME_BYTES // 3)
    return f"{stem(session)} - {ending}{variant and ' ' + variant}.{extension}"


def _safe(text: str) -> str:
    kept = "".join(" " if unicodedata.category(letter).startswith("C") else letter for letter in text)
    return _UNSAFE.sub(" ", kept).strip(" .") or "unnamed"


def _shorten(text: str, limit_bytes: int) -> str:
    return text.encode()[:limit_bytes].decode("utf-8", "ignore").strip()
