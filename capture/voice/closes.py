"""What ends a voice connection, and what to do about it: one table of Discord's close codes, and how soon to try again.

REJOIN         leave the channel and join again: new session, key and SSRC. Never a resume: the key comes with op 4
               only, which a resumed session does not send.
FOLLOW         somebody moved the recorder, or the call went to another server: the main gateway says so in a moment.
               If it says nothing, join again.
FOLLOW_OR_END  the same, but if it says nothing, the call is over.
END            Discord does not want us back; the session ends with that cause.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

DELAYS_S: Final = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # between attempts: the first at once, then a cap
STABLE_S: Final = 5.0  # a connection that stood so long was a good one
GIVE_UP_S: Final = 600.0  # without any connection: the session ends


class Action(Enum):
    """What to do when a connection is lost."""

    REJOIN = auto()
    FOLLOW = auto()
    FOLLOW_OR_END = auto()
    END = auto()


class Loss(NamedTuple):
    """Why a connection was lost, and what follows; `cause` is the word in the facts.

    `deaf_since_ns` is when nothing came any more, on CLOCK_BOOTTIME, if that was before it was noticed.
    """

    action: Action
    cause: str
    deaf_since_ns: int | None = None


# Discord's Voice Close Event Codes, and RFC 6455 §7.4.1 below 4000
CLOSES: Final[dict[int, Loss]] = {
    1000: Loss(Action.REJOIN, "closed"),
    1001: Loss(Action.REJOIN, "voice_server_going_away"),
    1006: Loss(Action.REJOIN, "connection_dropped"),
    4004: Loss(Action.REJOIN, "token_refused"),
    4006: Loss(Action.REJOIN, "session_invalid"),
    4009: Loss(Action.REJOIN, "session_timed_out"),
    4011: Loss(Action.REJOIN, "voice_server_unknown"),
    4014: Loss(Action.FOLLOW, "disconnected"),
    4015: Loss(Action.REJOIN, "voice_server_crashed"),
    4016: Loss(Action.END, "encryption_mode_unknown"),
    4017: Loss(Action.END, "dave_required"),
    4021: Loss(Action.END, "rate_limited"),
    4022: Loss(Action.FOLLOW_OR_END, "call_ended"),
}


def loss_of(code: int | None) -> Loss:
    """What a close code means; a code that nobody documented is worth another try."""
    if code is None or code < 0:
        return CLOSES[1006]
    return CLOSES.get(code) or Loss(Action.REJOIN, f"closed_{code}")


class Backoff:
    """How long to wait before the next attempt, so that there is no storm of them; times in seconds of one clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._stood_since_s: float | None = None
        self._without_since_s: float | None = None

    def stands(self, now_s: float) -> None:
        """A connection stands."""
        self._stood_since_s, self._without_since_s = now_s, None

    def lost(self, now_s: float) -> float | None:
        """Seconds until the next attempt; None if it is time to give up."""
        if self._stood_since_s is not None and now_s - self._stood_since_s >= STABLE_S:
            self._failures = 0
        if self._without_since_s is None:
            self._without_since_s = now_s
        self._stood_since_s = None
        if now_s - self._without_since_s >= GIVE_UP_S:
            return None
        delay_s = DELAYS_S[min(self._failures, len(DELAYS_S) - 1)]
        self._failures += 1
        return delay_s
