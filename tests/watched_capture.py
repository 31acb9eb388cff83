"""Capture as its service runs it, in a process that says every few seconds what it holds; see `Vitals`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from capture.app import run
from contracts.log import configure
from contracts.settings import load_settings

EVERY_S: Final = 2.0


class Vitals(msgspec.Struct, frozen=True):
    """What a process holds.

    Attributes
    ----------
    tasks, threads, sockets, files
        How many; `files` are the open descriptors that are no sockets. Connections to Discord's REST are left out: a
        client keeps some of them for the next request.
    rss_kb
        Resident memory, KiB.
    cpu_s
        Of all its threads since it began.
    """

    tasks: int
    threads: int
    sockets: int
    files: int
    rss_kb: int
    cpu_s: float


def vitals() -> Vitals:
    """Of this process, now."""
    gc.collect()
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            links.append(str(link.readlink()))
    kept = _connections_to(urlsplit(os.environ["RETOLD_DISCORD_API_URL"]).port)
    every = [link for link in links if link.startswith("socket:")]
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    times = os.times()
    return Vitals(
        tasks=len(asyncio.all_tasks()),
        threads=len([thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]),
        sockets=len([link for link in every if link not in kept]),
        files=len(links) - len(every),
        rss_kb=int(resident.split()[1]),
        cpu_s=times.user + times.system,
    )


def _connections_to(port: int | None) -> set[str]:
    """TCP sockets of this process with that port at the other end, as /proc names them."""
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port or 0:04X}")}


async def _main(path: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    saying = asyncio.create_task(_say(path))
    try:
        await run(load_settings(os.environ), stop=stop)
    finally:
        saying.cancel()


async def _say(path: Path) -> None:
    with path.open("wb") as file:
        while True:
            await asyncio.sleep(EVERY_S)
            file.write(msgspec.json.encode(vitals()) + b"\n")
            file.flush()


if __name__ == "__main__":
    configure(service="capture")
    asyncio.run(_main(Path(sys.argv[1])))
