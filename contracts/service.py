"""A service as a process: its settings, its log, its signals, and what its end says to whoever started it.

`python -m <service>` and `retold <service>` both come here. Exit codes: 0 done, 1 failed, 2 usage, 69 a needed service
is away (sysexits.h).
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from contracts.errors import RetoldError, SettingsError, UnavailableError
from contracts.log import configure
from contracts.settings import Settings, load_settings

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNAVAILABLE: Final = 69  # sysexits.h EX_UNAVAILABLE
REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {"capture": ("discord_token",), "metrics": ("metrics_port",)}
UVLOOP: Final = frozenset({"capture"})  # its sockets are read on the loop, beside all that people ask for


class Run(Protocol):
    """A service's composition root: serves until `stop` is set."""

    def __call__(self, settings: Settings, *, stop: asyncio.Event) -> Awaitable[None]:
        """Serve."""


def main(service: str, run: Run) -> int:
    """Run one service by the environment's settings until SIGINT or SIGTERM; the exit code."""
    return exit_code(_serve(service, run), service=service)


def exit_code(command: Coroutine[Any, Any, int], *, service: str = "") -> int:
    """Run a command to its end: its exit code, or the one of its error, whose message goes to stderr.

    Parameters
    ----------
    service
        The service that it runs, which may have an event loop of its own.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_of(service)) as runner:
            return runner.run(command)
    except RetoldError as error:
        for line in error.problems if isinstance(error, SettingsError) else (str(error),):
            sys.stderr.write(f"retold: {line}\n")
        return _code(error)
    except KeyboardInterrupt:
        return EXIT_FAILED


async def serve(service: str, run: Run, settings: Settings, *, stop: asyncio.Event) -> int:
    """Set up the log and serve until `stop` is set; EXIT_DONE."""
    configure(settings.log_level, service=service)
    await run(settings, stop=stop)
    return EXIT_DONE


class Stop(asyncio.Event):
    """Set when a service has to end.

    Attributes
    ----------
    hand_over
        Whether another is expected to go on where this one stops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hand_over = False

    def leave(self) -> None:
        """End, and let the next one go on."""
        self.hand_over = self.hand_over or not self.is_set()
        self.set()


def stop_on_signals() -> Stop:
    """What SIGINT, SIGTERM and SIGHUP set; the last one not under nohup.

    SIGTERM is what service managers and Docker send, also for a restart or an upgrade: whoever has something running
    leaves it to the next one. Ctrl-C, SIGINT, ends it; so does a terminal that is closed.
    """
    stop = Stop()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.leave)
    for number in (signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, stop.set)
    return stop


def hands_over(stop: asyncio.Event) -> bool:
    """Whether a service that was told to stop leaves what runs to the next one."""
    return isinstance(stop, Stop) and stop.hand_over


async def _serve(service: str, run: Run) -> int:
    settings = load_settings(os.environ, required=REQUIRED.get(service, ()))
    return await serve(service, run, settings, stop=stop_on_signals())


def _loop_of(service: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the service's event loop; None = as Python has it. Imported by name: only capture has uvloop."""
    if service not in UVLOOP:
        return None
    make: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return make


def _code(error: RetoldError) -> int:
    match error:
        case SettingsError():
            return EXIT_USAGE
        case UnavailableError():
            return EXIT_UNAVAILABLE
        case _:
            return EXIT_FAILED
