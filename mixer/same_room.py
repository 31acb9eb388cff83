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
from functools import lru_cache
from itertools import combinations
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from mixer.opus import Samples
from mixer.timeline import PlacedSource

Hear: TypeAlias = Callable[[str, int, int], Samples]  # somebody's sound of [start, stop), (samples, 1)
Bins: TypeAlias = NDArray[np.complex64]
Activity: TypeAlias = NDArray[np.int64]  # packets of voice that begin in each second

WINDOW_S: Final = 10
WINDOWS: Final = 8  # looked at of a pair, those in which they say most at the same time
FIRST_WINDOWS: Final = 2  # if none of these tells anything, the pair is not in one room
ENOUGH_WINDOWS: Final = 5
KEPT_SPECTRA: Final = 32  # of a megabyte
COMMON_PACKETS: Final = 100  # two seconds of the window in which both send
REACH_S: Final = 0.05
ECHO_S: Final = 0.4
STANDS_OUT: Final = 2.0
AGREE_S: Final = 0.002
LEAST_WINDOWS: Final = 2
LOWEST_HZ, HIGHEST_HZ = 150.0, 6000.0  # where speech has something to say, and codecs keep it
LEAST_SHARE: Final = 1e-4  # of the strongest bin: -80 dB; what is weaker is a codec's
PEAK_S: Final = 0.001  # as wide is a peak
COARSE: Final = 4  # a rate that the band fits into
_SIZE: Final = 1 << (2 * WINDOW_S * TICKS_PER_SECOND - 1).bit_length()
_BAND: Final = slice(*(int(hertz * _SIZE / TICKS_PER_SECOND) for hertz in (LOWEST_HZ, HIGHEST_HZ)))


class Spectrum(msgspec.Struct, frozen=True):
    """A window: its band, and its mean square."""

    bins: Bins
    power: float


class Lag(msgspec.Struct, frozen=True):
    """By how many seconds one of two people is later than the other, and whether it was the one who spoke."""

    late_s: float
    own: bool


def shifts(activity: Mapping[str, Activity], hear: Hear, *, told: Callable[[], None] = lambda: None) -> dict[str, int]:
    """By how many ticks tracks come too late, of everybody who shares a room with somebody; the mean of a room is 0.

    Parameters
    ----------
    activity
        When each person sends.
    hear
        Gives their sound.
    told
        Called again and again meanwhile; may raise.
    """
    ear = Ear(hear)
    lags = {}
    for one, other in combinations(sorted(activity), 2):
        told()
        if (found := _lag_of(one, other, activity, ear)) is not None:
            lags[one, other] = found
    return _balanced(lags)


def activity_of(placed: tuple[PlacedSource, ...], stop_tick: int) -> Activity:
    """When a track sends."""
    ticks = np.concatenate([np.empty(0, dtype=np.int64), *(each.tick[~each.silent] for each in placed)])
    inside = ticks[(ticks >= 0) & (ticks < stop_tick)]
    return np.bincount(inside // TICKS_PER_SECOND, minlength=-(-stop_tick // TICKS_PER_SECOND))


def moved(placed: tuple[PlacedSource, ...], ticks: int) -> tuple[PlacedSource, ...]:
    """A track that came too late by so many ticks."""
    return tuple(msgspec.structs.replace(each, tick=each.tick - ticks) for each in placed) if ticks else placed


class Ear:
    """Windows of everybody's sound, as spectra; each is decoded and transformed once.

    Parameters
    ----------
    hear
        Gives somebody's sound.
    """

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._spectrum = lru_cache(KEPT_SPECTRA)(self._transformed)

    def lag(self, one: str, other: str, second: int) -> Lag | None:
        """By how much one is later than the other in the window that begins at this second, if they agree."""
        mine, theirs = self._spectrum(one, second), self._spectrum(other, second)
        late_s = _lag(mine.bins, theirs.bins)
        return None if late_s is None else Lag(late_s, own=mine.power > theirs.power)

    def _transformed(self, person: str, second: int) -> Spectrum:
        sound = self._hear(person, second * TICKS_PER_SECOND, (second + WINDOW_S) * TICKS_PER_SECOND)
        return Spectrum(spectrum(sound), float(np.square(sound).mean()))


def lag_of(one: Samples, other: Samples) -> float | None:
    """By how many seconds `one` is later than `other`, equally long sounds; None if they do not agree for certain."""
    return _lag(spectrum(one), spectrum(other))


def spectrum(sound: Samples) -> Bins:
    """The band of a sound that is compared, WINDOW_S long at most: every bin of size 1, or 0 if it is weak."""
    bins = np.fft.rfft(sound[:, 0] * np.hanning(len(sound)).astype(np.float32), _SIZE)[_BAND]
    magnitude = np.abs(bins)
    heard = magnitude > LEAST_SHARE * magnitude.max(initial=0)
    return np.divide(bins, magnitude, out=np.zeros_like(bins), where=heard)


def _lag(one: Bins, other: Bins) -> float | None:
    """Generalised cross-correlation with phase transform (Knapp and Carter 1976): roughly first, then to the sample."""
    cross = one * np.conj(other)
    reach, echo, peak = (int(seconds * TICKS_PER_SECOND) // COARSE for seconds in (REACH_S, ECHO_S, PEAK_S))
    near = _near(cross, _SIZE // COARSE, echo)
    at = int(np.argmax(near))
    others = np.concatenate((near[: max(at - peak, 0)], near[at + peak + 1 :]))
    if abs(at - echo) > reach or near[at] <= STANDS_OUT * others.max():
        return None
    rough = (at - echo) * COARSE
    exact = _near(cross, _SIZE, abs(rough) + COARSE)
    middle = len(exact) // 2
    first = middle + rough - COARSE
    return (first + int(np.argmax(exact[first : first + 2 * COARSE + 1])) - middle) / TICKS_PER_SECOND


def _near(cross: Bins, size: int, reach: int) -> NDArray[np.float32]:
    """The correlation at lags from -reach to reach, at the rate that this size of a transform has."""
    bins = np.zeros(size // 2 + 1, dtype=np.complex64)
    bins[_BAND] = cross
    row = np.fft.irfft(bins, size)
    return np.concatenate((row[-reach:], row[: reach + 1]))


def _lag_of(one: str, other: str, activity: Mapping[str, Activity], ear: Ear) -> float | None:
    """By how many seconds one person's track is later than another's; None if they are in no room together."""
    heard: list[Lag] = []
    for number, second in enumerate(_windows(activity[one], activity[other])):
        if number == FIRST_WINDOWS and not heard:
            return None
        if (lag := ear.lag(one, other, second)) is not None:
            heard.append(lag)
            if len(heard) == ENOUGH_WINDOWS:
                break
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
    """Seconds at which windows begin, those first in which both send most; all on one grid, so that few are decoded."""
    whole = len(one) // WINDOW_S * WINDOW_S
    common = np.minimum(one, other)[:whole].reshape(-1, WINDOW_S).sum(axis=1)
    best = np.argsort(-common, kind="stable")[:WINDOWS]
    yield from (best[common[best] >= COMMON_PACKETS] * WINDOW_S).tolist()


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
