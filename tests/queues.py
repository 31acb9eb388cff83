"""The second generator of impairments, written apart from `tests/senders.py`: nothing is drawn that can be simulated.

Delay is what queues give: a bottleneck shared with bursty cross traffic (Lindley's recursion) whose load wanders from
calm to busy and full, then a radio link that retries with growing backoff while it fades, head of line first; a packet
is lost when its retries are used up, or in runs on a full link. Clocks warm up. Clients send when their device has
filled its buffer, which is not as long as a frame. Talk has heavy tails: interjections, and monologues of minutes.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from contracts.clock import FRAME_TICKS, TICKS_PER_SECOND
from contracts.packets import Outcome
from mixer.replay import STAMP, Track
from tests.senders import Sent, source_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
FRAME_S = FRAME_TICKS / TICKS_PER_SECOND
BUFFERS_S = (480 / 48_000, 512 / 48_000, 1024 / 48_000)  # of audio devices
MAX_TRIES = 7  # of 802.11
LOADS = (0.2, 0.6, 0.93)  # of the bottleneck: calm, busy, full
DWELL_S = (60.0, 15.0, 4.0)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What carries the packets.

    Attributes
    ----------
    burst_ms
        Mean work that one burst of cross traffic brings to the bottleneck.
    restless
        How often the load changes, relative to DWELL_S; 0 = always calm.
    fade
        Mean failure rate of one try on the radio link.
    outages
        Per hour: the radio is gone for 50 to 400 ms.
    drop
        Fraction of packets that a full link drops, in runs.
    reroutes
        (seconds, milliseconds): the way is longer by so much from then on.
    room_reroutes
        The same for the recorder's own leg, which everybody shares.
    """

    burst_ms: float = 1.0
    restless: float = 0.0
    fade: float = 0.0
    outages: float = 0.0
    drop: float = 0.0
    reroutes: tuple[tuple[float, float], ...] = ()
    room_reroutes: tuple[tuple[float, float], ...] = ()


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """What sends them.

    Attributes
    ----------
    talk
        Fraction of the time that they talk.
    skew_ppm, warmth_ppm
        Largest skew, and by how much warmth changes it in the first half hour.
    pauses_clock
        Whether RTP time stands still while nothing is sent.
    hiccups
        (seconds, length): the capture device stands still, and RTP time with it.
    new_device_s
        When another device takes over, half a second later, with the opposite skew.
    back_again_s
        When the client reconnects, with another SSRC, sequence and timestamp.
    """

    talk: float = 0.35
    skew_ppm: float = 100.0
    warmth_ppm: float = 3.0
    pauses_clock: bool = False
    hiccups: tuple[tuple[float, float], ...] = ()
    new_device_s: float | None = None
    back_again_s: tuple[float, ...] = ()


def transmit(seconds: float, client: Client, line: Line, *, seed: int, user: int = 0) -> Sent:
    """One person for so many seconds."""
    chance = np.random.default_rng([seed, user, 2])
    frame, utterance, voice = _talk(seconds, client.talk, chance)
    clock = _Clock(client, chance)
    captured_s = clock.true_s(frame * FRAME_S)
    buffer_s = chance.choice(BUFFERS_S)
    full_s = np.ceil((frame + 1) * FRAME_S / buffer_s - 1e-6) * buffer_s - FRAME_S
    wake_s = clock.true_s(full_s) + FRAME_S + chance.lognormal(-8.0, 0.8, len(frame))
    base_s = chance.uniform(0.008, 0.09)
    arrival_s, lost = _carry(np.maximum.accumulate(wake_s), line, chance)
    ticks = (np.arange(len(frame)) if client.pauses_clock else frame) * FRAME_TICKS
    sources, truths, spoken = [], [], []
    part = np.searchsorted(np.array(client.back_again_s), captured_s)
    for number in range(len(client.back_again_s) + 1):
        chosen = np.flatnonzero((part == number) & ~lost)
        if not len(chosen):
            continue
        chosen = chosen[np.argsort(arrival_s[chosen], kind="stable")]
        origin = int(chance.integers(2**32)) if number else 2**32 - 10 * TICKS_PER_SECOND
        sequence = int(chance.integers(2**16))
        stamps = np.zeros(len(chosen), dtype=STAMP)
        stamps["sequence"] = (chosen + sequence) & 0xFFFF
        stamps["timestamp"] = (ticks[chosen] + origin) & 0xFFFF_FFFF
        stamps["arrival_ns"] = ((arrival_s[chosen] + base_s) * 1e6).astype(np.int64) * 1000
        stamps["ticks"] = FRAME_TICKS
        stamps["outcome"] = np.where(voice[chosen], Outcome.VOICE, Outcome.SILENCE)
        sources.append(source_of(stamps, take=1, ssrc=77_000 + 100 * user + number))
        truths.append(captured_s[chosen])
        spoken.append(np.where(voice[chosen], utterance[chosen], -1))
    return Sent(
        track=Track(str(200_000 + user), f"Caller {user}", tuple(sources)),
        captured_s=tuple(truths),
        utterance=tuple(spoken),
        base_s=base_s + FRAME_S,
    )


