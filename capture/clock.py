"""The recorder's clock: CLOCK_BOOTTIME, which never jumps and goes on in suspend; zero is SessionStarted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec

BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")


def boottime_ns() -> int:
    """CLOCK_BOOTTIME, nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Which boot CLOCK_BOOTTIME belongs to; empty where the system does not tell."""
    try:
        return BOOT_ID_FILE.read_text().strip()
    except OSError:
        return ""


class SessionClock(msgspec.Struct, frozen=True):
    """Maps CLOCK_BOOTTIME to the session clock and to the wall clock.

    Attributes
    ----------
    zero_boottime_ns, zero_unix_ns
        Both clocks at SessionStarted.
    """

    zero_boottime_ns: int
    zero_unix_ns: int

    @classmethod
    def start(cls) -> SessionClock:
        """A clock that is zero now."""
        return cls(boottime_ns(), time.time_ns())

    @classmethod
    def resume(cls, *, boot: str, zero_boottime_ns: int, zero_unix_ns: int) -> SessionClock:
        """The clock of a session that an earlier process started: exact in the same boot, else by the wall clock."""
        if boot and boot == boot_id():
            return cls(zero_boottime_ns, zero_unix_ns)
        return cls(boottime_ns() - (time.time_ns() - zero_unix_ns), zero_unix_ns)

    def at_ns(self, boottime: int) -> int:
        """Session clock of a CLOCK_BOOTTIME, nanoseconds."""
        return boottime - self.zero_boottime_ns

    def now_ns(self) -> int:
        """Session clock now, nanoseconds."""
        return self.at_ns(boottime_ns())
