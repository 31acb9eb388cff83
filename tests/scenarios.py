"""What the timeline must bear, by two generators of impairments, and how well: `python -m tests.scenarios` prints it.

Errors are those of every utterance's first packet, in milliseconds, each person's constant delay taken off; of the call
of three seconds, which has one utterance, the constant that the generator knows. Activity goes from 5 to 50 % by seed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from mixer.report import largest_difference_ms
from mixer.timeline import PlacedSource, Timeline
from tests.queues import Client, Line, transmit
from tests.senders import Habits, Sent, Way, send
from tests.sync import edges_ms

Floats = NDArray[np.float64]
Generator = Literal["senders", "queues"]
Judged = Literal["hindsight", "follow"]

HOUR_S = 3600.0
SEEDS = 12
ACTIVITIES = (0.35, 0.05, 0.5, 0.1, 0.2)  # by seed
GENERATORS: tuple[Generator, ...] = ("senders", "queues")
ALIGNMENTS: tuple[Judged, ...] = ("hindsight", "follow")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What errors may be at most, milliseconds; None = not promised."""

    p95: float
    p99: float | None = None
    largest: float | None = None


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of call: its senders by either generator, and what is promised."""

    habits: Habits = Habits()
    way: Way
    client: Client = Client()
    line: Line
    hindsight: Limits = Limits(p95=1.0, largest=5.0)
    follow: Limits = Limits(p95=1.0, largest=5.0)
    seconds: float = HOUR_S
    sparse: bool = False

    def person(self, generator: Generator, seed: int, user: int = 0) -> Sent:
        """One of its people."""
        share = self.habits.activity if self.sparse else ACTIVITIES[seed % len(ACTIVITIES)]
        if generator == "senders":
            habits = msgspec.structs.replace(self.habits, activity=share)
            return send(self.seconds, habits, self.way, seed=seed, user=user)
        client = msgspec.structs.replace(self.client, talk=share)
        return transmit(self.seconds, client, self.line, seed=seed, user=user)


GOOD_WAY, GOOD_LINE = Way(), Line()
HOME_WAY = Way(jitter_ms=3, loss=0.005, swells=6, stalls=20)
HOME_LINE = Line(burst_ms=10, restless=1, drop=0.005, outages=10)
WIFI_WAY = Way(jitter_ms=8, loss=0.05, burst=2, reorder=0.02, swells=12, stalls=120, stall_s=(0.05, 0.4))
WIFI_LINE = Line(burst_ms=15, restless=1, fade=0.35, outages=120, drop=0.05)
STALLS = ((1200.0, 0.4), (2400.0, 1.5))
REJOINS = (900.0, 1800.0, 2700.0)

SCENARIOS: dict[str, Scenario] = {
    "good": Scenario(way=GOOD_WAY, line=GOOD_LINE),
    "home": Scenario(way=HOME_WAY, line=HOME_LINE),
    "bad Wi-Fi, 5 % loss": Scenario(way=WIFI_WAY, line=WIFI_LINE, follow=Limits(p95=2.0)),
    "route +30, +18 ms": Scenario(
        way=Way(steps=((1000, 30), (2200, 18))), line=Line(reroutes=((1000, 30), (2200, 18)))
    ),
    "route +60 ms": Scenario(way=Way(steps=((1440, 60),)), line=Line(reroutes=((1440, 60),))),
    "route -30 ms": Scenario(way=Way(steps=((1440, -30),)), line=Line(reroutes=((1440, -30),))),
    "rejoin x3, wrap": Scenario(
        habits=Habits(rejoins=REJOINS), way=HOME_WAY, client=Client(back_again_s=REJOINS), line=HOME_LINE
    ),
    "clock stops in silence": Scenario(
        habits=Habits(stopped_clock=True),
        way=HOME_WAY,
        client=Client(pauses_clock=True),
        line=HOME_LINE,
        hindsight=Limits(p95=2.0, p99=20.0),
        follow=Limits(p95=2.0, p99=20.0),
    ),
    "device switch": Scenario(
        habits=Habits(switch_s=1800),
        way=HOME_WAY,
        client=Client(new_device_s=1800),
        line=HOME_LINE,
        hindsight=Limits(p95=2.0, largest=10.0),
        follow=Limits(p95=2.0),
    ),
    "2 % activity": Scenario(
        habits=Habits(activity=0.02), way=HOME_WAY, client=Client(talk=0.02), line=HOME_LINE, sparse=True,
        follow=Limits(p95=40.0),
    ),
    "capture stalls": Scenario(
        habits=Habits(capture_stalls=STALLS), way=GOOD_WAY, client=Client(hiccups=STALLS), line=GOOD_LINE
    ),
    "20 % loss": Scenario(
        way=Way(jitter_ms=12, loss=0.2, burst=2),
        line=Line(burst_ms=12, restless=1, fade=0.4, drop=0.2),
        follow=Limits(p95=2.0),
    ),
    "a call of 3 s": Scenario(
        way=HOME_WAY, line=HOME_LINE, seconds=3.0, hindsight=Limits(p95=5.0), follow=Limits(p95=5.0)
    ),
}  # fmt: skip


class Outcome(msgspec.Struct, frozen=True):
    """Errors of starts and ends (ms) by alignment, the largest difference between the two, and steps in the report."""

    starts: dict[str, list[float]]
    ends: dict[str, list[float]]
    difference_ms: float
    steps: int
    missing: int
    cpu_s: dict[str, float]


def measure(name: str, generator: Generator, seed: int) -> Outcome:
    """One session of one person."""
    scenario = SCENARIOS[name]
    sent = scenario.person(generator, seed)
    placed: dict[str, tuple[PlacedSource, ...]] = {}
    cpu_s = {}
    for alignment in ALIGNMENTS:
        begun = time.process_time()
        placed[alignment] = Timeline([sent.track], alignment).place(sent.track)
        cpu_s[alignment] = time.process_time() - begun
    errors = {alignment: errors_s(sent, parts) for alignment, parts in placed.items()}
    edges = {
        alignment: edges_ms(sent, each, constant_s=None if scenario.seconds > 10 else sent.base_s)
        for alignment, each in errors.items()
    }
    notes = [source.notes for source in placed["hindsight"] if source.notes is not None]
    return Outcome(
        starts={alignment: np.abs(each[0]).tolist() for alignment, each in edges.items()},
        ends={alignment: np.abs(each[1]).tolist() for alignment, each in edges.items()},
        difference_ms=largest_difference_ms(placed["follow"], placed["hindsight"]),
        steps=sum(len(note.steps) for note in notes),
        missing=sum(int(np.isnan(error).sum()) for each in errors.values() for error in each),
        cpu_s=cpu_s,
    )


def errors_s(sent: Sent, placed: Sequence[PlacedSource]) -> list[Floats]:
    """By source, of every packet: placed less captured, seconds; nan where it was not placed."""
    errors = []
    for source, captured_s in zip(sent.track.sources, sent.captured_s, strict=True):
        error = np.full(len(captured_s), np.nan)
        for part in placed:
            if part.source is source:
                error[part.record] = part.tick / TICKS_PER_SECOND - captured_s[part.record]
        errors.append(error)
    return errors


def quantiles(errors: Sequence[float]) -> tuple[float, float, float, float]:
    """Median, p95, p99 and largest."""
    middle, p95, p99 = np.quantile(np.asarray(errors), (0.5, 0.95, 0.99)).tolist()
    return middle, p95, p99, float(np.max(errors))


def pooled(outcomes: Sequence[Outcome], alignment: Judged, edge: Literal["starts", "ends"]) -> list[float]:
    """Errors of many sessions together."""
    return [error for outcome in outcomes for error in getattr(outcome, edge)[alignment]]


def main() -> None:
    """Print the table, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("only", nargs="*", help="scenarios whose names hold one of these words")
    arguments = parser.parse_args()
    print(
        "| scenario | generator | alignment | starts p50 / p95 / p99 / max ms | ends p95 / max ms | apart at most ms |"
    )
    print("|---|---|---|---|---|---|")
    for row in _rows(arguments.only, arguments.seeds):
        print(row, flush=True)


def _rows(only: Sequence[str], seeds: int) -> Iterator[str]:
    with ProcessPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
        for name in SCENARIOS:
            if only and not any(word in name for word in only):
                continue
            for generator in GENERATORS:
                outcomes = list(
                    pool.map(measure, *zip(*((name, generator, seed) for seed in range(seeds)), strict=True))
                )
                apart = max(outcome.difference_ms for outcome in outcomes)
                for alignment in ALIGNMENTS:
                    starts = quantiles(pooled(outcomes, alignment, "starts"))
                    ends = quantiles(pooled(outcomes, alignment, "ends"))
                    yield (
                        f"| {name} | {generator} | {alignment} | "
                        + " / ".join(f"{value:.2f}" for value in starts)
                        + f" | {ends[1]:.2f} / {ends[3]:.2f} | {apart:.1f} |"
                    )


if __name__ == "__main__":
    main()
