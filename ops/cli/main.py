"""The command line: one command, `retold`. Exit codes: 0 done, 1 failed, 2 usage, 69 a needed service is away.

A service is one of its commands, and is started again in mid-call: so only what the command needs is imported.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from contracts.service import EXIT_FAILED, exit_code
from ops.cli.files import drop_stdout

COMMANDS: Final = {  # by the module of `ops.cli` that adds them, in the order of the help
    "init": ("init",),
    "demo": ("demo",),
    "up": ("up",),
    "services": ("capture", "mixer", "gateway", "keeper", "metrics"),
    "record": ("record",),
    "sessions": ("sessions",),
    "mix": ("mix",),
    "link": ("link",),
    "keys": ("keys", "token", "revoke"),
    "guilds": ("guilds",),
    "backup": ("backup", "restore"),
    "lag": ("lag",),
    "doctor": ("doctor",),
    "load": ("load",),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    parsed = parser(given[0] if given else "").parse_args(given)
    try:
        return exit_code(parsed.run(parsed), service=getattr(parsed, "service", ""))
    except BrokenPipeError:  # the reader of our output is gone
        drop_stdout()
        return EXIT_FAILED


def parser(command: str = "") -> argparse.ArgumentParser:
    """The command line: what one command needs, or all of it if there is no such command."""
    whole = argparse.ArgumentParser(
        prog="retold",
        description="Records Discord voice channels as an event log, and re-tells any session from it.",
        epilog="Settings are environment variables, RETOLD_*; the README lists them. Exit codes: 0 done, 1 failed, "
        "2 usage, 69 a needed service is away.",
    )
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    wanted = [module for module, names in COMMANDS.items() if command in names]
    for module in wanted or COMMANDS:
        importlib.import_module(f"ops.cli.{module}").add_commands(commands)
    return whole


if __name__ == "__main__":
    sys.exit(main())
