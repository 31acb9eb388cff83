"""What a process costs, by the kernel's account of it (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """One process while everybody talked.

    Attributes
    ----------
    core_share
        Of one core.
    """

    us_per_packet: float
    core_share: float
    rss_bytes: int


class Process:
    """A child process whose CPU is measured."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._begun_s = 0.0

    def begin(self) -> None:
        """Count from now on."""
        self._begun_s = self._cpu_s()

    def cost(self, *, packets: int, seconds: float) -> Cost:
        """Since `begin`."""
        used_s = self._cpu_s() - self._begun_s
        return Cost(
            us_per_packet=round(used_s / max(packets, 1) * 1e6, 2),
            core_share=round(used_s / seconds, 3),
            rss_bytes=self.rss_bytes,
        )

    @property
    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(self._fields()[21]) * PAGE_BYTES

    def _cpu_s(self) -> float:
        fields = self._fields()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def _fields(self) -> list[str]:
        """The fields of proc(5) stat from the third on."""
        return self._stat.read_text().rpartition(") ")[2].split()


class Processes:
    """Several of them, counted as one."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._each = [Process(pid) for pid in pids]

    def begin(self) -> None:
        """Count from now on."""
        for process in self._each:
            process.begin()

    def cost(self, *, packets: int, seconds: float) -> Cost:
        """Since `begin`."""
        costs = [process.cost(packets=packets, seconds=seconds) for process in self._each]
        return Cost(
            us_per_packet=round(sum(cost.us_per_packet for cost in costs), 2),
            core_share=round(sum(cost.core_share for cost in costs), 3),
            rss_bytes=self.rss_bytes,
        )

    @property
    def rss_bytes(self) -> int:
        """Resident memory."""
        return sum(process.rss_bytes for process in self._each)
