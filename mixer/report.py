"""What the mixer had to judge, per speaker: losses, clocks, steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from contracts.clock import FRAME_TICKS, NS_PER_SECOND, TICKS_PER_SECOND, ns_to_ticks
from contracts.packets import Outcome
from mixer.cells import Floats
from mixer.pursuit import Step
from mixer.replay import Stamps, Track
from mixer.skew import Belief
from mixer.timeline import PlacedSource
from mixer.voice import CONCEAL_TICKS

_PPM: Final = 1e6
KNOWN_SKEW_SD: Final = 5e-6
LATE_QUANTILE: Final = 0.95
SPURT_TICKS: Final = 5 * FRAME_TICKS  # packets that are closer belong to one talkspurt
LOSS_SPANS: Final = 100  # a page cannot draw more to be told apart; some kilobytes beside a file
SPAN_GAP_NS: Final = NS_PER_SECOND  # undecryptable packets that are closer are one span


class Span(msgspec.Struct, frozen=True):
    """Packets in a row that could not be decrypted: half-open ticks of the session clock, by arrival."""

    start_tick: int
    stop_tick: int
    packets: int
    reason: str


class SpeakerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One track.

    Attributes
    ----------
    outcomes
        Packets by `Outcome` name.
    lost
        Frames that were sent in between and cannot be decoded, or never came.
    loss
        Their share of all frames that were sent, 0 to 1.
    concealed
        Of these, frames inside talkspurts, which are concealed up to the decoder's limit.
    broken
        Voice packets that are no Opus.
    late
        Packets that came when their time had been settled, and were left out; of `follow` alone.
    talk_s
        Seconds of voice.
    skew_ppm
        How much slower the sender's clock runs than the recorder's, of each life; None where too short to tell.
    jitter_ms
        Mean difference of neighbours' transit times (RFC 3550 §6.4.1, unsmoothed).
    late_ms
        How much later than their place the slowest twentieth of packets came.
    undecryptable
        Where there was speech that nobody could open.
    clock_stops
        Pauses through which the sender's RTP clock stood still; it is placed by arrival after each.
    steps
        Where the sender's clock and the arrivals parted for good, and whom the map followed.
    difference_ms
        How far apart at most the other alignment puts a packet; None if there was no other.
    same_room_ms
        By how much this person was moved earlier because they share a room with somebody; negative: later.
    """

    user_id: str
    name: str
    outcomes: dict[str, int]
    lost: int
    loss: float
    concealed: int
    broken: int
    late: int
    talk_s: float
    skew_ppm: tuple[float | None, ...]
    jitter_ms: float
    late_ms: float
    undecryptable: tuple[Span, ...]
    clock_stops: int
    steps: tuple[Step, ...]
    difference_ms: float | None = None
    same_room_ms: float = 0.0


def report_track(
    track: Track, placed: tuple[PlacedSource, ...], other: tuple[PlacedSource, ...] | None = None
) -> SpeakerReport:
    """The report of one placed track.

    Parameters
    ----------
    other
        The same track by another alignment, to compare.
    """
    stamps = np.concatenate([source.stamps for source in track.sources])
    outcomes, ticks = stamps["outcome"], stamps["ticks"]
    values, counts = np.unique(outcomes, return_counts=True)
    notes = [source.notes for source in placed if source.notes is not None]
    lost = sum(int(source.lost.sum()) for source in placed)
    heard = sum(len(source.record) for source in placed)
    transit_s, late_s = _transits(placed)
    return SpeakerReport(
        user_id=track.user_id,
        name=track.name,
        outcomes={Outcome(value).name: count for value, count in zip(values.tolist(), counts.tolist(), strict=True)},
        lost=lost,
        loss=round(lost / max(lost + heard, 1), 5),
        concealed=sum(_concealed(source) for source in placed),
        broken=int(((outcomes == Outcome.VOICE) & (ticks == 0)).sum()),
        late=sum(note.late for note in notes),
        talk_s=float(sum(source.ticks[~source.silent].sum() for source in placed)) / TICKS_PER_SECOND,
        skew_ppm=tuple(_ppm(belief) for note in notes for belief in note.skews),
        jitter_ms=round(float(np.abs(transit_s).mean()) * 1000, 3) if len(transit_s) else 0.0,
        late_ms=round(float(np.quantile(late_s, LATE_QUANTILE)) * 1000, 3) if len(late_s) else 0.0,
        undecryptable=tuple(span for source in track.sources for span in _spans(source.stamps)),
        clock_stops=sum(note.clock_stops for note in notes),
        steps=tuple(step for note in notes for step in note.steps),
        difference_ms=None if other is None else round(largest_difference_ms(placed, other), 3),
    )


