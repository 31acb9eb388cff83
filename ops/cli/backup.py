"""`retold backup WHERE`, `retold restore WHERE`: everything an installation needs, in a folder or in S3, and back."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Final

from rich.progress import Progress

from contracts.jetstream.connection import Bus
from contracts.jetstream.streams import ensure_shared
from contracts.service import EXIT_DONE, EXIT_FAILED
from contracts.settings import Settings
from ops.backup import Told, back_up, check_backup
from ops.cli.output import emit, human_bytes, progress_bar, say
from ops.cli.session_bus import session_bus
from ops.replace import replace
from ops.restore import restore
from ops.running import find_settings
from ops.vault.place import Folder, Place
from ops.vault.registry import open_place

WHERE: Final = "a folder, or s3: the bucket that RETOLD_S3_* name"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `backup` and `restore`."""
    save = commands.add_parser(
        "backup",
        help="save everything, to a folder or to S3; again and again to the same place",
        description="Sessions, settings of servers, withdrawn links, presets. What did not change is not written "
        "again, and what was erased is erased there, too. It can be interrupted at any moment.",
    )
    save.add_argument("where", metavar="WHERE", help=WHERE)
    save.add_argument("--files", action="store_true", help="renders, too; without it they are made again when restored")
    save.add_argument("--keys", action="store_true", help="the keys that sign links, too: keep such a backup safe")
    save.add_argument("--check", action="store_true", help="write nothing: read it all back, and compare")
    back = commands.add_parser(
        "restore",
        help="put back what a backup holds and this installation lacks",
        description="What is there stays, unless it is damaged and you say so; what was erased, here or before the "
        "backup, does not come back.",
    )
    back.add_argument("where", metavar="WHERE", help=WHERE)
    back.add_argument(
        "--replace",
        metavar="SESSION",
        action="append",
        default=[],
        help="only this session, which is there and damaged, by the backup's copy, if that is whole",
    )
    for command, run in ((save, _backup), (back, _restore)):
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.set_defaults(run=run)


async def _backup(arguments: argparse.Namespace) -> int:
    if arguments.check:
        return await _check(arguments)
    async with session_bus() as (settings, bus):
        await ensure_shared(bus)
        place = open_place(settings, arguments.where)
        with _alone(place), progress_bar() as bar:
            done = await back_up(
                bus, settings, place, with_files=arguments.files, with_keys=arguments.keys, told=_told(bar, "backup")
            )
    if arguments.json:
        emit(done)
        return EXIT_FAILED if done.damaged else EXIT_DONE
    size = human_bytes(done.bytes)
    say(f"{done.where}: {done.written} sessions written, {done.unchanged} as they were, {size} in all.")
    if done.pruned:
        say(f"{done.pruned} that were erased, or that somebody was taken out of, were erased there, too.")
    if done.archived:
        say(f"{done.archived} are in the archive; of those it holds what they were, not their sound.")
    for problem in done.damaged:
        say(f"retold: {problem}")
    return EXIT_FAILED if done.damaged else EXIT_DONE


async def _check(arguments: argparse.Namespace) -> int:
    settings = find_settings(os.environ)
    place = open_place(settings, arguments.where)
    with progress_bar() as bar:
        problems = await check_backup(place, settings, told=_told(bar, "check"))
    if arguments.json:
        emit({"where": place.where, "problems": problems})
    else:
        for problem in problems:
            say(problem)
        if problems:
            say("Remove those sessions' folders there, and run the backup again: it writes what is missing.")
        say(f"{place.where}: " + (f"{len(problems)} problems" if problems else "every byte is what was put there."))
    return EXIT_FAILED if problems else EXIT_DONE


async def _restore(arguments: argparse.Namespace) -> int:
    async with session_bus() as (settings, bus):
        place = open_place(settings, arguments.where)
        if arguments.replace:
            return await _replace(bus, settings, place, arguments)
        with progress_bar() as bar:
            done = await restore(bus, settings, place, told=_told(bar, "restore"))
    if arguments.json:
        emit(done)
    else:
        say(f"{done.restored} sessions restored; {done.there} were there; {done.erased} were erased, and stay so.")
        if done.forgotten:
            say(f"Out of {done.forgotten} a person was taken who had asked for it after that backup.")
        if done.archived:
            say(f"{done.archived} are in the archive, and come from there when they are asked for.")
        for problem in done.damaged:
            say(f"retold: not restored: {problem}")
    return EXIT_FAILED if done.damaged else EXIT_DONE


async def _replace(bus: Bus, settings: Settings, place: Place, arguments: argparse.Namespace) -> int:
    lacked = {session: await replace(bus, settings, place, session) for session in arguments.replace}
    if arguments.json:
        emit({"replaced": lacked})
    for session, missing in lacked.items():
        say(f"{session} is whole again; it had lost {'; '.join(missing)}. Its files are made anew.")
    return EXIT_DONE


@contextlib.contextmanager
def _alone(place: Place) -> Iterator[None]:
    with place.alone() if isinstance(place, Folder) else contextlib.nullcontext():
        yield


def _told(bar: Progress, what: str) -> Told:
    task = bar.add_task(what, total=1.0)
    return lambda session, done: bar.update(task, completed=done, description=f"{what} {session}")
