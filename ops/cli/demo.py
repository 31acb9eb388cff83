"""`retold demo`: the whole path on this machine, with progress, and the files at the end."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from contracts.log import configure
from contracts.service import EXIT_DONE, EXIT_FAILED, stop_on_signals
from contracts.settings import Settings, load_settings
from ops.cli.files import make_folder
from ops.cli.output import clock, console, emit, human_bytes, say
from ops.embedded import free_port
from ops.loopback.plan import MAX_SECONDS, MAX_SPEAKERS, MIN_SECONDS, make_plan
from ops.race import beside
from ops.running import find_running

if TYPE_CHECKING:
    from ops.demo import Demo

DEFAULT_OUT: Final = Path("retold-demo")
OURS: Final = {"RETOLD_NATS_URL", "RETOLD_PUBLIC_URL", "RETOLD_GATEWAY_PORT", "RETOLD_DISCORD_TOKEN"}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo`."""
    demo = commands.add_parser("demo", help="the whole path on this machine, without a Discord account")
    demo.add_argument(
        "--seconds", type=_between(float, MIN_SECONDS, MAX_SECONDS), default=30.0, help="how long people talk (30)"
    )
    demo.add_argument("--speakers", type=_between(int, 1, MAX_SPEAKERS), default=3, help="how many people (3)")
    demo.add_argument("--seed", type=int, help="who says what when; the same seed, the same call")
    demo.add_argument("--dave", action=argparse.BooleanOptionalAction, default=True, help="end-to-end encryption (on)")
    demo.add_argument("--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where the files go (retold-demo)")
    demo.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    demo.add_argument(
        "--hold", type=float, metavar="S", help="keep serving so many seconds; on a terminal until Ctrl-C if not given"
    )
    demo.set_defaults(run=_demo)


def _between(kind: type[Any], low: float, high: float) -> Callable[[str], Any]:
    def check(text: str) -> Any:
        number = kind(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"between {low:g} and {high:g}")
        return number

    check.__name__ = kind.__name__  # argparse names it when the text is no number
    return check


async def _demo(arguments: argparse.Namespace) -> int:
    stop = stop_on_signals()
    settings, environ = _settings(arguments)
    if (other := find_running({"RETOLD_DATA": str(settings.data)}, settings)) is not None:
        say(f"retold: an installation runs in {settings.data} already, as process {other.pid}; end it, or use --out")
        return EXIT_FAILED
    make_folder(arguments.out)
    make_folder(settings.data)
    from ops.demo import Demo  # noqa: PLC0415  # seconds of imports that no other command needs

    configure("error", service="demo", stream=sys.stderr)
    seed = random.SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    plan = make_plan(seconds=arguments.seconds, speakers=arguments.speakers, seed=seed)
    dave = "on" if arguments.dave else "off"
    say(f"Retold demo: {len(plan.people)} people talk for {clock(plan.seconds)}, seed {seed}, encryption {dave}")
    demo = Demo(settings=settings, environ=environ, plan=plan, dave=arguments.dave, out=arguments.out)
    await beside(_until(stop), _run(arguments, demo))
    return EXIT_DONE if demo.delivered else EXIT_FAILED


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()
    say("Ending.")


async def _run(arguments: argparse.Namespace, demo: Demo) -> None:
    async with demo.running() as bus:
        result = await beside(demo.watch(), demo.perform(bus))
        if result is not None:
            _show(arguments, demo.settings, result)
            await beside(demo.watch(), asyncio.sleep(_hold_s(arguments)))


def _settings(arguments: argparse.Namespace) -> tuple[Settings, dict[str, str]]:
    """The demo's settings, and the environment of its services: nothing of a real installation's addresses."""
    environ = {name: value for name, value in os.environ.items() if name not in OURS}
    environ["RETOLD_AUTO_RENDER"] = "true"
    settings = load_settings(environ)
    port = free_port()
    settings = msgspec.structs.replace(
        settings,
        data=settings.data if environ.get("RETOLD_DATA") else arguments.out / "data",
        gateway_port=port,
        public_url=f"http://{settings.gateway_host}:{port}",
    )
    return settings, environ


def _show(arguments: argparse.Namespace, settings: Settings, result: dict[str, Any]) -> None:
    packets = result["packets"]
    say(
        f"Sent {packets['sent']} packets, recorded {packets['recorded']}, "
        f"undecryptable {packets['undecryptable']}, lost {packets['lost']}."
    )
    for row in result["artifacts"]:
        say(f"  {arguments.out / row['name']}  {clock(row['duration_s'])}  {human_bytes(row['bytes'])}")
    if _hold_s(arguments):
        say(f"Page, while this runs: {result['page_url']}")
        say(f"From another terminal: retold sessions ls; retold lag; retold mix {result['session']} --format wav")
    else:
        data = shlex.quote(str(settings.data))
        say(f"To look again later: RETOLD_DATA={data} retold up; in another terminal: retold link {result['session']}")
    if arguments.json:
        emit(result)
    say(f"Data and logs are in {settings.data}.")
    if _hold_s(arguments) == math.inf:
        say("Serving until Ctrl-C.")


def _hold_s(arguments: argparse.Namespace) -> float:
    """How long to go on serving, seconds."""
    if arguments.hold is not None:
        return max(0.0, float(arguments.hold))
    return math.inf if sys.stdin.isatty() and console.is_terminal and not arguments.json else 0.0
