"""`retold sessions ls|show|export|import`; the rest of its verbs are in `ops.cli.keeping` and `ops.cli.verifying`."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any

from contracts.artifacts import Artifact
from contracts.clock import ticks_to_seconds
from contracts.errors import RetoldError
from contracts.events import NoteAdded, SessionEnded, SpeakerIdentified, TakeOpened, decode_fact
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import get_entry
from contracts.jetstream.keeping import bring_back
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.replay import last_sequence, replay
from contracts.jetstream.transfer import export_session, import_session
from contracts.packets import decode_batch
from contracts.service import EXIT_DONE
from contracts.subjects import FactSubject, PacketSubject, parse
from ops.cli import keeping, verifying
from ops.cli.entries import known_entries, known_entry, length, when
from ops.cli.files import to_stdout, write_file
from ops.cli.output import clock, emit, human_bytes, progress_bar, say, table
from ops.cli.session_bus import session_bus


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `sessions`."""
    sessions = commands.add_parser("sessions", help="list, show, verify, export, import, keep and delete sessions")
    verbs = sessions.add_subparsers(metavar="VERB", required=True)
    ls = verbs.add_parser("ls", help="list sessions")
    show = verbs.add_parser("show", help="what a session holds")
    export = verbs.add_parser("export", help="write a whole session to one portable file")
    export.add_argument("session", metavar="ID")
    export.add_argument("file", type=Path, metavar="FILE", help="- = stdout")
    load = verbs.add_parser("import", help="put an exported session on this server")
    load.add_argument("file", type=Path, metavar="FILE")
    ls.add_argument("--deleted", action="store_true", help="those that were deleted, and can be brought back")
    show.add_argument("session", metavar="ID")
    keeping.add_verbs(verbs)
    verifying.add_verb(verbs)
    for verb, run in ((ls, _ls), (show, _show), (export, _export), (load, _import)):
        verb.add_argument("--json", action="store_true", help="print JSON")
        verb.set_defaults(run=run)


async def _ls(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        entries = [entry for entry in await known_entries(bus) if entry.deleted == arguments.deleted]
    if arguments.json:
        emit(entries)
        return EXIT_DONE
    table(
        ("SESSION", "STARTED", "LENGTH", "SERVER", "CHANNEL", "NAME", "PEOPLE", "KEPT"),
        (
            (
                entry.session,
                when(entry.started_unix_ns),
                length(entry),
                entry.guild_name,
                entry.channel_name,
                entry.name,
                ", ".join(entry.people.values()),
                keeping.say_keeping(entry, time.time_ns()),
            )
            for entry in entries
        ),
    )
    if not entries and not arguments.deleted:
        say("No session yet. `retold demo` makes one without a Discord account.")
    return EXIT_DONE


async def _show(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        entry = await known_entry(bus, arguments.session)
        await _bring_back(bus, arguments.session)
        log = await _read_log(bus, arguments.session)
        artifacts = [stored.artifact for stored in await list_artifacts(bus, arguments.session)]
    if arguments.json:
        emit({"entry": entry, **log, "artifacts": artifacts})
        return EXIT_DONE
    say(f"{entry.name or entry.channel_name} on {entry.guild_name}, {when(entry.started_unix_ns)}, {length(entry)}")
    table(
        ("TAKE", "SSRC", "WHO", "BATCHES", "PACKETS", "OUTCOMES"),
        (
            (track["take"], track["ssrc"], track["name"], track["batches"], track["packets"], track["outcomes"])
            for track in log["tracks"]
        ),
    )
    for note in log["notes"]:
        say(f"{clock(note['at_s'])}  {note['author']}: {note['text']}")
    show_artifacts(artifacts)
    return EXIT_DONE


def show_artifacts(artifacts: list[Artifact]) -> None:
    """A table of rendered files."""
    table(
        ("FILE", "LENGTH", "SIZE", "SHA-256"),
        (
            (
                artifact.filename,
                clock(ticks_to_seconds(artifact.duration_ticks)),
                human_bytes(artifact.bytes),
                artifact.sha256[:16],
            )
            for artifact in artifacts
        ),
    )


async def _read_log(bus: Bus, session: str) -> dict[str, Any]:
    """What the stream itself says, whatever the directory believes."""
    outcomes: dict[tuple[int, int], Counter[str]] = {}
    batches: dict[tuple[int, int], set[int]] = {}
    names: dict[tuple[int, int], str] = {}
    facts: list[Any] = []
    async for message in replay(bus, session):
        match parse(message.subject):
            case PacketSubject(take=take, ssrc=ssrc):
                batch = decode_batch(message.data)
                if batch.number not in batches.setdefault((take, ssrc), set()):
                    batches[take, ssrc].add(batch.number)
                    counts = outcomes.setdefault((take, ssrc), Counter())
                    counts.update(packet.outcome.name for packet in batch.packets)
            case FactSubject():
                fact = decode_fact(message.data)
                facts.append(fact)
                if isinstance(fact, SpeakerIdentified):
                    names[fact.take, fact.ssrc] = fact.name
            case _:
                pass
    tracks = [
        {
            "take": take,
            "ssrc": ssrc,
            "name": names.get((take, ssrc), "unknown"),
            "batches": len(batches[take, ssrc]),
            "packets": counts.total(),
            "outcomes": dict(counts),
        }
        for (take, ssrc), counts in outcomes.items()
    ]
    notes = [
        {"at_s": fact.at_ns / 1e9, "text": fact.text, "author": fact.author}
        for fact in facts
        if isinstance(fact, NoteAdded)
    ]
    ended = any(isinstance(fact, SessionEnded) for fact in facts)
    takes = sum(isinstance(fact, TakeOpened) for fact in facts)
    return {"tracks": tracks, "notes": notes, "takes": takes, "ended": ended, "facts": facts}


async def _export(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        await _bring_back(bus, arguments.session)
        total = await last_sequence(bus, arguments.session)
        with write_file(arguments.file) as file, progress_bar(counts=True) as bar:
            task = bar.add_task("export", total=total)
            messages = await export_session(
                bus, arguments.session, file, progress=lambda done, _all: bar.update(task, completed=done)
            )
            size = file.tell() if file.seekable() else None
    if to_stdout(arguments.file):
        return EXIT_DONE
    if arguments.json:
        emit({"session": arguments.session, "file": str(arguments.file), "messages": messages, "bytes": size})
    else:
        taken = f"{messages} messages" if size is None else f"{messages} messages, {human_bytes(size)}"
        say(f"{arguments.file}: {taken}. `retold mix` makes the renders again.")
    return EXIT_DONE


async def _bring_back(bus: Bus, session: str) -> None:
    """From the archive, if it is there; shown, since it may take its time."""
    entry = await get_entry(bus, session)
    if entry is not None and entry.keeping.archived is not None:
        with progress_bar() as bar:
            task = bar.add_task("fetch from the archive", total=1.0)
            await bring_back(bus, session, progress=lambda done: bar.update(task, completed=done))


async def _import(arguments: argparse.Namespace) -> int:
    try:
        file = arguments.file.open("rb")
    except OSError as error:
        raise RetoldError(f"cannot read {arguments.file}: {error.strerror}") from error
    async with session_bus() as (_settings, bus):
        with file, progress_bar() as bar:
            bar.add_task("import", total=None)
            session, entry = await import_session(bus, file)
    if arguments.json:
        emit({"session": session, "entry": entry})
    else:
        say(f"Session {session} is back.")
        print(session)
    return EXIT_DONE
