"""`retold load`: how many rooms this machine records, and what each packet costs."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from contracts.log import configure
from contracts.service import EXIT_DONE, EXIT_FAILED
from ops.cli.output import emit, human_bytes, say, table

if TYPE_CHECKING:
    from ops.cost import Cost
    from ops.load import LoadResult


LATE_MS: Final = 1000.0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `load`."""
    load = commands.add_parser("load", help="many rooms talk at once; what it costs to record them all")
    load.add_argument("--rooms", type=_whole, default=50, help="how many rooms (50)")
    load.add_argument("--speakers", type=_positive, default=1.3, help="how many speak at a time in a room (1.3)")
    load.add_argument("--seconds", type=_positive, default=20.0, help="how long everybody talks (20)")
    load.add_argument("--captures", type=_whole, default=1, help="how many captures share the rooms (1)")
    load.add_argument("--copies", type=int, choices=(1, 3), default=1, help="nats-servers that keep every stream (1)")
    load.add_argument("--profile", type=Path, metavar="FILE", help="profile capture into FILE (it is slower then)")
    load.add_argument("--out", type=Path, metavar="DIR", help="keep the store and the logs there")
    load.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    load.set_defaults(run=_load)


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("more than 0")
    return number


async def _load(arguments: argparse.Namespace) -> int:
    from ops.load import Load  # noqa: PLC0415  # seconds of imports that no other command needs
    from ops.loopback.crowd import CrowdSpec  # noqa: PLC0415  # as above

    configure("error", service="load")
    spec = CrowdSpec(rooms=arguments.rooms, speakers=arguments.speakers)
    with _directory(arguments.out) as directory:
        load = Load(
            spec,
            seconds=arguments.seconds,
            directory=directory,
            profile=arguments.profile,
            captures=arguments.captures,
            copies=arguments.copies,
        )
        result = await load.run(progress=say)
    if arguments.json:
        emit(result)
    else:
        _show(result)
    return EXIT_FAILED if result.missing or result.undecryptable else EXIT_DONE


@contextlib.contextmanager
def _directory(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="retold-load-") as directory:
        yield Path(directory)


def _show(result: LoadResult) -> None:
    say(
        f"{result.rooms} rooms, {result.packets_per_s:.0f} packets/s: sent {result.sent}, recorded {result.recorded}, "
        f"missing {result.missing}, undecryptable {result.undecryptable}."
    )
    say(
        f"Joined in {result.join_s:g} s, all acknowledged {result.drain_s:g} s after the last word; at most "
        f"{result.most_unacked} batches unacknowledged, newest packet at most {result.oldest_packet_s:g} s old."
    )
    rows = [_row(name, cost) for name, cost in _costs(result)]
    table(("process", "CPU per packet", "of one core", "memory"), rows)
    if result.crowd_late_ms > LATE_MS:
        say(f"The senders were late by {result.crowd_late_ms:.0f} ms: this machine could not send as much as asked.")
    say(f"Memory per room: {human_bytes(result.rss_bytes_per_room)}.")


def _costs(result: LoadResult) -> Iterator[tuple[str, Cost]]:
    yield "capture", result.capture
    yield "nats-server", result.nats_server
    yield "senders", result.crowd


def _row(name: str, cost: Cost) -> tuple[str, str, str, str]:
    return name, f"{cost.us_per_packet:.1f} us", f"{cost.core_share:.0%}", human_bytes(cost.rss_bytes)
