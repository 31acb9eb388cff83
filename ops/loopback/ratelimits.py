"""Rate limits as Discord's: a bucket per route and channel, told in headers, and 429 for who does not listen."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

import msgspec

Clock = Callable[[], float]


class Limit(msgspec.Struct, frozen=True):
    """So many requests within so many seconds."""

    requests: int
    seconds: float


LIMITS: Mapping[tuple[str, str], Limit] = {
    ("POST", "messages"): Limit(5, 5.0),  # per channel
    ("PATCH", "messages"): Limit(5, 5.0),
    ("PUT", "voice-status"): Limit(5, 10.0),
    ("PATCH", "@me"): Limit(2, 30.0),  # the nickname
}


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a request: `retry_after_s` is 0 if it goes through; `headers` for the response."""

    retry_after_s: float
    headers: dict[str, str]


class RateLimits:
    """
    The buckets.

    Attributes
    ----------
    refused
        How many requests got 429.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._taken: dict[tuple[str, str, str], deque[float]] = defaultdict(deque)
        self.refused = 0

    def take(self, method: str, resource: str, major: str) -> Verdict:
        """One request to a resource of a channel or guild (`major`)."""
        limit = LIMITS.get((method, resource))
        if limit is None:
            return Verdict(0.0, {})
        now_s = self._clock()
        taken = self._taken[method, resource, major]
        while taken and taken[0] <= now_s - limit.seconds:
            taken.popleft()
        reset_s = (taken[0] if taken else now_s) + limit.seconds - now_s
        headers = {
            "X-RateLimit-Limit": str(limit.requests),
            "X-RateLimit-Reset": f"{time.time() + reset_s:.3f}",
            "X-RateLimit-Reset-After": f"{reset_s:.3f}",
            "X-RateLimit-Bucket": f"{method.lower()}-{resource.strip('@')}",
        }
        if len(taken) >= limit.requests:
            self.refused += 1
            told = {"X-RateLimit-Remaining": "0", "Retry-After": f"{reset_s:.3f}", "Via": "1.1 google"}
            return Verdict(reset_s, headers | told)
        taken.append(now_s)
        return Verdict(0.0, {**headers, "X-RateLimit-Remaining": str(limit.requests - len(taken))})
