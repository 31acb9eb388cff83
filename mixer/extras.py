"""What stands beside the tracks in a zip: who and when, the notes, the report, and an editor's project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from contracts.clock import NS_PER_SECOND, TICKS_PER_SECOND
from contracts.recipes import Recipe
from mixer import names
from mixer.formats.projects import audacity_labels, audacity_list, reaper_project
from mixer.replay import Session
from mixer.report import SpeakerReport, report_json

MINUTE_S: Final = 60
HOUR_S: Final = 3600


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A zip's tracks and what is known of them: `tracks` are (speaker, filename), `notes` (tick in the file, text)."""

    recipe: Recipe
    tracks: Sequence[tuple[str, str]]
    notes: Sequence[tuple[int, str]]
    speakers: Sequence[SpeakerReport]
    ticks: int


def extras(session: Session, held: Held) -> dict[str, bytes]:
    """Files by their names in the zip."""
    found = {"info.txt": _info(session, held), "report.json": report_json(held.speakers)}
    if held.notes:
        found["notes.txt"] = "".join(f"{clock(tick)}  {text}\n" for tick, text in held.notes).encode()
        found["labels.txt"] = audacity_labels(held.notes)
    if held.recipe.container == "audacity":
        found[f"{names.stem(session)}.lof"] = audacity_list(filename for _, filename in held.tracks)
    if held.recipe.container == "reaper":
        found[f"{names.stem(session)}.rpp"] = _reaper(session, held)
    return found


def clock(tick: int) -> str:
    """`1:02:03`."""
    seconds = tick // TICKS_PER_SECOND
    return f"{seconds // HOUR_S}:{seconds % HOUR_S // MINUTE_S:02}:{seconds % MINUTE_S:02}"


def _reaper(session: Session, held: Held) -> bytes:
    unix_s = session.started.unix_ns // NS_PER_SECOND if session.started else 0
    return reaper_project(held.tracks, held.notes, ticks=held.ticks, kind=held.recipe.format, unix_s=unix_s)


def _info(session: Session, held: Held) -> bytes:
    started = session.started
    lines = [names.title(session), ""]
    if started:
        lines += [
            f"Session   {started.session}",
            f"Server    {started.guild_name}",
            f"Channel   {started.channel_name}",
        ]
    lines += [f"Began     {names.date(session)} UTC", f"Length    {clock(held.ticks)}", "", "Tracks, of equal length:"]
    lines += [f"  {filename}" for _, filename in held.tracks]
    lines += ["", "All tracks begin at the same moment; put them at zero in any editor, and they are in sync."]
    return ("\n".join(lines) + "\n").encode()
