"""People in one room: where two microphones heard the same sound, their tracks are laid onto each other by it.

Packets cannot tell by how much longer one person's way to the recorder is than another's, as long as it stays so; for
people who are apart nobody hears that. In one room each is in the other's microphone as well, and it is an echo.

    windows in which both send -> GCC-PHAT: the lag at which they agree -> guards -> one lag a pair -> everybody's shift

Guards: a peak must stand out (twice the next), lie within REACH_S, and be the largest up to ECHO_S: what comes out of
somebody's loudspeaker and into their microphone again peaks as sharply, 120 to 313 ms late, and tells nothing of the
ways. Windows must agree with each other. Sound takes 2.9 ms a metre, so that a lag depends on who of the two spoke;
where both did, the mean is taken, and the room is out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from mixer.opus import Samples
from mixer.timeline import PlacedSource

Hear: TypeAlias = Callable[[str, int, int], Samples]  # somebody's sound of [start, stop), (samples, 1)
Activity: TypeAlias = NDArray[np.int64]  # packets of voice that begin in each second

WINDOW_S: Final = 10
WINDOWS: Final = 8  # looked at of a pair, those in which they say most at the same time
FIRST_WINDOWS: Final = 3  # if none of these tells anything, the pair is not in one room
COMMON_PACKETS: Final = 100  # two seconds of the window in which both send
REACH_S: Final = 0.05
ECHO_S: Final = 0.4
STANDS_OUT: Final = 2.0
AGREE_S: Final = 0.002
LEAST_WINDOWS: Final = 2
LOWEST_HZ, HIGHEST_HZ = 150.0, 6000.0  # where speech has something to say, and codecs keep it
_PEAK_S: Final = 0.001  # as wide is a peak


class Lag(msgspec.Struct, frozen=True):
    """By how many seconds one of two people is later than the other, and whether it was the one who spoke."""

    late_s: float
    own: bool


def shifts(activity: Mapping[str, Activity], hear: Hear) -> dict[str, int]:
    """By how many ticks tracks come too late, of everybody who shares a room with somebody; the mean of a room is 0.

    Parameters
    ----------
    activity
        When each person sends.
    hear
        Gives their sound.
    """
    lags = {
        (one, other): found
        for one, other in combinations(sorted(activity), 2)
        if (found := _lag_of(one, other, activity, hear)) is not None
    }
    return _balanced(lags)


def activity_of(placed: tuple[PlacedSource, ...], stop_tick: int) -> Activity:
    """When a track sends."""
    ticks = np.concatenate([np.empty(0, dtype=np.int64), *(each.tick[~each.silent] for each in placed)])
    inside = ticks[(ticks >= 0) & (ticks < stop_tick)]
    return np.bincount(inside // TICKS_PER_SECOND, minlength=-(-stop_tick // TICKS_PER_SECOND))


def moved(placed: tuple[PlacedSource, ...], ticks: int) -> tuple[PlacedSource, ...]:
    """A track that came too late by so many ticks."""
    return tuple(msgspec.structs.replace(each, tick=each.tick - ticks) for each in placed) if ticks else placed


def lag_of(one: Samples, other: Samples) -> float | None:
    """By how many seconds `one` is later than `other`; None where they do not agree for certain.

    Generalised cross-correlation with phase transform (Knapp and Carter 1976), of a band.
    """
    size = 1 << int(2 * len(one) - 1).bit_length()
    cross = np.fft.rfft(one[:, 0], size) * np.conj(np.fft.rfft(other[:, 0], size))
    frequency = np.fft.rfftfreq(size, 1 / TICKS_PER_SECOND)
    outside = (frequency < LOWEST_HZ) | (frequency > HIGHEST_HZ) | (np.abs(cross) == 0)
    cross[outside] = 0
    cross[~outside] /= np.abs(cross[~outside])
    row = np.fft.irfft(cross, size)
    reach, echo, peak = (int(seconds * TICKS_PER_SECOND) for seconds in (REACH_S, ECHO_S, _PEAK_S))
    near = np.concatenate((row[-echo:], row[: echo + 1]))
    at = int(np.argmax(near))
    others = np.concatenate((near[: max(at - peak, 0)], near[at + peak + 1 :]))
    if abs(at - echo) > reach or near[at] < STANDS_OUT * others.max():
        return None
    return (at - echo) / TICKS_PER_SECOND


def _lag_of(one: str, other: str, activity: Mapping[str, Activity], hear: Hear) -> float | None:
    """By how many seconds one person's track is later than another's; None if they are in no room together."""
    heard: list[Lag] = []
    for number, second in enumerate(_windows(activity[one], activity[other])):
        if number == FIRST_WINDOWS and not heard:
            return None
        start, stop = second * TICKS_PER_SECOND, (second + WINDOW_S) * TICKS_PER_SECOND
        sounds = hear(one, start, stop), hear(other, start, stop)
        if (late_s := lag_of(*sounds)) is not None:
            loud = [float(np.square(sound).mean()) for sound in sounds]
            heard.append(Lag(late_s, own=loud[0] > loud[1]))
    return _agreed(heard)


def _agreed(heard: list[Lag]) -> float | None:
    """One lag of many: those who were closer to their microphone each for themselves, then the mean of both."""
    middles = []
    for own in (True, False):
        lags = np.array([lag.late_s for lag in heard if lag.own == own])
        if len(lags):
            middle = float(np.median(lags))
            if np.count_nonzero(np.abs(lags - middle) <= AGREE_S) < len(lags) * 2 / 3:
                return None
            middles.append(middle)
    return float(np.mean(middles)) if len(heard) >= LEAST_WINDOWS else None


def _windows(one: Activity, other: Activity) -> Iterator[int]:
    """Seconds at which windows begin, those first in which both send most; none over another."""
    common = np.minimum(one, other)
    if len(common) < WINDOW_S:
        return
    sums = np.convolve(common, np.ones(WINDOW_S, dtype=np.int64), "valid")
    for _ in range(WINDOWS):
        best = int(np.argmax(sums))
        if sums[best] < COMMON_PACKETS:
            return
        yield best
        sums[max(best - WINDOW_S + 1, 0) : best + WINDOW_S] = 0


def _balanced(lags: Mapping[tuple[str, str], float]) -> dict[str, int]:
    """Shifts that fit all lags best, those of each room around 0."""
    people = sorted({person for pair in lags for person in pair})
    place = {person: index for index, person in enumerate(people)}
    rows = np.zeros((len(lags), len(people)))
    for row, (one, other) in zip(rows, lags, strict=True):
        row[place[one]], row[place[other]] = 1, -1
    # The shortest of all that fit as well: where nothing says who is right, all move by the same.
    late_s = np.linalg.lstsq(rows, np.array(list(lags.values())), rcond=None)[0] if people else np.zeros(0)
    ticks = np.rint(late_s * TICKS_PER_SECOND).astype(int).tolist()
    return {person: late for person, late in zip(people, ticks, strict=True) if late}
