"""`retold doctor`: what is wrong with this installation, and what mends it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from typing import Final

from rich.table import Table
from rich.text import Text

from contracts.errors import SettingsError
from contracts.log import configure
from contracts.service import EXIT_DONE, EXIT_FAILED
from ops.cli.output import emit, print_data, say
from ops.doctor.finding import Finding, Patient, wrong
from ops.running import find_settings

MARKS: Final = {
    "fine": ("\N{CHECK MARK}", "green"),
    "wrong": ("\N{BALLOT X}", "bold red"),
    "note": ("!", "yellow"),
    "skipped": ("-", "dim"),
}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor`."""
    doctor = commands.add_parser("doctor", help="what is wrong with this installation, and what mends it")
    doctor.add_argument(
        "--channel", type=int, default=0, metavar="ID", help="join this voice channel for a moment, to prove UDP"
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    doctor.set_defaults(run=_doctor)


async def _doctor(arguments: argparse.Namespace) -> int:
    configure("critical", service="doctor", stream=sys.stderr)
    try:
        settings = find_settings(os.environ)
    except SettingsError as error:
        remedy = "mend the variable; the README lists them all"
        findings = [wrong("settings", problem, remedy) for problem in error.problems]
    else:
        from ops.doctor.examination import examine  # noqa: PLC0415  # seconds of imports that nothing else needs

        findings = await examine(Patient(settings=settings, channel_id=arguments.channel))
    well = not any(finding.verdict == "wrong" for finding in findings)
    if arguments.json:
        emit({"well": well, "findings": findings})
    else:
        print_data(_draw(findings))
        say("All is well." if well else "What is marked \N{BALLOT X} does not work.")
    return EXIT_DONE if well else EXIT_FAILED


def _draw(findings: Iterable[Finding]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for finding in findings:
        mark, style = MARKS[finding.verdict]
        said = Text(finding.said)
        if finding.remedy:
            said.append(f"\n\N{RIGHTWARDS ARROW} {finding.remedy}", "bold" if finding.verdict == "wrong" else "dim")
        table.add_row(Text(mark, style), Text(finding.check, style), said)
    return table
