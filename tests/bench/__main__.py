"""`make bench`: every bench_*.py beside this file yields rows; a row's ratio is to a floor measured in the same run.

It measures and never judges: machines are noisy, and a figure is read beside its floor.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
COLUMNS = ("name", "value", "unit", "floor", "ratio")


def main() -> None:
    """Print a table, or with --json one row a line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one row a line")
    parser.add_argument("only", nargs="*", help="run only the benches whose names hold one of these words")
    arguments = parser.parse_args()
    table = Table(*COLUMNS, box=None, header_style="bold")
    for row in _rows(arguments.only):
        if arguments.json:
            print(json.dumps({column: row.get(column) for column in COLUMNS}), flush=True)
        else:
            table.add_row(*(_cell(row.get(column)) for column in COLUMNS))
    if not arguments.json:
        Console().print(table)


def _rows(only: list[str]) -> Iterator[dict[str, Any]]:
    for path in sorted(HERE.glob("bench_*.py")):
        if not only or any(word in path.stem for word in only):
            print(f"measuring {path.stem.removeprefix('bench_')} ...", file=sys.stderr)
            yield from _load(path).rows()


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


if __name__ == "__main__":
    main()
