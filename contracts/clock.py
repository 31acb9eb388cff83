"""The session clock: one time line, zero at SessionStarted, integer ticks of 1/48000 s, half-open intervals."""

from __future__ import annotations

TICKS_PER_SECOND = 48_000  # the RTP clock rate of Opus (RFC 7587 §4.1)
FRAME_TICKS = 960  # Discord sends 20 ms frames
NS_PER_SECOND = 1_000_000_000


def ns_to_ticks(ns: int) -> int:
    """Session-clock nanoseconds as ticks, rounded to the nearest (half up)."""
    return (ns * 6 + 62_500) // 125_000  # 48000 / 1e9 = 6 / 125000


def ticks_to_ns(ticks: int) -> int:
    """Ticks as nanoseconds, rounded to the nearest (half up)."""
    return (ticks * 125_000 + 3) // 6


def ticks_to_seconds(ticks: int) -> float:
    """Ticks as seconds."""
    return ticks / TICKS_PER_SECOND


def seconds_to_ticks(seconds: float) -> int:
    """Seconds as ticks, rounded to the nearest."""
    return round(seconds * TICKS_PER_SECOND)
