"""What placing an hour of four speakers costs, against sorting its packets; and how well it places them.

The errors' floor is what is promised; `python -m tests.scenarios` prints the whole table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from contracts.recipes import Alignment
from mixer.spurts import order
from mixer.timeline import Timeline
from tests.scenarios import ALIGNMENTS, GENERATORS, SCENARIOS, measure, quantiles

SPEAKERS = 4
ROUNDS = 3
KINDS: tuple[Alignment, ...] = ("hindsight", "follow", "arrival")


def rows() -> Iterator[dict[str, str | float]]:
    """One row per alignment's cost, and per scenario, generator and alignment its p95."""
    tracks = [SCENARIOS["home"].person("senders", 0, user).track for user in range(SPEAKERS)]
    floor = _cpu(lambda: [order(source.stamps) for track in tracks for source in track.sources])
    for kind in KINDS:
        yield _row(f"place 60 min x {SPEAKERS}, {kind}", _cpu(lambda kind=kind: _place(tracks, kind)), "CPU s", floor)
    for name, scenario in SCENARIOS.items():
        for generator in GENERATORS:
            outcome = measure(name, generator, 0)
            for alignment in ALIGNMENTS:
                p95 = quantiles(outcome.starts[alignment])[1]
                yield _row(f"{name}, {generator}, {alignment}", p95, "ms p95", getattr(scenario, alignment).p95)


def _place(tracks: list, kind: Alignment) -> None:
    timeline = Timeline(tracks, kind)
    for track in tracks:
        timeline.place(track)


def _cpu(work: Callable[[], object]) -> float:
    """CPU seconds of the best round: the others carry the neighbours' load."""
    took = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        took.append(time.process_time() - begun)
    return min(took)


def _row(name: str, value: float, unit: str, floor: float) -> dict[str, str | float]:
    return {"name": f"timeline: {name}", "value": value, "unit": unit, "floor": floor, "ratio": value / floor}
