"""How each speaker is heard just now, from the counters of the take: for the panel and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from capture.take import Take
from contracts.packets import Outcome

SAMPLE_NS: Final = 1_000_000_000  # what came in the last second is "now"
HEARD, QUIET, UNDECRYPTABLE = "heard", "quiet", "undecryptable"

Outcomes = Mapping[Outcome, int]


def state_of(before: Outcomes, after: Outcomes, *, held: int) -> str:
    """How an SSRC was heard between two readings of its counters.

    Parameters
    ----------
    before, after
        Packets by outcome so far.
    held
        Packets that wait for a key now.

    Returns
    -------
    `heard` if there was voice, `undecryptable` if there were only packets that nothing opened, else `quiet`.
    """
    new = {outcome for outcome, count in after.items() if count > before.get(outcome, 0)}
    if Outcome.VOICE in new:
        return HEARD
    return UNDECRYPTABLE if held or any(outcome.undecryptable for outcome in new) else QUIET


class SpeakerMeter:
    """The states of one take's speakers, read once a second.

    Attributes
    ----------
    states
        By SSRC.
    """

    def __init__(self) -> None:
        self._before: dict[int, Outcomes] = {}
        self._read_ns = 0
        self.states: dict[int, str] = {}

    def tick(self, take: Take, now_ns: int) -> None:
        """Read the counters, if it is time to; `now_ns` on CLOCK_BOOTTIME."""
        if now_ns - self._read_ns < SAMPLE_NS:
            return
        self._read_ns = now_ns
        now: dict[int, Outcomes] = {**take.outcomes()}
        held = take.tap.held_by_ssrc()
        nothing: Outcomes = {}
        self.states = {
            ssrc: state_of(self._before.get(ssrc, nothing), outcomes, held=held.get(ssrc, 0))
            for ssrc, outcomes in now.items()
        }
        self.states |= dict.fromkeys(held.keys() - now.keys(), UNDECRYPTABLE)
        self._before = now


def merge_states(states: list[str]) -> str:
    """Of one person's several SSRCs, what matters most."""
    return next((state for state in (HEARD, UNDECRYPTABLE) if state in states), QUIET)