def lost_spans(placed: tuple[PlacedSource, ...], stop_tick: int) -> tuple[tuple[int, int, int], ...]:
    """Where frames that were sent are missing, to be drawn: (start, stop, frames) by cells of a second, or longer ones.

    Half-open ticks of the session clock, at most LOSS_SPANS of them; a loss counts where its first frame belonged.
    """
    ends = np.concatenate([np.empty(0, dtype=np.int64), *((each.tick + each.ticks)[each.lost > 0] for each in placed)])
    frames = np.concatenate([np.empty(0, dtype=np.int64), *(each.lost[each.lost > 0] for each in placed)])
    if not len(ends):
        return ()
    width = max(TICKS_PER_SECOND, -(-stop_tick // LOSS_SPANS))
    cells, where = np.unique(np.clip(ends, 0, max(stop_tick - 1, 0)) // width, return_inverse=True)
    sums = np.bincount(where, weights=frames).astype(np.int64)
    return tuple(
        (cell * width, min((cell + 1) * width, stop_tick), count)
        for cell, count in zip(cells.tolist(), sums.tolist(), strict=True)
    )


def report_json(speakers: Sequence[SpeakerReport], *, malformed_messages: int = 0) -> bytes:
    """Everybody's reports as a file."""
    told = {"speakers": speakers, "malformed_messages": malformed_messages}
    return msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"


def largest_difference_ms(one: tuple[PlacedSource, ...], other: tuple[PlacedSource, ...]) -> float:
    """How far apart at most two alignments of a track put the same packet, milliseconds."""
    largest = 0
    for source in {id(placed.source): placed.source for placed in one}.values():
        ticks = np.full((2, len(source.stamps)), np.iinfo(np.int64).min)
        for row, alignment in enumerate((one, other)):
            for placed in alignment:
                if (placed.source.take, placed.source.ssrc) == (source.take, source.ssrc):
                    ticks[row, placed.record] = placed.tick
        both = (ticks != np.iinfo(np.int64).min).all(axis=0)
        largest = max(largest, int(np.abs(ticks[0, both] - ticks[1, both]).max(initial=0)))
    return largest / TICKS_PER_SECOND * 1000


def _transits(placed: tuple[PlacedSource, ...]) -> tuple[Floats, Floats]:
    """Changes of the transit time between neighbours of a talkspurt, and lateness of all packets, seconds."""
    changes, late = [np.empty(0)], [np.empty(0)]
    for source in placed:
        arrival_s = source.source.stamps["arrival_ns"][source.record] / NS_PER_SECOND
        over = arrival_s - source.tick / TICKS_PER_SECOND
        late.append(over)
        near = np.diff(source.tick) < SPURT_TICKS
        changes.append(np.diff(over)[near])
    return np.concatenate(changes), np.concatenate(late)


def _concealed(placed: PlacedSource) -> int:
    """Frames that are lost between packets of one talkspurt."""
    gap = placed.tick[1:] - placed.tick[:-1] - placed.ticks[:-1]
    bridged = (placed.lost[:-1] > 0) & (gap > 0) & (gap <= CONCEAL_TICKS)
    return int(np.rint(gap[bridged] / FRAME_TICKS).sum())


def _ppm(belief: Belief) -> float | None:
    return round(belief.skew * _PPM, 2) if belief.sd <= KNOWN_SKEW_SD else None


def _spans(stamps: Stamps) -> list[Span]:
    """Where packets could not be decrypted, by reason."""
    rows = stamps[stamps["outcome"] >= Outcome.UNKNOWN_SPEAKER]
    if not len(rows):
        return []
    rows = rows[np.argsort(rows["arrival_ns"], kind="stable")]
    arrival = rows["arrival_ns"].astype(np.int64)
    cut = (np.diff(arrival) > SPAN_GAP_NS) | (np.diff(rows["outcome"].astype(np.int64)) != 0)
    edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(rows)]
    return [
        Span(
            start_tick=ns_to_ticks(int(arrival[first])),
            stop_tick=ns_to_ticks(int(arrival[stop - 1])) + FRAME_TICKS,
            packets=stop - first,
            reason=Outcome(int(rows["outcome"][first])).name,
        )
        for first, stop in pairwise(edges)
    ]
