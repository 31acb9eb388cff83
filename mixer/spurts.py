"""A source's packets in the order they were sent, on unwrapped clocks, and where their RTP clock runs on.

A *life* is what one running sender sent on one SSRC. Inside it a *break* stands where the clock does not run on: the
sender paused, or its clock was set. Lost packets are no break: their place is kept. Runs between breaks are talkspurts.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import FRAME_TICKS
from contracts.packets import Outcome
from mixer.replay import Stamps
from mixer.serial import SEQUENCE_BITS, TIMESTAMP_BITS, Integers, lives, unwrap_after

_UNREADABLE: Final = (Outcome.TRANSPORT, Outcome.MALFORMED)  # nothing in these packets' headers can be trusted
_AUDIO: Final = (Outcome.VOICE, Outcome.SILENCE)
_NOT_SPOKEN: Final = (Outcome.SILENCE, Outcome.PADDING)  # a voice server may add silence, padding repeats a time


def _table(*outcomes: Outcome) -> NDArray[np.bool_]:
    """By outcome, whether it is one of these."""
    table = np.zeros(256, dtype=bool)
    table[list(outcomes)] = True
    return table


_READABLE_TABLE: Final = ~_table(*_UNREADABLE)
_AUDIO_TABLE: Final = _table(*_AUDIO)
_SPOKEN_TABLE: Final = ~_table(*_NOT_SPOKEN)


class Life(msgspec.Struct, frozen=True):
    """Packets of one life, by sequence number, each once.

    Attributes
    ----------
    rows
        int64, shape (6, packets): the properties below, in this order.
    """

    rows: Integers

    def __len__(self) -> int:
        """Packets."""
        return int(self.rows.shape[1])

    @property
    def record(self) -> Integers:
        """Index into the source's stamps."""
        return _row(self.rows, 0)

    @property
    def sequence(self) -> Integers:
        """RTP sequence numbers, unwrapped."""
        return _row(self.rows, 1)

    @property
    def timestamp(self) -> Integers:
        """RTP timestamps, unwrapped, ticks of 1/48000 s."""
        return _row(self.rows, 2)

    @property
    def arrival_ns(self) -> Integers:
        """Arrivals on the session clock."""
        return _row(self.rows, 3)

    @property
    def ticks(self) -> Integers:
        """Durations; 0 = unknown."""
        return _row(self.rows, 4)

    @property
    def outcome(self) -> Integers:
        """`Outcome` values."""
        return _row(self.rows, 5)

    def take(self, chosen: NDArray[np.bool_] | Integers | slice) -> Life:
        """Some of its packets."""
        return Life(self.rows[:, chosen])

    def where(self, chosen: NDArray[np.bool_]) -> Life:
        """Those for which it is true; itself if that is so for all."""
        return self if chosen.all() else Life(self.rows[:, chosen])

    def joined(self, later: Life) -> Life:
        """These packets and others, by sequence number; of a packet that came twice, the first."""
        return _in_order(np.concatenate((self.rows, later.rows), axis=1))

    @property
    def spoken(self) -> Life:
        """Those that the speaker's client sent while they spoke."""
        return self.where(_SPOKEN_TABLE[self.outcome])

    @property
    def audio(self) -> Life:
        """Those that can be decoded."""
        return self.where(_AUDIO_TABLE[self.outcome] & (self.ticks > 0))

    @property
    def clocked(self) -> Life:
        """Those whose RTP time is the sender's own, if there are any."""
        spoken = self.spoken
        return spoken if len(spoken) else self


def readable(stamps: Stamps) -> NDArray[np.bool_]:
    """Which packets have a header that can be trusted."""
    trusted: NDArray[np.bool_] = _READABLE_TABLE[stamps["outcome"]]
    return trusted


def life_of(
    stamps: Stamps, record: Integers, *, sequence: int | None = None, timestamp: int | None = None
) -> tuple[Life, tuple[int, int]]:
    """Packets of one life, and the unwrapped sequence number and timestamp of the last that was recorded.

    Parameters
    ----------
    stamps, record
        In recorded order.
    sequence, timestamp
        Of the last packet before them, unwrapped; None if they are the life's first.
    """
    rows = np.empty((6, len(stamps)), dtype=np.int64)
    rows[0] = record
    rows[1] = unwrap_after(sequence, stamps["sequence"].astype(np.int64), SEQUENCE_BITS)
    rows[2] = unwrap_after(timestamp, stamps["timestamp"].astype(np.int64), TIMESTAMP_BITS)
    rows[3], rows[4], rows[5] = stamps["arrival_ns"], stamps["ticks"], stamps["outcome"]
    return _in_order(rows), (int(rows[1, -1]), int(rows[2, -1]))


def order(stamps: Stamps) -> list[Life]:
    """The lives of one source, from its stamps in recorded order."""
    trusted = np.flatnonzero(readable(stamps))
    sequence = stamps["sequence"][trusted].astype(np.int64)
    return [life_of(stamps[trusted[part]], trusted[part])[0] for part in lives(sequence)]


def breaks(life: Life) -> NDArray[np.bool_]:
    """Between each packet and the next: whether the RTP clock does not run on. Length `len(life) - 1`."""
    step = life.rows[:, 1:] - life.rows[:, :-1]
    frame = life.ticks[:-1]
    if not frame.all():
        frame = np.where(frame > 0, frame, FRAME_TICKS)
    broken: NDArray[np.bool_] = step[2] != step[1] * frame
    return broken


def lost_after(life: Life, audio: Life) -> Integers:
    """After each packet of `life.audio`, before the next: how many frames were sent that cannot be decoded."""
    sequence = audio.sequence
    lost = np.zeros(len(audio), dtype=np.int64)
    lost[:-1] = sequence[1:] - sequence[:-1] - 1
    padding = life.outcome == Outcome.PADDING  # uses up a number, but is no audio
    if padding.any():
        before = np.searchsorted(life.sequence[padding], sequence)
        lost[:-1] -= before[1:] - before[:-1]
    return lost


def _row(rows: Integers, number: int) -> Integers:
    row: Integers = rows[number]
    return row


def _in_order(rows: Integers) -> Life:
    if (rows[1, 1:] > rows[1, :-1]).all():
        return Life(rows)
    _, first = np.unique(rows[1], return_index=True)
    return Life(rows[:, first])
