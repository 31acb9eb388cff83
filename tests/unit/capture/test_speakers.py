"""How a speaker is heard, from two readings of counters."""

from __future__ import annotations

import pytest

from capture.speakers import merge_states, state_of
from contracts.packets import Outcome


@pytest.mark.parametrize(
    ("before", "after", "held", "state"),
    [
        ({}, {}, 0, "quiet"),
        ({Outcome.VOICE: 5}, {Outcome.VOICE: 5}, 0, "quiet"),
        ({Outcome.VOICE: 5}, {Outcome.VOICE: 5, Outcome.SILENCE: 5}, 0, "quiet"),
        ({Outcome.VOICE: 5}, {Outcome.VOICE: 6}, 0, "heard"),
        ({}, {Outcome.VOICE: 1, Outcome.WRONG_KEY: 40}, 3, "heard"),
        ({}, {Outcome.WRONG_KEY: 1}, 0, "undecryptable"),
        ({Outcome.WRONG_KEY: 1}, {Outcome.WRONG_KEY: 1}, 0, "quiet"),
        ({Outcome.VOICE: 5}, {Outcome.VOICE: 5}, 12, "undecryptable"),
    ],
)
def test_new_packets_decide(before: dict[Outcome, int], after: dict[Outcome, int], held: int, state: str) -> None:
    """Voice is heard; packets that nothing opens, or that wait for a key, are not; the rest is quiet."""
    assert state_of(before, after, held=held) == state


def test_one_persons_ssrcs_count_together() -> None:
    """Somebody who came back has two: what matters most is said."""
    assert merge_states([]) == "quiet"
    assert merge_states(["quiet", "undecryptable"]) == "undecryptable"
    assert merge_states(["undecryptable", "heard"]) == "heard"
