"""What the command line says: human text and progress on stderr, data on stdout, `--json` for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO, cast

import msgspec
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from contracts.log import Lasting

KILO: Final = 1000
PIPE_COLUMNS: Final = 160

console: Final = Console(file=cast("TextIO", Lasting(sys.stderr)), highlight=False)


def say(text: str) -> None:
    """A line for people."""
    console.print(text, markup=False, soft_wrap=True)


def emit(value: object) -> None:
    """One JSON object on stdout, at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout: the data of a command, for people."""
    drawn = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
    print_data(drawn)


def print_data(drawn: RenderableType) -> None:
    """Something drawn, on stdout; wide where nobody looks, so that no row is folded."""
    Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(drawn)


def progress_bar(*, counts: bool = False) -> Progress:
    """A progress display on stderr; on no terminal it prints nothing while running."""
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()]
    if counts:
        columns.insert(3, MofNCompleteColumn())
    return Progress(*columns, console=console, transient=False)


def human_bytes(count: float) -> str:
    """A size as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < KILO or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= KILO
    raise AssertionError


def clock(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`, cut off to whole ones, as players show them."""
    minutes, last = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{last:02}" if hours else f"{minutes}:{last:02}"
