"""Watching a voice connection: what its signs of life say is wrong, and what to do, without doing it.

    sign                                              remedy
    nobody looks after the connection                 revive
    its socket is not read                            reconnect
    heartbeats of the websocket are not answered      reconnect
    somebody speaks and nothing comes                 probe (ping at once); no answer: reconnect
    keepalive pings are not answered any more         probe; no answer: reconnect
    frames wait for a key and no change is under way  ask for new keys, then reconnect

Every remedy may be wrong (a person's own network is down, a client is broken), so each is bounded: the pauses between
two of a kind double.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

import msgspec

MS: Final = 1_000_000
CHECK_NS: Final = 100 * MS
STALL_NS: Final = 300 * MS  # without a check we were busy: what seems missing may only be unread
KEEPALIVE_NS: Final = 5_000 * MS  # without anything sent, one route was dropped after about a minute
PROBE_AFTER_NS: Final = 300 * MS  # of nothing while somebody speaks: fifteen frames
PROBE_EVERY_NS: Final = 200 * MS
ROUTE_DEAD_NS: Final = 900 * MS  # three probes unanswered
ROUTE_SUSPECT_NS: Final = 10_000 * MS  # where pings are never answered, silence alone proves little
KEEPALIVE_LATE_NS: Final = KEEPALIVE_NS + 500 * MS  # a ping must have been answered by now: probe
KEEPALIVE_DEAD_NS: Final = KEEPALIVE_NS + 3_000 * MS  # a dozen probes unanswered
ACK_DEAD_NS: Final = 12_000 * MS  # two heartbeats of at most 5 s, and some patience
KEYS_STUCK_NS: Final = 750 * MS  # keys come some 10 ms after the frames that need them
KEYS_SETTLE_NS: Final = 250 * MS  # after a change, frames with the old keys may still come
NO_KEYS_NS: Final = 4_000 * MS  # until the group takes us in: a transition of others may come first, 2 s long
REKEYS: Final = 2  # then one other connection; then only now and then new keys: it may be the sender's fault
PAUSE_NS: Final = (3_000 * MS, 300_000 * MS)  # between two remedies of a kind: the first, and the greatest
FORGIVE_NS: Final = 600_000 * MS  # without complaint: pauses are short again


class Kind(Enum):
    """What can be done."""

    REVIVE = auto()
    RECONNECT = auto()
    PROBE = auto()
    REKEY = auto()


class Remedy(NamedTuple):
    """What is to be done, and why; `deaf_since_ns` is when the last datagram came."""

    kind: Kind
    cause: str
    deaf_since_ns: int | None = None


class Signs(msgspec.Struct, kw_only=True):
    """Signs of life; times are CLOCK_BOOTTIME in nanoseconds.

    Attributes
    ----------
    stands_since_ns
        None while there is no connection.
    acked_ns
        The last answered heartbeat of the websocket; None before the first.
    heard_ns, ponged_ns
        The last datagram of any kind, and the last answer to a ping; None before the first.
    speaking_since_ns
        Since when the gateway says that somebody speaks (op 5); None while nobody does.
    waiting_since_ns
        Arrival of the oldest frame that waits for a key; None if none does.
    keys_ready, keys_changed_ns, keys_switching
        Whether we are in the group; the last change of keys; whether one is under way.
    """

    stands_since_ns: int | None
    alive: bool = True
    reading: bool = True
    acked_ns: int | None = None
    heard_ns: int | None = None
    ponged_ns: int | None = None
    speaking_since_ns: int | None = None
    waiting_since_ns: int | None = None
    keys_ready: bool = True
    keys_changed_ns: int = 0
    keys_switching: bool = False


class Budget:
    """How often one kind of remedy may be used: the pauses double, and are short again after a long peace."""

    def __init__(self) -> None:
        self._pause_ns = PAUSE_NS[0]
        self._last_ns: int | None = None
        self.used = 0

    def spend(self, now_ns: int) -> bool:
        """Whether it may be used now."""
        if self._last_ns is not None:
            since_ns = now_ns - self._last_ns
            if since_ns < self._pause_ns:
                return False
            peace = since_ns >= FORGIVE_NS
            self.used = 0 if peace else self.used
            self._pause_ns = PAUSE_NS[0] if peace else min(2 * self._pause_ns, PAUSE_NS[1])
        self._last_ns = now_ns
        self.used += 1
        return True


class Watch:
    """Judges signs, and remembers what was done."""

    def __init__(self) -> None:
        self._budgets = {kind: Budget() for kind in Kind}
        self._reconnected_for_keys = False
        self._probed_ns = self._judged_ns = self._awake_since_ns = 0

    def judge(self, signs: Signs, now_ns: int) -> Remedy | None:
        """What is to be done now; to be asked every CHECK_NS."""
        if now_ns - self._judged_ns > STALL_NS:
            self._awake_since_ns = now_ns
        self._judged_ns = now_ns
        if not signs.alive:
            return self._bounded(Remedy(Kind.REVIVE, "task_ended"), now_ns)
        if signs.stands_since_ns is None:
            return None
        if not signs.reading:
            return self._bounded(Remedy(Kind.RECONNECT, "reader_detached"), now_ns)
        if signs.acked_ns is not None and self._since_ns(now_ns, signs.acked_ns, signs.stands_since_ns) > ACK_DEAD_NS:
            return self._bounded(Remedy(Kind.RECONNECT, "heartbeat_unanswered"), now_ns)
        return self._judge_route(signs, signs.stands_since_ns, now_ns) or self._judge_keys(signs, now_ns)

    def _judge_route(self, signs: Signs, stands_since_ns: int, now_ns: int) -> Remedy | None:
        quiet_ns = self._since_ns(now_ns, signs.heard_ns or 0, stands_since_ns)
        answers = signs.ponged_ns is not None
        missed_ns = 0 if signs.speaking_since_ns is None else min(quiet_ns, now_ns - signs.speaking_since_ns)
        if missed_ns > (ROUTE_DEAD_NS if answers else ROUTE_SUSPECT_NS):
            cause = "route_silent"
        elif answers and quiet_ns > KEEPALIVE_DEAD_NS:
            cause = "keepalive_unanswered"
        elif missed_ns > PROBE_AFTER_NS or (answers and quiet_ns > KEEPALIVE_LATE_NS):
            return self._probe(now_ns)
        else:
            return None
        return self._bounded(Remedy(Kind.RECONNECT, cause, signs.heard_ns), now_ns)

    def _probe(self, now_ns: int) -> Remedy | None:
        if now_ns - self._probed_ns < PROBE_EVERY_NS:
            return None
        self._probed_ns = now_ns
        return Remedy(Kind.PROBE, "nothing_heard")

    def _judge_keys(self, signs: Signs, now_ns: int) -> Remedy | None:
        if signs.waiting_since_ns is None or signs.keys_switching:
            return None
        if signs.waiting_since_ns < signs.keys_changed_ns + KEYS_SETTLE_NS:
            return None  # sent before we had its key: it is given up in time
        if self._since_ns(now_ns, signs.waiting_since_ns) <= (KEYS_STUCK_NS if signs.keys_ready else NO_KEYS_NS):
            return None
        if self._budgets[Kind.REKEY].used < REKEYS or self._reconnected_for_keys:
            return self._bounded(Remedy(Kind.REKEY, "frames_undecryptable"), now_ns)
        remedy = self._bounded(Remedy(Kind.RECONNECT, "keys_stuck"), now_ns)
        self._reconnected_for_keys = remedy is not None
        return remedy

    def _since_ns(self, now_ns: int, *moments_ns: int) -> int:
        """How long ago the last of these was, as far as we were awake."""
        return now_ns - max(*moments_ns, self._awake_since_ns)

    def _bounded(self, remedy: Remedy, now_ns: int) -> Remedy | None:
        return remedy if self._budgets[remedy.kind].spend(now_ns) else None
