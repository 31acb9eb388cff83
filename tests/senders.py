"""People on bad networks, without sound: packets with both clocks, and the truth about when each was captured.

The first of two generators of impairments (the second is `tests/queues.py`, written apart): delay is a constant, an
gamma jitter, slow swells of congestion and stalls that end in a burst; loss comes in runs. Sender clocks are off
by a constant, and may switch, stall, stop in silence, or start anew with another SSRC.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from contracts.clock import FRAME_TICKS, NS_PER_SECOND, TICKS_PER_SECOND
from contracts.packets import BATCH_MS, BATCH_PACKETS, Outcome
from mixer.columns import ROW
from mixer.replay import STAMP, Source, Track

FRAME_S = FRAME_TICKS / TICKS_PER_SECOND
TRAILING = 5  # Discord's silence frames
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """From a sender to the recorder.

    Attributes
    ----------
    jitter_ms
        Mean of the gamma part (shape 2) of the delay.
    loss, burst
        Fraction of packets that never come, and the mean length of a run of them.
    reorder
        Fraction of packets that are overtaken.
    swells, stalls
        Per hour: congestion of 20 to 80 ms that lasts seconds; stops of the link that end in a burst.
    stall_s
        Shortest and longest stall.
    steps
        (seconds, milliseconds): from then on the way is longer by so much.
    """

    jitter_ms: float = 1.0
    loss: float = 0.001
    burst: float = 1.3
    reorder: float = 0.0
    swells: float = 0.0
    stalls: float = 0.0
    stall_s: tuple[float, float] = (0.05, 0.3)
    steps: tuple[tuple[float, float], ...] = ()


class Habits(msgspec.Struct, frozen=True, kw_only=True):
    """How somebody talks, and what their client does.

    Attributes
    ----------
    activity
        Fraction of the time that they speak.
    skew_ppm
        Their clock is off by at most so much.
    switch_s, switch_gap_s
        When another device takes over, and for how long nothing is captured meanwhile; its skew is its own.
    capture_stalls
        (seconds, length): nothing is captured for so long, and the RTP clock does not notice.
    stopped_clock
        Whether the RTP clock stands still in silence.
    rejoins
        When they come back with another SSRC, seconds.
    """

    activity: float = 0.35
    skew_ppm: float = 100.0
    switch_s: float | None = None
    switch_gap_s: float = 0.4
    capture_stalls: tuple[tuple[float, float], ...] = ()
    stopped_clock: bool = False
    rejoins: tuple[float, ...] = ()


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded of one sender. Arrays of equal length, in the order of arrival.

    Attributes
    ----------
    captured_s
        When each frame's sound began, session clock.
    utterance
        Which utterance it belongs to, counted from 0; -1 for silence frames.
    base_s
        The least delay from there to its arrival.
    """

    track: Track
    captured_s: tuple[Floats, ...]  # of each source
    utterance: tuple[NDArray[np.int64], ...]
    base_s: float


def send(seconds: float, habits: Habits, way: Way, *, seed: int, user: int = 0) -> Sent:
    """One person for so many seconds."""
    chance = np.random.default_rng([seed, user, 1])
    base_s = chance.uniform(0.01, 0.08)
    rates = 1 + chance.uniform(-1, 1, 2) * habits.skew_ppm * 1e-6
    if habits.switch_s is not None:
        rates[1] = 2 - rates[0]  # the other way
    frames = _talk(seconds, habits, chance)
    captured, timestamp, utterance, voice = _clock(frames, habits, rates, chance)
    kept = ~_lost(len(captured), way, chance) | (~voice & (chance.random(len(captured)) < 0.9))
    sent = captured + FRAME_S + chance.gamma(2, 0.00035, len(captured))  # how punctual a client's thread is
    arrival = _arrive(sent, way, chance) + base_s
    recorded = _Recorded(captured, timestamp, utterance, voice, arrival)
    number = np.searchsorted(np.array(habits.rejoins), captured)
    parts = [recorded.source(kept & (number == part), chance, part, user) for part in range(len(habits.rejoins) + 1)]
    cut = [part for part in parts if part is not None]
    return Sent(
        track=Track(str(100_000 + user), f"Speaker {user}", tuple(source for source, _, _ in cut)),
        captured_s=tuple(each for _, each, _ in cut),
        utterance=tuple(each for _, _, each in cut),
        base_s=base_s + FRAME_S,
    )


def _talk(seconds: float, habits: Habits, chance: Generator) -> list[tuple[int, int]]:
    """Utterances as half-open ranges of the device's frames."""
    if seconds < 10:
        return [(round(0.1 / FRAME_S), round((seconds - 0.2) / FRAME_S))]
    spoken, at = [], chance.uniform(0.1, 1.0)
    while True:
        length = chance.uniform(0.6, 6.0)
        if at + length > seconds:
            return spoken
        spoken.append((round(at / FRAME_S), round((at + length) / FRAME_S)))
        at += length + max(0.3, chance.exponential(length * (1 - habits.activity) / habits.activity))


