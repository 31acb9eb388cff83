"""`retold guilds ls|keep`: Discord servers that set anything, and how long each keeps its recordings."""

from __future__ import annotations

import argparse
from typing import Final

import msgspec

from contracts.errors import MalformedError
from contracts.jetstream.directory import list_entries
from contracts.jetstream.guilds import change_guild, list_guilds
from contracts.jetstream.streams import ensure_shared
from contracts.keeping import read_age_s
from contracts.service import EXIT_DONE
from ops.cli.output import emit, say, table
from ops.cli.session_bus import session_bus

DAY_S: Final = 86_400
DEFAULT: Final = "default"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `guilds`."""
    guilds = commands.add_parser("guilds", help="Discord servers, and how long each keeps its recordings")
    verbs = guilds.add_subparsers(metavar="VERB", required=True)
    ls = verbs.add_parser("ls", help="list servers that have recordings, or set anything")
    keep = verbs.add_parser("keep", help="how old a server's recordings may become; never more than RETOLD_RETENTION")
    keep.add_argument("guild", metavar="ID", help="Discord's id of the server")
    keep.add_argument("age", type=_days, metavar="AGE", help="whole days or more, such as 30d or 1y; or default")
    for verb, run in ((ls, _ls), (keep, _keep)):
        verb.add_argument("--json", action="store_true", help="print JSON")
        verb.set_defaults(run=run)


def _days(text: str) -> int:
    if text == DEFAULT:
        return 0
    try:
        days, rest = divmod(read_age_s(text), DAY_S)
    except MalformedError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if rest or not days:
        raise argparse.ArgumentTypeError("whole days: 1d, 2w, 1y")
    return int(days)


async def _ls(arguments: argparse.Namespace) -> int:
    async with session_bus() as (settings, bus):
        await ensure_shared(bus)
        names = {entry.guild_id: entry.guild_name for entry in await list_entries(bus)}
        own = {guild.guild_id: guild.keep_days for guild in await list_guilds(bus)}
    rows = [
        {"guild_id": each, "name": names.get(each, ""), "keep_days": own.get(each, 0)}
        for each in sorted({*names, *own})
    ]
    if arguments.json:
        emit(rows)
        return EXIT_DONE
    usual = settings.retention or "any age"
    table(
        ("SERVER", "NAME", "KEPT"),
        ((row["guild_id"], row["name"], f"{row['keep_days']} d" if row["keep_days"] else usual) for row in rows),
    )
    return EXIT_DONE


async def _keep(arguments: argparse.Namespace) -> int:
    async with session_bus() as (settings, bus):
        await ensure_shared(bus)
        changed = await change_guild(
            bus, arguments.guild, lambda old: msgspec.structs.replace(old, keep_days=arguments.age)
        )
    if arguments.json:
        emit({"guild_id": changed.guild_id, "keep_days": changed.keep_days})
    elif changed.keep_days:
        say(f"Recordings of server {changed.guild_id} are deleted when they are {changed.keep_days} days old.")
    else:
        say(f"Recordings of server {changed.guild_id} may become as old as all: {settings.retention or 'any age'}.")
    return EXIT_DONE
