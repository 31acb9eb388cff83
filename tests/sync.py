"""Judges placement: how far each utterance lies from where it was spoken, and whether anything is missing.

A constant per person cannot be known from arrivals (the least delay of their way), and is taken off by the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from contracts.packets import BATCH_MS, BATCH_PACKETS
from mixer.following import FollowingPlacer
from mixer.replay import Stamps
from mixer.settling import Settled
from tests.senders import Sent, batch_starts

Floats = NDArray[np.float64]


class Fed(msgspec.Struct, frozen=True):
    """One batch of the log, and when capture published it."""

    at_ns: int
    take: int
    ssrc: int
    first_record: int
    stamps: Stamps


def log_of(people: Sequence[Sent]) -> list[Fed]:
    """Everybody's batches in the order in which capture publishes them."""
    fed = []
    for sent in people:
        for source in sent.track.sources:
            edges = [*batch_starts(source.stamps), len(source.stamps)]
            for first, stop in pairwise(edges):
                stamps = source.stamps[first:stop]
                full = stop - first == BATCH_PACKETS
                at_ns = int(stamps["arrival_ns"][-1 if full else 0]) + (0 if full else BATCH_MS * 1_000_000)
                fed.append(Fed(at_ns, source.take, source.ssrc, first, stamps))
    return sorted(fed, key=lambda each: (each.at_ns, each.take, each.ssrc, each.first_record))


def placer_for(people: Sequence[Sent]) -> FollowingPlacer:
    """A placer that knows whose each SSRC is."""
    placer = FollowingPlacer()
    for sent in people:
        for source in sent.track.sources:
            placer.own(source.take, source.ssrc, sent.track.user_id)
    return placer


def follow(people: Sequence[Sent]) -> list[Settled]:
    """Everything that the fold says of a whole log."""
    placer = placer_for(people)
    for fed in log_of(people):
        placer.add(fed.take, fed.ssrc, fed.first_record, fed.stamps)
    placer.finish()
    return placer.settled()


def errors_s(sent: Sent, settled: Sequence[Settled]) -> list[Floats]:
    """By source, of every packet: placed less captured, seconds; nan where it was not placed."""
    errors = []
    for source, captured_s in zip(sent.track.sources, sent.captured_s, strict=True):
        error = np.full(len(captured_s), np.nan)
        for part in settled:
            if (part.take, part.ssrc) == (source.take, source.ssrc):
                error[part.record] = part.tick / TICKS_PER_SECOND - captured_s[part.record]
        errors.append(error)
    return errors


def edges_ms(sent: Sent, errors: Sequence[Floats], *, constant_s: float | None = None) -> tuple[Floats, Floats]:
    """Errors of every utterance's first and last packet, less a constant (their median if None), milliseconds."""
    starts, ends = [], []
    for error, captured_s, utterance in zip(errors, sent.captured_s, sent.utterance, strict=True):
        order = np.lexsort((captured_s, utterance))
        order = order[utterance[order] >= 0]
        turns = np.flatnonzero(np.diff(utterance[order])) + 1
        starts.append(error[order[np.append(0, turns)]])
        ends.append(error[order[np.append(turns - 1, len(order) - 1)]])
    first, last = np.concatenate(starts), np.concatenate(ends)
    constant = np.median(first) if constant_s is None else constant_s
    return (first - constant) * 1000, (last - constant) * 1000