def _clock(
    spoken: Sequence[tuple[int, int]], habits: Habits, rates: Floats, chance: Generator
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64], Flags]:
    """Capture times, unwrapped RTP times, utterances, and which frames are voice."""
    frame = np.concatenate([np.arange(start, stop + TRAILING) for start, stop in spoken])
    utterance = np.concatenate([np.full(stop - start + TRAILING, i) for i, (start, stop) in enumerate(spoken)])
    voice = np.concatenate([np.arange(start, stop + TRAILING) < stop for start, stop in spoken])
    captured = frame * FRAME_S / rates[0]
    if habits.switch_s is not None:
        late = np.maximum(captured - habits.switch_s, 0) * (rates[0] / rates[1] - 1)
        captured = captured + late + np.where(captured > habits.switch_s, habits.switch_gap_s, 0)
    for at, length in habits.capture_stalls:
        captured = captured + np.where(captured > at, length, 0)
    timestamp = (np.arange(len(frame)) if habits.stopped_clock else frame) * FRAME_TICKS
    return captured, timestamp + int(chance.integers(2**32)), np.where(voice, utterance, -1), voice


def _lost(count: int, way: Way, chance: Generator) -> Flags:
    """Runs of loss: a chain of two states."""
    leave = 1 / way.burst
    enter = leave * way.loss / (1 - way.loss) if way.loss else 0.0
    draws = chance.random(count)
    state, lost = False, np.zeros(count, dtype=bool)
    for index, draw in enumerate(draws.tolist()):
        state = draw >= leave if state else draw < enter
        lost[index] = state
    return lost


def _arrive(sent: Floats, way: Way, chance: Generator) -> Floats:
    late = chance.gamma(2, way.jitter_ms / 2000, len(sent))
    hours = (sent[-1] - sent[0]) / 3600
    for _ in range(chance.poisson(way.swells * hours)):
        at, length, height = chance.uniform(sent[0], sent[-1]), chance.uniform(2, 20), chance.uniform(0.02, 0.08)
        phase = np.clip((sent - at) / length, 0, 1)
        late += height * np.sin(np.pi * phase) ** 2 * chance.uniform(0.3, 1, len(sent))
    late += np.where(chance.random(len(sent)) < way.reorder, chance.uniform(0.02, 0.06, len(sent)), 0)
    for at, milliseconds in way.steps:
        late += np.where(sent > at, milliseconds / 1000, 0)
    arrival = sent + late
    for _ in range(chance.poisson(way.stalls * hours)):
        at, length = chance.uniform(sent[0], sent[-1]), chance.uniform(*way.stall_s)
        held = (arrival >= at) & (arrival < at + length)
        arrival[held] = at + length + (arrival[held] - at) * 0.02
    return arrival


class _Recorded(msgspec.Struct, frozen=True):
    """Arrays of equal length, in the order of capture."""

    captured_s: Floats
    timestamp: NDArray[np.int64]
    utterance: NDArray[np.int64]
    voice: Flags
    arrival_s: Floats

    def source(
        self, chosen: Flags, chance: Generator, part: int, user: int
    ) -> tuple[Source, Floats, NDArray[np.int64]] | None:
        """One source with its truth, in the order of arrival; None if nothing came."""
        index = np.flatnonzero(chosen)
        if not len(index):
            return None
        sequence = np.arange(len(self.voice)) + int(chance.integers(2**16))
        shift = int(chance.integers(2**32)) if part else 2**32 - 60 * TICKS_PER_SECOND  # wraps after a minute
        index = index[np.argsort(self.arrival_s[index], kind="stable")]
        stamps = np.zeros(len(index), dtype=STAMP)
        stamps["sequence"] = sequence[index] & 0xFFFF
        stamps["timestamp"] = (self.timestamp[index] - self.timestamp[0] + shift) & 0xFFFF_FFFF
        stamps["arrival_ns"] = np.rint(self.arrival_s[index] * 1e6).astype(np.int64) * 1000
        stamps["ticks"] = FRAME_TICKS
        stamps["outcome"] = np.where(self.voice[index], Outcome.VOICE, Outcome.SILENCE)
        source = source_of(stamps, take=1, ssrc=1000 * (user + 1) + part)
        return source, self.captured_s[index], self.utterance[index]


class StampColumns:
    """As `mixer.columns.Columns`, of one source, without payloads."""

    def __init__(self, stamps: NDArray[np.void]) -> None:
        self._rows = np.zeros(len(stamps), dtype=ROW)
        self._rows["stamp"] = stamps

    def rows(self, _key: tuple[int, int]) -> NDArray[np.void]:
        """Every packet's stamp."""
        return self._rows


def source_of(stamps: NDArray[np.void], *, take: int, ssrc: int) -> Source:
    """A source of these packets."""
    return Source(take=take, ssrc=ssrc, columns=StampColumns(stamps))


def batch_starts(stamps: NDArray[np.void]) -> list[int]:
    """With which packets batches begin, as capture makes them."""
    starts, first = [], 0
    for index, arrival in enumerate(stamps["arrival_ns"].tolist()):
        if not starts or index - starts[-1] == BATCH_PACKETS or arrival - first > BATCH_MS * NS_PER_SECOND // 1000:
            starts.append(index)
            first = arrival
    return starts
