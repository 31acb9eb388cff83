"""The command line: one command, `retold`. Exit codes: 0 done, 1 failed, 2 usage, 69 a needed service is away."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from contracts.service import EXIT_FAILED, exit_code
from ops.cli import backup, demo, doctor, guilds, init, keys, lag, link, load, mix, record, services, sessions
from ops.cli.files import drop_stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parsed = parser().parse_args(arguments)
    try:
        return exit_code(parsed.run(parsed))
    except BrokenPipeError:  # the reader of our output is gone
        drop_stdout()
        return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    whole = argparse.ArgumentParser(
        prog="retold",
        description="Records Discord voice channels as an event log, and re-tells any session from it.",
        epilog="Settings are environment variables, RETOLD_*; the README lists them. Exit codes: 0 done, 1 failed, "
        "2 usage, 69 a needed service is away.",
    )
    commands = whole.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (init, demo, services, record, sessions, mix, link, keys, guilds, backup, lag, doctor, load):
        module.add_commands(commands)
    return whole


if __name__ == "__main__":
    sys.exit(main())
