"""What a check found. A check that fails names the setting or the command that mends it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

import msgspec

from contracts.settings import Settings


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes
    ----------
    check
        What it was.
    verdict
        `fine`; `wrong`: it does not work; `note`: it works, and could be better; `skipped`: it was not looked at.
    said
        What was found.
    remedy
        What mends it: a setting, a command.
    """

    check: str
    verdict: Literal["fine", "wrong", "note", "skipped"]
    said: str
    remedy: str = ""


class Patient(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks are given.

    Attributes
    ----------
    channel_id
        A voice channel that may be joined for a moment; 0 = none.
    now_s
        This machine's clock, Unix time.
    """

    settings: Settings
    channel_id: int = 0
    now_s: Callable[[], float] = time.time


Check = Callable[[Patient], Awaitable[Iterable[Finding]]]


def fine(check: str, said: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, verdict="fine", said=said)


def wrong(check: str, said: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(check=check, verdict="wrong", said=said, remedy=remedy)


def note(check: str, said: str, remedy: str) -> Finding:
    """It works, and could be better."""
    return Finding(check=check, verdict="note", said=said, remedy=remedy)


def skipped(check: str, said: str, remedy: str = "") -> Finding:
    """It was not looked at."""
    return Finding(check=check, verdict="skipped", said=said, remedy=remedy)
