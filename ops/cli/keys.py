"""`retold keys list|rotate|retire`, `retold token`, `retold revoke`: who may open what, and no longer."""

from __future__ import annotations

import argparse
import os
import time
from typing import Final
from urllib.parse import urlsplit

from contracts.access import SCOPES, new_access, sign_access
from contracts.jetstream.revoked import LINK_ID, revoke
from contracts.keys import KnownKey, list_keys, load_signing_key, retire_key, rotate_keys
from contracts.service import EXIT_DONE
from contracts.tokens import peek_jti
from ops.cli.entries import when
from ops.cli.output import emit, say, table
from ops.cli.session_bus import session_bus
from ops.running import find_settings

NS: Final = 1_000_000_000
DAY_S: Final = 86_400


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `keys`, `token` and `revoke`."""
    keys = commands.add_parser("keys", help="the keys that sign links and tokens")
    verbs = keys.add_subparsers(metavar="VERB", required=True)
    every = verbs.add_parser("list", help="which key signs, and which still open what they signed")
    rotate = verbs.add_parser("rotate", help="sign with a new key; what the old one signed opens until it expires")
    retire = verbs.add_parser("retire", help="end every link and token that a key signed, at once")
    retire.add_argument("kid", metavar="KID")
    token = commands.add_parser("token", help="make a token for the API")
    token.add_argument("--scope", action="append", choices=SCOPES, help="what it allows; may be repeated; read if none")
    token.add_argument("--guild", default="", metavar="ID", help="only sessions of this server")
    token.add_argument("--days", type=_days, default=90.0, help="how long it lives, at most 366; 90 if not given")
    token.add_argument("--name", default="operator", help="whose it is, as the log will say")
    withdraw = commands.add_parser("revoke", help="withdraw a link or a token, at once")
    withdraw.add_argument("link", metavar="LINK", help="the link, the token, or its id (jti)")
    withdraw.add_argument("--reason", default="", help="why, for the record")
    for command, run in ((every, _list), (rotate, _rotate), (retire, _retire), (token, _token), (withdraw, _revoke)):
        command.add_argument("--json", action="store_true", help="print JSON")
        command.set_defaults(run=run)


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= 366:  # noqa: PLR2004  # contracts.access.MAX_LIFETIME_S
        raise argparse.ArgumentTypeError("more than 0 and at most 366")
    return days


async def _list(arguments: argparse.Namespace) -> int:
    _show(list_keys(find_settings(os.environ).data / "keys"), as_json=arguments.json)
    return EXIT_DONE


async def _rotate(arguments: argparse.Namespace) -> int:
    folder = find_settings(os.environ).data / "keys"
    made = rotate_keys(folder)
    say(f"Key {made.kid} signs now. What older keys signed opens until it expires, or until `retold keys retire`.")
    _show(list_keys(folder), as_json=arguments.json)
    return EXIT_DONE


async def _retire(arguments: argparse.Namespace) -> int:
    folder = find_settings(os.environ).data / "keys"
    retire_key(folder, arguments.kid)
    say(f"Key {arguments.kid} is retired: nothing that it signed opens any more.")
    _show(list_keys(folder), as_json=arguments.json)
    return EXIT_DONE


def _show(keys: list[KnownKey], *, as_json: bool) -> None:
    if as_json:
        emit(keys)
        return
    rows = [(key.kid, "signs" if key.signs else "verifies", when(key.made_unix_s * NS)) for key in keys]
    table(("KEY", "STATE", "MADE"), rows)


async def _token(arguments: argparse.Namespace) -> int:
    settings = find_settings(os.environ)
    claims = new_access(
        sub=arguments.name,
        scope=tuple(arguments.scope or ("read",)),
        guild=arguments.guild,
        now_s=int(time.time()),
        lifetime_s=round(arguments.days * DAY_S),
    )
    token = sign_access(claims, load_signing_key(settings.data / "keys"))
    if arguments.json:
        emit({"token": token, "jti": claims.jti, "scope": claims.scope, "expires_unix_s": claims.exp})
    else:
        say(f"Valid until {when(claims.exp * NS)} UTC for: {', '.join(claims.scope)}. Its id is {claims.jti}.")
        print(token)
    return EXIT_DONE


async def _revoke(arguments: argparse.Namespace) -> int:
    jti = find_jti(arguments.link)
    async with session_bus() as (_settings, bus):
        await revoke(bus, jti, by="operator", reason=arguments.reason)
    if arguments.json:
        emit({"jti": jti, "revoked": True})
    else:
        say(f"Withdrawn: {jti} opens nothing any more.")
    return EXIT_DONE


def find_jti(text: str) -> str:
    """The id of a link, a token, or an id itself.

    Raises
    ------
    TokenError
        If it is none of them.
    """
    if LINK_ID.fullmatch(text):
        return text
    parts = urlsplit(text).path.split("/") if "/" in text else [text]
    tokens = [part for part in parts if part.count(".") == 2 and part.startswith("eyJ")]  # noqa: PLR2004  # a JWT
    return peek_jti(tokens[0] if tokens else text)
