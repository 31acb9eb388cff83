"""`retold` as a process of its own, and which processes an installation still has."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ops.embedded import free_port

RETOLD = (sys.executable, "-m", "ops.cli.main")


def start(folder: Path, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
    """Run a command that writes to `stdout` and `stderr` in a folder; `settings` are its RETOLD_*."""
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        return subprocess.Popen(
            [*RETOLD, *arguments],
            env=environ(folder, **settings),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )


def environ(folder: Path, **settings: str) -> dict[str, str]:
    """No setting of ours, and a list of running installations of its own."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
    return {**plain, "XDG_RUNTIME_DIR": str(folder), **settings}


def until(condition: Callable[[], object], what: str, *, seconds: float, but: Callable[[], object] = str) -> None:
    """Wait for a condition; AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}, within {seconds} s; but: {but()}"
        time.sleep(0.05)


def free_ports(count: int) -> int:
    """The first of so many neighbouring TCP ports on loopback that were free a moment ago."""
    while True:
        first = free_port()
        try:
            with contextlib.ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
        except (OSError, OverflowError):
            continue
        return first


def left_below(folder: Path) -> dict[int, str]:
    """Processes that run for an installation below a folder: process id and command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command or f"RETOLD_DATA={folder}".encode() in variables:
            found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found
