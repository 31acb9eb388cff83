"""What the page's script draws and plays: lanes with their tracks, peaks and losses, notes and gaps. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from contracts.clock import ticks_to_seconds
from contracts.directory import SessionEntry
from contracts.jetstream.objects import StoredArtifact
from gateway.pages.files import choose, download_path, suffix
from gateway.pages.session import length_s, list_lanes, say_state
from gateway.story import Story


def describe_timeline(
    entry: SessionEntry, artifacts: Sequence[StoredArtifact], story: Story, *, base: str, now_unix_ns: int
) -> dict[str, Any]:
    """What the page's script draws and plays."""
    choice = choose(artifacts)
    people = {**story.names, **entry.people}
    ticks = [s.artifact.duration_ticks for s in [*choice.mix, *(f for files in choice.tracks.values() for f in files)]]
    return {
        "session": entry.session,
        "state": say_state(entry, artifacts, now_unix_ns),
        "duration_s": ticks_to_seconds(max(ticks)) if ticks else length_s(entry, now_unix_ns),
        "lanes": [
            {
                "user": lane.user,
                "name": lane.speaker,
                "hue": lane.hue,
                "track": _track(choice.tracks.get(lane.user, ()), base),
                "peaks": download_path(base, choice.peaks[lane.user]) if lane.user in choice.peaks else None,
                "losses": _losses(choice.tracks.get(lane.user, ())),
            }
            for lane in list_lanes(choice, people, base)
        ],
        "notes": story.notes,
        "gaps": story.gaps,
    }


def _track(files: Sequence[StoredArtifact], base: str) -> dict[str, Any] | None:
    """The one that the page can play in pieces: Ogg Opus."""
    for stored in files:
        if suffix(stored) == "opus":
            return {"url": download_path(base, stored), "bytes": stored.size}
    return None


def _losses(files: Sequence[StoredArtifact]) -> list[dict[str, Any]]:
    """Where packets of somebody never came."""
    spans = next((stored.artifact.losses for stored in files if stored.artifact.losses), ())
    return [
        {"from_s": ticks_to_seconds(start), "to_s": ticks_to_seconds(stop), "packets": packets}
        for start, stop, packets in spans
    ]
