"""`retold link`: sign a link to a session's page or to one of its files."""

from __future__ import annotations

import argparse
import re

from contracts.artifacts import Artifact
from contracts.errors import RetoldError
from contracts.jetstream.objects import list_artifacts
from contracts.linker import Linker
from contracts.links import MAX_USES, Permission
from contracts.service import EXIT_DONE
from ops.cli.entries import known_entry, when
from ops.cli.output import emit, say
from ops.cli.session_bus import session_bus


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `link`."""
    link = commands.add_parser("link", help="sign a link to a session's page, or to one of its files")
    link.add_argument("session", metavar="ID", nargs="?")
    link.add_argument("--list", type=_whose, metavar="WHOSE", help="a list of sessions: all, user:ID or guild:ID")
    link.add_argument("--file", metavar="NAME", help="a file's name, as `retold sessions show` lists it")
    link.add_argument("--hours", type=_hours, help="how long it lives; RETOLD_LINK_HOURS if not given")
    link.add_argument("--uses", type=_uses, help="by how many clients it can be opened; by any if not given")
    link.add_argument("--for", dest="who", type=_who, metavar="ID", help="the only Discord account that it opens for")
    link.add_argument("--may-delete", action="store_true", help="whoever holds the page's link may erase the session")
    link.add_argument("--only-listen", action="store_true", help="the page's visitors may not make mixes of their own")
    link.add_argument("--json", action="store_true", help="print one JSON object")
    link.set_defaults(run=_link)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 < hours <= 744:  # noqa: PLR2004  # 31 days: contracts.links.MAX_LIFETIME_S
        raise argparse.ArgumentTypeError("more than 0 and at most 744 (31 days)")
    return hours


def _whose(text: str) -> str:
    if not re.fullmatch(r"all|(user|guild):[0-9]{1,20}", text):
        raise argparse.ArgumentTypeError("all, user:ID or guild:ID")
    return text


def _who(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise argparse.ArgumentTypeError("the id of a Discord account; developer mode's Copy ID gives it")
    return text


def _uses(text: str) -> int:
    uses = int(text)
    if not 1 <= uses <= MAX_USES:
        raise argparse.ArgumentTypeError(f"1 to {MAX_USES}")
    return uses


def _permissions(arguments: argparse.Namespace) -> tuple[Permission, ...]:
    remix: tuple[Permission, ...] = () if arguments.only_listen else ("remix",)
    delete: tuple[Permission, ...] = ("delete",) if arguments.may_delete else ()
    return remix + delete


async def _link(arguments: argparse.Namespace) -> int:
    if (arguments.session is None) == (arguments.list is None):
        raise RetoldError("name a session, or with --list whose sessions")
    async with session_bus() as (settings, bus):
        if arguments.session is not None:
            await known_entry(bus, arguments.session)
            artifacts = [stored.artifact for stored in await list_artifacts(bus, arguments.session)]
    linker = Linker(
        settings, hours=arguments.hours, may=_permissions(arguments), uses=arguments.uses, who=arguments.who or ""
    )
    if arguments.list is not None:
        url = linker.listing(arguments.list)
    elif arguments.file is None:
        url = linker.page(arguments.session)
    else:
        found = _find_file(artifacts, arguments.session, arguments.file)
        url = linker.download(arguments.session, found.name, found.filename)
    if arguments.json:
        emit({"session": arguments.session, "url": url, "expires_unix_s": linker.expires_unix_s})
    else:
        whom = f"Discord account {arguments.who}, signed in" if arguments.who else "whoever holds it"
        say(f"Valid until {when(linker.expires_unix_s * 1_000_000_000)} UTC, for {whom}:")
        if arguments.who and not settings.discord_client_id:
            say("It opens once the gateway can sign people in: see RETOLD_DISCORD_CLIENT_ID.")
        print(url)
    return EXIT_DONE


def _find_file(artifacts: list[Artifact], session: str, name: str) -> Artifact:
    """The newest of that name, as people or the store call it."""
    newest_first = sorted(artifacts, key=lambda artifact: -artifact.rendered_unix_ns)
    for artifact in newest_first:
        if name in {artifact.filename, artifact.name}:
            return artifact
    names = "; ".join(artifact.filename for artifact in artifacts) or "none yet"
    raise RetoldError(f"session {session} has no file {name!r}; it has: {names}")
