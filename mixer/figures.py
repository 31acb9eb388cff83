"""What the mixer exports: how its jobs end and how long they take, and how many sessions it follows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

from contracts.jetstream.connection import Bus
from contracts.metrics import declared
from contracts.metrics.figures import Figures, Reading, connection_readings
from contracts.settings import Settings

Outcome = Literal["stored", "found", "retried", "given_up", "cancelled", "returned"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("stored", "found", "retried", "given_up", "cancelled", "returned")


class Tally:
    """What the workers of one process tell of their jobs.

    Attributes
    ----------
    figures
        Where it is exported.
    """

    def __init__(self) -> None:
        self.figures = Figures()
        self._ended = self.figures.counter(declared.RENDERS)
        for outcome in OUTCOMES:
            self._ended.labels(outcome)  # from 0 on: a rate needs a beginning
        self._seconds = self.figures.histogram(declared.RENDER_SECONDS)
        self._redelivered = self.figures.counter(declared.REDELIVERED)
        self._under_way = 0
        self.figures.read(self._read)

    def began(self, *, attempt: int) -> None:
        """A worker took a job, for the `attempt`th time in the job's life."""
        self._under_way += 1
        if attempt > 1:
            self._redelivered.inc()

    def ended(self, outcome: Outcome, *, elapsed_s: float) -> None:
        """The worker is through with it."""
        self._under_way -= 1
        self._ended.labels(outcome).inc()
        if outcome == "stored":
            self._seconds.observe(elapsed_s)

    def watch(self, settings: Settings, bus: Bus, followed: Callable[[], int]) -> None:
        """Read these as well: the connection, the disks, and how many sessions are followed."""
        scratch = Path(tempfile.gettempdir())
        self.figures.read(connection_readings(bus, {"data": settings.data, "scratch": scratch}))
        self.figures.read(lambda: [Reading(declared.FOLLOWED, followed())])

    def _read(self) -> Iterator[Reading]:
        yield Reading(declared.RENDERING, self._under_way)
