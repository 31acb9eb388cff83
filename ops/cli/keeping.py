"""`retold sessions pin|unpin|delete|undelete|archive|fetch`: how long a session is kept, and where."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from contracts.directory import SessionEntry
from contracts.jetstream.connection import SessionNotFoundError
from contracts.jetstream.directory import find_entry
from contracts.jetstream.keeping import bring_back, pin, undelete, unpin, withdraw
from contracts.jetstream.leases import is_leased
from contracts.keeping import KEEPER
from contracts.service import EXIT_DONE, EXIT_FAILED
from ops.archive import archive_session, open_archive_or_fail
from ops.cli.entries import known_entry, length, when
from ops.cli.output import clock, emit, progress_bar, say
from ops.cli.session_bus import session_bus
from ops.erasure import erase_everywhere

HOUR_S: Final = 3600
DAYS_FROM_H: Final = 48


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verbs to `sessions`."""
    delete = verbs.add_parser("delete", help="delete a session; it can be brought back for a while, unless --now")
    delete.add_argument("--now", action="store_true", help="erase it at once: log, audio, renders, archive, backups")
    delete.add_argument("--yes", action="store_true", help="do not ask, as on a terminal")
    back = verbs.add_parser("undelete", help="bring a deleted session back")
    keep = verbs.add_parser("pin", help="keep a session, whatever its age and the space")
    let_go = verbs.add_parser("unpin", help="let age and space decide again")
    archive = verbs.add_parser("archive", help="move a session to the S3 archive")
    fetch = verbs.add_parser("fetch", help="bring a session back from the archive")
    every: tuple[tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], Coroutine[Any, Any, int]]], ...] = (
        (delete, _delete),
        (back, _undelete),
        (keep, _pin),
        (let_go, _unpin),
        (archive, _archive),
        (fetch, _fetch),
    )
    for verb, run in every:
        verb.add_argument("session", metavar="ID")
        verb.add_argument("--json", action="store_true", help="print JSON")
        verb.set_defaults(run=run)


async def _delete(arguments: argparse.Namespace) -> int:
    session = arguments.session
    async with session_bus() as (settings, bus):
        entry = await find_entry(bus, session) or await known_entry(bus, session)
        if entry.ended_unix_ns is None:
            say(f"retold: it is still being recorded; stop it first: retold record stop --guild {entry.guild_id}")
            return EXIT_FAILED
        now = arguments.now or settings.grace_hours <= 0
        if not arguments.yes and not _confirmed(entry, now=now):
            say("Nothing was deleted.")
            return EXIT_FAILED
        if now:
            reached = await erase_everywhere(bus, session, settings)
            if arguments.json:
                emit({"session": session, "deleted": True, "erased": reached.erased, "left": reached.left})
                return EXIT_DONE
            say(f"Session {session} is erased: {', '.join(reached.erased) or 'nothing of it was left'}.")
            for sentence in reached.left:
                say(sentence)
            return EXIT_DONE
        await withdraw(bus, session, by="operator", grace_s=settings.grace_hours * HOUR_S)
        kept = await is_leased(bus, KEEPER)
    if arguments.json:
        emit({"session": session, "deleted": True, "grace_hours": settings.grace_hours})
        return EXIT_DONE
    say(f"Session {session} is deleted; nobody can open it. It is erased in {settings.grace_hours:g} hours.")
    say(f"Until then: retold sessions undelete {session}. At once: retold sessions delete --now {session}")
    if not kept:
        say("No `retold keeper` runs just now: it is erased when one does.")
    return EXIT_DONE


def _confirmed(entry: SessionEntry, *, now: bool) -> bool:
    if not sys.stdin.isatty():
        return True  # a script that says delete means it
    what = f"{entry.name or entry.channel_name} of {when(entry.started_unix_ns)}, {length(entry)}"
    say(f"Erase {what}? It cannot be undone. [y/N]" if now else f"Delete {what}? [y/N]")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


async def _undelete(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        entry = await undelete(bus, arguments.session)
    return _say(arguments, entry, f"Session {entry.session} is back, and its links open again.")


async def _pin(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        entry = await pin(bus, arguments.session)
    return _say(arguments, entry, f"Session {entry.session} stays until somebody deletes it.")


async def _unpin(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        entry = await unpin(bus, arguments.session)
    return _say(arguments, entry, f"Age and space decide again how long session {entry.session} stays.")


async def _archive(arguments: argparse.Namespace) -> int:
    async with session_bus() as (settings, bus):
        with progress_bar() as bar:
            task = bar.add_task("archive", total=1.0)
            entry = await archive_session(
                bus,
                open_archive_or_fail(settings),
                arguments.session,
                progress=lambda done: bar.update(task, completed=done),
            )
    archived = entry.keeping.archived
    said = f"Session {entry.session} is in the archive, and comes back when it is asked for."
    return _say(arguments, entry, said) if archived else EXIT_FAILED


async def _fetch(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        with progress_bar() as bar:
            task = bar.add_task("fetch", total=1.0)
            await bring_back(bus, arguments.session, progress=lambda done: bar.update(task, completed=done))
        entry = await find_entry(bus, arguments.session)
    if entry is None:
        raise SessionNotFoundError(f"there is no session {arguments.session[:40]}; `retold sessions ls` lists them")
    return _say(arguments, entry, f"Session {entry.session} is on the server.")


def _say(arguments: argparse.Namespace, entry: SessionEntry, text: str) -> int:
    if arguments.json:
        emit({"session": entry.session, "keeping": entry.keeping})
    else:
        say(text)
    return EXIT_DONE


def say_keeping(entry: SessionEntry, now_unix_ns: int) -> str:
    """How it is kept, as a list shows it."""
    keeping = entry.keeping
    if keeping.deleted_unix_ns is not None:
        return f"deleted {clock((now_unix_ns - keeping.deleted_unix_ns) / 1e9)} ago by {keeping.deleted_by}"
    parts = ["pinned"] if keeping.pinned else []
    parts += ["archived"] if keeping.archived is not None else []
    if keeping.going_unix_ns is not None:
        hours = (keeping.going_unix_ns - now_unix_ns) / 3.6e12
        parts.append(f"goes in {hours / 24:.0f} d" if hours >= DAYS_FROM_H else f"goes in {max(hours, 0):.0f} h")
    return ", ".join(parts)
