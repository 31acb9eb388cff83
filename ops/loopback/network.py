"""The network between the voice server and the bot: what happens to each datagram, decided by a seed.

Each person's datagrams take their own path with its own random stream, so that one person's fate does not depend on
how many others speak. Every datagram draws the same number of values, so that changing one share leaves the others'
choices.
"""

import random
from typing import NamedTuple

import msgspec

NS_PER_MS = 1_000_000
OVERTAKEN_MS = (25.0, 60.0)  # a reordered datagram is late by more than one frame and less than three
PADDING_BYTES = (1, 32)


class NetworkConditions(msgspec.Struct, frozen=True, kw_only=True):
    """
    Shares are 0..1 of all datagrams.

    Attributes
    ----------
    jitter_ms
        Greatest delay of a datagram; delays are uniform from 0.
    loss, reorder, duplicate
        Share of datagrams that are lost, overtaken by later ones, sent twice.
    padding
        Share of frames that carry RTP padding; Discord's is 3 to 15 %.
    padding_only
        Share of frames followed by a packet that holds nothing but padding.
    seed
        Makes every decision.
    """

    jitter_ms: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    padding: float = 0.05
    padding_only: float = 0.01
    seed: int = 0


class Passage(NamedTuple):
    """What happens to one datagram."""

    lost: bool
    delay_ns: int
    copies: int
    padding_bytes: int
    padding_only_follows: bool


class Path:
    """One person's datagrams on their way to the bot."""

    def __init__(self, conditions: NetworkConditions, *, user_id: int) -> None:
        self._conditions = conditions
        self._random = random.Random(f"{conditions.seed}/{user_id}")  # noqa: S311 - repeatable by design

    def next(self) -> Passage:
        """The next datagram's passage."""
        draw, limits = self._random.random, self._conditions
        lost = draw() < limits.loss
        delay_ms = draw() * limits.jitter_ms
        low, high = OVERTAKEN_MS
        overtaken, overtaken_ms = draw() < limits.reorder, low + draw() * (high - low)
        copies = 2 if draw() < limits.duplicate else 1
        padded, padding_bytes = draw() < limits.padding, self._random.randint(*PADDING_BYTES)
        follows = draw() < limits.padding_only
        delay_ns = round((delay_ms + (overtaken_ms if overtaken else 0.0)) * NS_PER_MS)
        return Passage(lost, delay_ns, 0 if lost else copies, padding_bytes if padded else 0, follows)
