"""Whether a service without an address of its own is well: it says so itself, by the age of a file.

The service's event loop touches `<RETOLD_DATA>/health/<service>` every few seconds while it can do its work, and takes
the file away when it cannot. A loop that hangs, a process that died and a service that lost its server all look the
same from outside: the file is old, or not there.

    python -m contracts.health capture      exit code 0 if capture is well, 1 if not
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from contracts.service import EXIT_DONE, EXIT_FAILED, exit_code
from contracts.settings import load_settings

BEAT_S: Final = 2.0
STALE_S: Final = 10.0  # five beats: a disk that stalls for a moment is no illness


async def keep_beating(data: Path, service: str, well: Callable[[], bool]) -> None:
    """Say every BEAT_S seconds whether the service is well; the file goes when this is cancelled.

    Parameters
    ----------
    data
        RETOLD_DATA.
    well
        Whether the service can do its work right now.
    """
    path = _file(data, service)
    try:
        while True:
            with contextlib.suppress(OSError):  # a disk that is full: it looks unwell, and works on
                await asyncio.to_thread(_say, path, well=well())  # a slow disk must not hold up the packets
            await asyncio.sleep(BEAT_S)
    finally:
        path.unlink(missing_ok=True)


def _say(path: Path, *, well: bool) -> None:
    if well:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    else:
        path.unlink(missing_ok=True)


def last_beat_age_s(data: Path, service: str) -> float | None:
    """Seconds since the service was last well; None if it is not well or does not run."""
    try:
        return time.time() - _file(data, service).stat().st_mtime
    except OSError:
        return None


def _file(data: Path, service: str) -> Path:
    return data / "health" / service


def main() -> int:
    """Look once; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m contracts.health", description="Whether a service is well.")
    parser.add_argument("service", choices=("capture", "mixer", "keeper"))
    return exit_code(_check(parser.parse_args().service))


async def _check(service: str) -> int:
    age_s = last_beat_age_s(load_settings(os.environ).data, service)
    sys.stdout.write(f"{service}: " + ("not well\n" if age_s is None else f"was well {age_s:.1f} s ago\n"))
    return EXIT_DONE if age_s is not None and age_s < STALE_S else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
