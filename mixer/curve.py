"""A life's map as a whole: a line for each segment, straight or not."""

from __future__ import annotations

import msgspec
import numpy as np

from contracts.clock import TICKS_PER_SECOND
from mixer.cells import Floats
from mixer.serial import Integers
from mixer.settling import place
from mixer.spurts import Life


class Stretch(msgspec.Struct, frozen=True):
    """A segment's line: delay by session time, linear between nodes and beyond them with the outer skews."""

    time_s: Floats
    delay_s: Floats
    skew: tuple[float, float]

    def at(self, time_s: Floats) -> Floats:
        """The least delay at session times."""
        between = np.interp(time_s, self.time_s, self.delay_s)
        before = np.minimum(time_s - self.time_s[0], 0) * self.skew[0]
        after = np.maximum(time_s - self.time_s[-1], 0) * self.skew[1]
        found: Floats = between + before + after
        return found


class Curve(msgspec.Struct, frozen=True):
    """A life's map: the line of each segment, and the sequence number that it begins with."""

    first: Integers
    stretches: tuple[Stretch, ...]

    def segment(self, sequence: Integers) -> Integers:
        """Which segment packets belong to."""
        return np.maximum(np.searchsorted(self.first, sequence, side="right") - 1, 0)

    def places_s(self, timestamp: Integers, segment: Integers) -> Floats:
        """Session times of RTP times (ticks, unwrapped), seconds; segments ascending."""
        places = np.empty(len(timestamp))
        edges = np.searchsorted(segment, np.arange(len(self.stretches) + 1))
        for stretch, first, stop in zip(self.stretches, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            sent_s = timestamp[first:stop] / TICKS_PER_SECOND
            guess = sent_s + stretch.delay_s[0]
            places[first:stop] = sent_s + stretch.at(sent_s + stretch.at(guess))
        return places

    def ticks(self, audio: Life) -> Integers:
        """Session ticks of a life's audio packets."""
        if not len(audio):
            return np.empty(0, dtype=np.int64)
        tick, _ = place(audio, self.segment(audio.sequence), self, None)
        return tick
