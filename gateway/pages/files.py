"""The files of a session as a page offers them: one of each, the newest by a default recipe, and the rest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from contracts.clock import ticks_to_seconds
from contracts.jetstream.objects import StoredArtifact
from contracts.recipes import DEFAULT_RECIPES, Recipe
from gateway.pages import words

PLAYED_FIRST: Final = ("mp3", "m4a", "opus", "wav", "flac")  # every browser plays MP3; the others cost more
SPELLED: Final = {"opus": "Opus", "m4a": "AAC", "mka": "Matroska"}
PROJECTS: Final = {"audacity": "Audacity", "reaper": "Reaper"}
PEAKS: Final = ("dat", "json")  # waveforms for the page to draw, no download for people


PEAKS_RECIPE: Final = Recipe(output="tracks", format="dat")


class FileView(msgspec.Struct, frozen=True):
    """One download."""

    format: str
    filename: str
    size: str
    duration: str
    url: str
    media_type: str
    sha256: str
    note: str = ""
    who: str = ""


class TrackView(msgspec.Struct, frozen=True):
    """One speaker with the formats there are."""

    user: str
    speaker: str
    initial: str
    hue: int
    duration: str
    files: tuple[FileView, ...]


class Choice(msgspec.Struct, frozen=True):
    """What is shown of each kind.

    Attributes
    ----------
    mix
        The mix in its formats, the one to play first.
    tracks
        Files by user id.
    bundles
        Files that are no audio: archives, projects.
    peaks
        Waveforms by user id.
    report
        What was received of everybody, and how it was placed.
    others
        Older versions, and mixes by other recipes, newest first.
    """

    mix: tuple[StoredArtifact, ...]
    tracks: dict[str, tuple[StoredArtifact, ...]]
    bundles: tuple[StoredArtifact, ...]
    peaks: dict[str, StoredArtifact]
    report: StoredArtifact | None
    others: tuple[StoredArtifact, ...]


def choose(artifacts: Iterable[StoredArtifact]) -> Choice:
    """One version of each file, by a default recipe and the newest, and the rest."""
    every = sorted(artifacts, key=_rank, reverse=True)
    peaks: dict[str, StoredArtifact] = {}
    for stored in every:
        if is_peaks(stored):
            peaks.setdefault(stored.artifact.user_id or "", stored)
    seen: set[tuple[str | None, str, str]] = set()
    chosen: list[StoredArtifact] = []
    others: list[StoredArtifact] = []
    for stored in every:
        if is_peaks(stored) or _is_report(stored):
            continue
        key = (stored.artifact.user_id, suffix(stored), stored.artifact.recipe.container)
        (others if key in seen or _is_partial(stored) else chosen).append(stored)
        seen.add(key)
    tracks: dict[str, list[StoredArtifact]] = {}
    for stored in sorted(chosen, key=suffix):
        if stored.artifact.user_id is not None:
            tracks.setdefault(stored.artifact.user_id, []).append(stored)
    rest = [stored for stored in chosen if stored.artifact.user_id is None]
    return Choice(
        mix=tuple(sorted((s for s in rest if suffix(s) in PLAYED_FIRST), key=lambda s: PLAYED_FIRST.index(suffix(s)))),
        tracks={user: tuple(files) for user, files in tracks.items()},
        bundles=tuple(s for s in rest if suffix(s) not in PLAYED_FIRST),
        peaks=peaks,
        report=next(filter(_is_report, every), None),
        others=tuple(sorted(others, key=lambda stored: stored.artifact.rendered_unix_ns, reverse=True)),
    )


def is_peaks(stored: StoredArtifact) -> bool:
    """Whether it is a waveform."""
    return suffix(stored) in PEAKS and not _is_report(stored)


def _is_report(stored: StoredArtifact) -> bool:
    return stored.artifact.recipe.output == "report"


def lacks_peaks(artifacts: Iterable[StoredArtifact]) -> bool:
    """Whether there are tracks, and nothing to draw of them."""
    choice = choose(artifacts)
    return bool(choice.tracks) and not choice.peaks


def suffix(stored: StoredArtifact) -> str:
    """What kind of file it is, by the end of its object name."""
    return stored.artifact.name.rpartition(".")[2].lower()


def download_path(base: str, stored: StoredArtifact) -> str:
    """Where a page's download stands: below the page's own address."""
    artifact = stored.artifact
    return f"{base}/d/{quote(artifact.name, safe='')}/{quote(artifact.filename, safe='')}"


def view_file(stored: StoredArtifact, people: Mapping[str, str], base: str) -> FileView:
    """A download as the page says it."""
    artifact = stored.artifact
    return FileView(
        format=_say_format(stored),
        filename=artifact.filename,
        size=words.say_bytes(stored.size),
        duration=words.say_seconds(ticks_to_seconds(artifact.duration_ticks)),
        url=download_path(base, stored),
        media_type=artifact.media_type,
        sha256=stored.sha256,
        note=words.say_recipe(artifact.recipe, people),
        who=name_speaker(stored, people) if artifact.user_id else artifact.recipe.output.capitalize(),
    )


def name_speaker(stored: StoredArtifact, people: Mapping[str, str]) -> str:
    """As the directory names them, or as the artifact does."""
    user = stored.artifact.user_id or ""
    return people.get(user) or stored.artifact.speaker or user


def _say_format(stored: StoredArtifact) -> str:
    """What people call it: a project by its editor, an archive with what is in it."""
    recipe, kind = stored.artifact.recipe, suffix(stored)
    inside = SPELLED.get(recipe.format, recipe.format.upper())
    if recipe.container in PROJECTS:
        return PROJECTS[recipe.container]
    return f"{inside} in a ZIP" if kind == "zip" else SPELLED.get(kind, kind.upper())


def _is_partial(stored: StoredArtifact) -> bool:
    """Whether somebody chose what is in it: it never stands for the session's own mix or track."""
    recipe = stored.artifact.recipe
    cut = recipe.start_tick or recipe.stop_tick or recipe.silence != "keep"
    return bool(recipe.mute or recipe.gain_db or cut or recipe.people is not None)


def _rank(stored: StoredArtifact) -> tuple[bool, int, str]:
    artifact = stored.artifact
    return artifact.recipe.canonical() in DEFAULT_RECIPES, artifact.rendered_unix_ns, artifact.name
