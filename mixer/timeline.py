"""Placement: where on the session clock every packet of a session belongs.

Inside a talkspurt packets stay rigid to each other, but for slips of a quarter of a millisecond by which they follow
the sender's clock; so drift never adds up and no resampler is needed. Lost packets keep their place.

    follow      `following.py`: with 15 s of foresight, decided once, the same live and afterwards
    hindsight   `hindsight.py`: by the whole log
    arrival     each talkspurt where its least delayed packet came, RTP only inside
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from contracts.packets import Outcome
from contracts.recipes import Alignment
from mixer.arrival import by_arrival
from mixer.curve import Curve
from mixer.following import PATIENCE_NS, FollowingPlacer
from mixer.hindsight import Hindsight
from mixer.lanes import spread
from mixer.replay import Source, SourceKey, Track
from mixer.serial import Integers
from mixer.settling import Notes, Settled
from mixer.spurts import Life, lost_after, order

WINDOW_NS: Final = PATIENCE_NS // 2  # packets are given by so much at a time: the placer forgives what is nearer
Counts: TypeAlias = NDArray[np.signedinteger[Any]]  # of 32 bits where there are many
_COLUMNS: Final = ("record", "tick", "ticks", "silent", "lost")


class PlacedSource(msgspec.Struct, frozen=True):
    """Audio packets of one source on the session clock, by time, none over another.

    Where a map jumps back, later packets overlap earlier ones: then a source has a second of these, to be added.

    Attributes
    ----------
    record
        Index into the source's stamps.
    tick
        Start on the session clock, ticks of 1/48000 s; may be negative.
    ticks
        Duration.
    silent
        Whether it is one of Discord's silence frames.
    lost
        How many frames were sent after it, before the next, that cannot be decoded.
    notes
        What was judged of the source; with its first only.
    """

    source: Source
    record: Counts
    tick: Integers
    ticks: Counts
    silent: NDArray[np.bool_]
    lost: Counts
    notes: Notes | None


class Timeline:
    """Where every packet of these tracks belongs.

    Parameters
    ----------
    tracks
        Everybody who was heard: what all of them show at once is the recorder's own way.
    """

    def __init__(self, tracks: Iterable[Track], alignment: Alignment) -> None:
        tracks = tuple(tracks)
        self._hindsight = Hindsight(tracks) if alignment == "hindsight" else None
        self._followed = _follow(tracks) if alignment == "follow" else None

    def place(self, track: Track) -> tuple[PlacedSource, ...]:
        """One of the tracks, source by source."""
        if self._followed is not None:
            return place_settled(track, *self._followed)
        placed: list[PlacedSource] = []
        for source in track.sources:
            lives = order(source.stamps)
            if self._hindsight is None:
                placed += _placed(source, lives, [by_arrival(life) for life in lives], Notes())
            else:
                curves, notes = self._hindsight.curves(source, lives)
                placed += _placed(source, lives, curves, notes)
        return tuple(placed)


def place_settled(
    track: Track, settled: Mapping[SourceKey, list[Settled]], notes: Mapping[SourceKey, Notes]
) -> tuple[PlacedSource, ...]:
    """A track as `FollowingPlacer` settled it, its records being indices into the sources' stamps."""
    placed = []
    for source in track.sources:
        key = source.take, source.ssrc
        parts = settled.get(key, [])
        for lane in sorted({part.lane for part in parts}):
            own = [part for part in parts if part.lane == lane]
            record, tick, ticks, silent, lost = (
                np.concatenate([getattr(part, name) for part in own]) for name in _COLUMNS
            )
            told = notes.get(key) if lane == 0 else None
            placed.append(PlacedSource(source, record, tick, ticks, silent, lost, told))
    return tuple(placed)


def _follow(tracks: tuple[Track, ...]) -> tuple[dict[SourceKey, list[Settled]], dict[SourceKey, Notes]]:
    """The fold over all packets in the order in which they came."""
    placer = FollowingPlacer()
    batches = []
    for track in tracks:
        for source in track.sources:
            placer.own(source.take, source.ssrc, track.user_id)
            stamps = source.stamps
            arrivals = stamps["arrival_ns"]
            edges = [0, *(np.flatnonzero(np.diff(arrivals // WINDOW_NS)) + 1).tolist(), len(stamps)]
            batches += [
                (int(arrivals[stop - 1]), source.take, source.ssrc, first, stamps[first:stop])
                for first, stop in pairwise(edges)
            ]
    batches.sort(key=lambda batch: batch[:4])
    for _, take, ssrc, first, stamps in batches:
        placer.add(take, ssrc, first, stamps)
    placer.finish()
    settled: dict[SourceKey, list[Settled]] = {}
    for part in placer.settled():
        settled.setdefault((part.take, part.ssrc), []).append(part)
    return settled, placer.notes()


def _placed(source: Source, lives: list[Life], curves: list[Curve], notes: Notes) -> list[PlacedSource]:
    audio = [life.audio for life in lives]
    if not any(len(part) for part in audio):
        return []
    ticks_of = [curve.ticks(part) for part, curve in zip(audio, curves, strict=True)]
    record = np.concatenate([part.record for part in audio])
    tick = np.concatenate(ticks_of)
    ticks = np.concatenate([part.ticks for part in audio])
    silent = np.concatenate([part.outcome for part in audio]) == Outcome.SILENCE
    lost = np.concatenate([lost_after(life, part) for life, part in zip(lives, audio, strict=True)])
    return [
        PlacedSource(
            source,
            record=record[part].astype(np.int32),  # a long evening has millions of packets, and a mix holds them all
            tick=tick[part],
            ticks=ticks[part].astype(np.int32),
            silent=silent[part],
            lost=lost[part].astype(np.int32),
            notes=None if lane else notes,
        )
        for lane, part in spread(tick, ticks, [])
    ]
