"""What a service's process says when it ends."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest

from contracts.errors import RetoldError, SettingsError, UnavailableError
from contracts.service import EXIT_DONE, EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE, exit_code, main
from contracts.settings import Settings


def raising(error: Exception) -> Callable[..., object]:
    async def run(_settings: Settings, *, stop: asyncio.Event) -> None:  # noqa: ARG001 - what every service takes
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError(["RETOLD_A: wrong", "RETOLD_B: wrong, too"]), EXIT_USAGE),
        (UnavailableError("no server"), EXIT_UNAVAILABLE),
        (RetoldError("it went wrong"), EXIT_FAILED),
    ],
)
def test_every_error_has_its_exit_code_and_says_its_message(
    error: RetoldError, code: int, capsys: pytest.CaptureFixture[str]
):
    """Whose fault it is stands in the code; each problem is a line of its own on stderr."""
    assert main("mixer", raising(error)) == code
    assert capsys.readouterr().err == "".join(f"retold: {line}\n" for line in str(error).splitlines())


def test_a_missing_setting_is_named_before_anything_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Capture without a token does not start."""
    monkeypatch.delenv("RETOLD_DISCORD_TOKEN", raising=False)
    assert main("capture", raising(AssertionError("it ran"))) == EXIT_USAGE
    assert "RETOLD_DISCORD_TOKEN: required" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_service_in_order(number: signal.Signals):
    """It is asked to stop, may finish, and that counts as done."""
    finished = []

    async def run(_settings: Settings, *, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        finished.append(number)

    assert main("mixer", run) == EXIT_DONE
    assert finished == [number]


def test_a_command_decides_about_its_own_exit_code():
    """What it returns is the code."""

    async def command() -> int:
        return 7

    assert exit_code(command()) == 7