def _talk(seconds: float, share: float, chance: Generator) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Frames that are sent, which utterance they belong to, and whether they are voice."""
    frames, utterances, voices = [], [], []
    at, number = min(chance.uniform(0.2, 2.0), seconds / 10), 0
    while at < seconds - 0.5:
        length = max(0.2, min(float(chance.lognormal(0.6, 0.9)), 240.0, seconds - at - 0.2))
        length = seconds - at - 0.3 if seconds < 10 else length  # a short call has one utterance
        first, count = round(at / FRAME_S), round(length / FRAME_S)
        frames.append(np.arange(first, first + count + 5))
        utterances.append(np.full(count + 5, number))
        voices.append(np.arange(count + 5) < count)
        at += length + 0.25 + float(chance.weibull(0.7)) * length * (1 - share) / share
        number += 1
    return np.concatenate(frames), np.concatenate(utterances), np.concatenate(voices)


class _Clock:
    """A device's clock, and what happens to it."""

    def __init__(self, client: Client, chance: Generator) -> None:
        self._client = client
        self._skew = chance.uniform(-1, 1) * client.skew_ppm * 1e-6
        self._warmth = chance.uniform(-1, 1) * client.warmth_ppm * 1e-6

    def true_s(self, device_s: Floats) -> Floats:
        """When it was, by the session clock."""
        client = self._client
        true_s = device_s * (1 + self._skew) + self._warmth * (device_s - 900 * (1 - np.exp(-device_s / 900)))
        if client.new_device_s is not None:
            since_s = device_s - client.new_device_s
            true_s += np.where(since_s > 0, 0.5 - 2 * self._skew * since_s, 0)
        for at_s, length_s in client.hiccups:
            true_s += np.where(device_s > at_s, length_s, 0)
        return true_s


def _carry(sent_s: Floats, line: Line, chance: Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Arrivals less the constant delay, and which packets never came."""
    state = _load(sent_s, line, chance)
    step_s = np.diff(sent_s, prepend=sent_s[0])
    bursts = chance.poisson(np.minimum(step_s, 1.0) * np.array(LOADS)[state] * 1000 / line.burst_ms)
    work_s = chance.gamma(np.maximum(bursts, 1e-9), line.burst_ms / 1000)
    total_s = np.cumsum(work_s - step_s)
    wait_s = total_s - np.minimum.accumulate(np.minimum(total_s, 0))
    at_radio_s = sent_s + wait_s
    on_air_s, lost = _radio(at_radio_s, line, chance)
    lost |= _dropped(state, line, chance)
    for at_s, milliseconds in (*line.reroutes, *line.room_reroutes):
        on_air_s = on_air_s + np.where(sent_s > at_s, milliseconds / 1000, 0)
    return on_air_s, lost


def _load(sent_s: Floats, line: Line, chance: Generator) -> Integers:
    """The state of the bottleneck when each packet comes to it."""
    if not line.restless:
        return np.zeros(len(sent_s), dtype=np.int64)
    at_s, state, changes, states = float(sent_s[0]), 0, [], []
    while at_s < sent_s[-1]:
        changes.append(at_s)
        states.append(state)
        at_s += chance.exponential(DWELL_S[state] / line.restless)
        state = int(chance.choice([other for other in range(3) if other != state], p=[0.8, 0.2]))
    return np.array(states)[np.searchsorted(changes, sent_s, side="right") - 1]


def _radio(ready_s: Floats, line: Line, chance: Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Tries until one succeeds, each after a longer backoff; head of line first."""
    count = len(ready_s)
    if not line.fade:
        return ready_s, np.zeros(count, dtype=bool)
    wander = np.convolve(chance.normal(size=count + 400), np.hanning(400) / 12, mode="valid")[:count]
    failing = line.fade ** np.exp(-wander)
    tries = chance.geometric(1 - np.clip(failing, 0.001, 0.9))
    backoff_s = chance.uniform(0.0003, 0.0009, count) * (2.0 ** np.minimum(tries - 1, MAX_TRIES) - 1)
    done_s = ready_s + backoff_s
    hours = (ready_s[-1] - ready_s[0]) / 3600
    for at_s in chance.uniform(ready_s[0], ready_s[-1], chance.poisson(line.outages * hours)):
        until_s = at_s + chance.uniform(0.05, 0.4)
        done_s = np.where((done_s > at_s) & (done_s < until_s), until_s, done_s)
    return np.maximum.accumulate(done_s) + chance.exponential(0.0001, count), tries > MAX_TRIES


def _dropped(state: Integers, line: Line, chance: Generator) -> NDArray[np.bool_]:
    """Runs of loss, three times as many while the link is full."""
    begins = chance.random(len(state)) < line.drop / 2.5 * np.where(state == 2, 3, 1)
    length = chance.geometric(0.4, len(state))
    ends = np.maximum.accumulate(np.where(begins, np.arange(len(state)) + length, 0))
    return np.arange(len(state)) < ends
