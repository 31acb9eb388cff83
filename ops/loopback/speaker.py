"""A person while in the call: SSRC, RTP counters, keys, and the path of the datagrams."""

import random

from ops.loopback.dave_client import DaveClient
from ops.loopback.network import Path
from ops.loopback.plan import Person
from ops.loopback.rtp import Header

TICKS_PER_FRAME = 960  # 20 ms at 48 kHz
FRAME_NS = 20_000_000


class Speaker:
    """
    One stay of one person in the call; who comes back gets a new one, with another SSRC.

    The RTP clock runs from `joined_ns` (CLOCK_MONOTONIC) on, in speech and in silence, as in the official clients. Who
    is `plain` speaks unencrypted until the group that is being made stands.
    """

    def __init__(
        self, *, person: Person, ssrc: int, path: Path, dave: DaveClient | None, rng: random.Random, joined_ns: int
    ) -> None:
        self.person = person
        self.ssrc = ssrc
        self.path = path
        self.dave = dave
        self.joined_ns = joined_ns
        self.packets = self.octets = 0
        self.plain = False
        self._sequence = rng.randrange(2**16)
        self._first_timestamp = rng.randrange(2**32)

    def timestamp(self, at_ns: int) -> int:
        """The RTP time at `at_ns`, in whole frames since the join."""
        frames = (at_ns - self.joined_ns) // FRAME_NS
        return (self._first_timestamp + frames * TICKS_PER_FRAME) % 2**32

    def peek(self, at_ns: int) -> Header:
        """The header that the next packet would have."""
        return Header(self._sequence, self.timestamp(at_ns), self.ssrc)

    def count(self, octets: int) -> None:
        """One packet more with `octets` of payload was given to the network."""
        self._sequence = (self._sequence + 1) % 2**16
        self.packets += 1
        self.octets += octets
