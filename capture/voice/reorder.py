"""Order by sequence number, before anything that depends on order.

In order, a packet goes straight through. A gap is waited for, WAIT_NS at most: DAVE's replay window starts at the first
nonce it accepts, so a frame that is decrypted too early costs all that were sent before it. The first packet of an SSRC
waits too, since nobody knows whether it is the first. That window starts once per sender and epoch: only there a gap is
worth a longer wait, EPOCH_WAIT_NS; later ones are decrypted whenever they come.

A number far off is no gap of thousands: it is a stray, which waits for a neighbour. Two that agree begin a new run: the
sender started anew. One that stays alone is delivered for itself, and the order stands.
"""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar

WAIT_NS: Final = 160_000_000  # eight frames: with jitter of 60 ms, an overtaken packet was up to 120 ms late
EPOCH_WAIT_NS: Final = 500_000_000  # a server that was busy for 0.3 s sent some before and some after
CAPACITY: Final = 64  # packets waiting; more than a second of one speaker
WINDOW: Final = 1024  # sequence numbers remembered for duplicates; what is farther off is a stray
HALF: Final = 1 << 15
MASK: Final = (1 << 16) - 1
NOBODY: Final = -1  # no sequence number: nothing may pass

T = TypeVar("T")


class Stray(NamedTuple, Generic[T]):
    """A packet whose number is far from all others."""

    sequence: int
    since_ns: int
    item: T


class Sequencer(Generic[T]):
    """Unwraps the sequence numbers of one SSRC, drops duplicates, and restores their order.

    Attributes
    ----------
    expected
        The sequence number that may `pass_next`, or NOBODY while anything waits.
    duplicates
        Packets that came twice.
    late
        Packets that came after their place was given up; they are delivered at once, out of order.
    runs
        How often the numbering began; more than 1 if the sender started anew.
    """

    def __init__(self) -> None:
        self._highest: int | None = None
        self._lowest = 0
        self._missing: set[int] = set()  # between lowest and highest, not received
        self._forgotten = 0  # missing for so long, or of earlier runs
        self._next: int | None = None
        self._waiting: dict[int, tuple[int, T]] = {}
        self._stray: Stray[T] | None = None
        self.expected = NOBODY
        self.duplicates = 0
        self.late = 0
        self.runs = 0

    @property
    def lost(self) -> int:
        """Sequence numbers between the first and the last of each run that never came."""
        return self._forgotten + len(self._missing)

    @property
    def waits(self) -> bool:
        """Whether any packet waits for another."""
        return bool(self._waiting) or self._stray is not None

    def is_duplicate(self, sequence: int) -> bool:
        """Whether this 16-bit sequence number was received before; counted if so."""
        if self._highest is None or sequence == self.expected:
            return False
        number = self._unwrap(sequence)
        if self._is_far(number):
            duplicate = self._stray is not None and self._stray.sequence == sequence
        else:
            duplicate = self._lowest <= number <= self._highest and number not in self._missing
        self.duplicates += duplicate
        return duplicate

    def pass_next(self) -> None:
        """Take the packet whose number is `expected`: nothing waits, it is in order."""
        number = self._next or 0
        self._highest = number
        self._next = number + 1
        self.expected = (number + 1) & MASK

    def push(self, sequence: int, now_ns: int, item: T) -> list[T]:
        """Take a packet that is no duplicate; what is in order now."""
        number = self._unwrap(sequence)
        ready: list[T] = []
        if self._is_far(number):
            if self._stray is None or abs(distance(self._stray.sequence, sequence)) >= CAPACITY:
                ready = self._take_stray()
                self._stray = Stray(sequence, now_ns, item)
                self.expected = NOBODY
                return ready
            ready, number = self._begin_anew(sequence)
        self._mark(number)
        if self._next is not None and number < self._next:
            self.late += 1
            return [*ready, item]
        self._waiting[number] = (now_ns, item)
        ready += self._in_order()
        while len(self._waiting) > CAPACITY:
            ready += self._skip()
        return ready

    def release(self, now_ns: int, *, wait_ns: int = WAIT_NS) -> list[T]:
        """What has waited for a gap for `wait_ns`."""
        ready: list[T] = []
        while self._waiting and now_ns - min(since for since, _ in self._waiting.values()) >= wait_ns:
            ready += self._skip()
        if self._stray is not None and now_ns - self._stray.since_ns >= WAIT_NS:
            ready += self._take_stray()
        return ready

    def settle(self, before_ns: int) -> list[T]:
        """All that waits, in order, if nothing came since `before_ns`: nothing fills its gaps any more."""
        newest_ns = max((since for since, _ in self._waiting.values()), default=before_ns)
        return self.flush() if newest_ns < before_ns else []

    def flush(self) -> list[T]:
        """All that waits, in order."""
        ready: list[T] = []
        while self._waiting:
            ready += self._skip()
        return ready + self._take_stray()

    def _skip(self) -> list[T]:
        self._next = min(self._waiting)
        return self._in_order()

    def _in_order(self) -> list[T]:
        ready: list[T] = []
        while self._next is not None and self._next in self._waiting:
            ready.append(self._waiting.pop(self._next)[1])
            self._next += 1
        self._expect()
        return ready

    def _expect(self) -> None:
        self.expected = NOBODY if self._next is None or self.waits else self._next & MASK

    def _unwrap(self, sequence: int) -> int:
        highest = sequence if self._highest is None else self._highest
        return highest + distance(highest, sequence)

    def _is_far(self, number: int) -> bool:
        return self._highest is not None and abs(number - self._highest) >= WINDOW

    def _mark(self, number: int) -> None:
        """Note a number as received, and those it leaves out as missing."""
        if self._highest is None:
            self._highest = self._lowest = number
            self.runs += 1
        elif number > self._highest:
            self._missing.update(range(self._highest + 1, number))
            self._highest = number
            self._forget_old(number - WINDOW)
        elif number < self._lowest:
            self._missing.update(range(number + 1, self._lowest))
            self._lowest = number
        else:
            self._missing.discard(number)

    def _forget_old(self, oldest: int) -> None:
        if len(self._missing) > WINDOW:
            known = {number for number in self._missing if number > oldest}
            self._forgotten += len(self._missing) - len(known)
            self._missing = known

    def _begin_anew(self, sequence: int) -> tuple[list[T], int]:
        """End the run; the stray begins the next, of which `sequence` is. What waited, and the sequence unwrapped."""
        stray, self._stray = self._stray, None
        ready = self.flush()
        self._forgotten += len(self._missing)
        self._missing.clear()
        self._highest = self._next = None
        if stray is not None:
            ready += self.push(stray.sequence, stray.since_ns, stray.item)
        return ready, self._unwrap(sequence)

    def _take_stray(self) -> list[T]:
        """The stray, for itself."""
        stray, self._stray = self._stray, None
        self._expect()
        if stray is None:
            return []
        self.late += 1
        return [stray.item]


def distance(start: int, stop: int) -> int:
    """How far it is from one sequence number to another, -2^15 to 2^15 - 1."""
    return ((stop - start + HALF) & MASK) - HALF
