"""Everybody where they spoke: utterances lie within a millisecond, through all that networks and clients do."""

from __future__ import annotations

import pytest

from tests.scenarios import (
    ALIGNMENTS,
    GENERATORS,
    SCENARIOS,
    SEEDS,
    Generator,
    Limits,
    Outcome,
    measure,
    pooled,
    quantiles,
)


def complaints(errors: list[float], limits: Limits) -> list[str]:
    """Every limit that is exceeded."""
    _, p95, p99, largest = quantiles(errors)
    found = (("p95", p95, limits.p95), ("p99", p99, limits.p99), ("max", largest, limits.largest))
    return [f"{name} {value:.2f} > {limit} ms" for name, value, limit in found if limit is not None and value > limit]


def judge(name: str, outcomes: list[Outcome]) -> list[str]:
    """Complaints about both alignments, starts and ends."""
    scenario = SCENARIOS[name]
    return [
        f"{alignment}, {edge}: {complaint}"
        for alignment in ALIGNMENTS
        for edge in ("starts", "ends")
        for complaint in complaints(pooled(outcomes, alignment, edge), getattr(scenario, alignment))
    ]


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_utterances_start_and_end_where_they_were_spoken(name: str, generator: Generator):
    """An hour of one person by each generator of impairments."""
    outcome = measure(name, generator, 0)
    assert outcome.missing == 0
    assert judge(name, [outcome]) == []


@pytest.mark.soak
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_they_do_with_any_seed(name: str, generator: Generator):
    """Twelve hours of each, activity from 5 to 50 %."""
    outcomes = [measure(name, generator, seed) for seed in range(SEEDS)]
    assert judge(name, outcomes) == []
