"""What is kept of every packet until its session's report: both clocks, and its place. No sound.

    folder/<take>.<ssrc>.stamps   rows of STAMP, in the log's order
    folder/<take>.<ssrc>.places   rows of PLACE, as they were settled

Rows wait in memory and are written some thousands at a time. How long each file is goes into the state that a follower
goes on from: what was written behind it is cut off.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from mixer.columns import ROW, STAMP, Rows, SourceKey, Stamps
from mixer.opus import Integers
from mixer.replay import Session, Track
from mixer.report import report_json, report_track
from mixer.settling import Notes, Settled
from mixer.timeline import Timeline, place_settled

PLACE: Final = np.dtype(
    [("lane", "<i4"), ("record", "<i8"), ("tick", "<i8"), ("ticks", "<u2"), ("silent", "?"), ("lost", "<i4")]
)
WAITING_BYTES: Final = 1 << 20


class Records:
    """The files.

    Parameters
    ----------
    sizes
        What `save` gave: how much of each file counts.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._sizes = dict(sizes or {})
        self._waiting: dict[str, list[bytes]] = {}
        self._waiting_bytes = 0
        for path in folder.iterdir():
            if path.name not in self._sizes:
                path.unlink()
            else:
                os.truncate(path, self._sizes[path.name])

    def hear(self, take: int, ssrc: int, stamps: Stamps) -> None:
        """Packets of a source, dtype STAMP, in the log's order."""
        self._write(f"{take}.{ssrc}.stamps", stamps.tobytes())

    def settle(self, part: Settled) -> None:
        """Places; `record` counts the packets of a source as they were heard."""
        rows = np.empty(len(part.record), dtype=PLACE)
        rows["lane"], rows["record"], rows["tick"] = part.lane, part.record, part.tick
        rows["ticks"], rows["silent"], rows["lost"] = part.ticks, part.silent, part.lost
        self._write(f"{part.take}.{part.ssrc}.places", rows.tobytes())

    def save(self) -> dict[str, int]:
        """Put all of it on the disk; how long each file is."""
        for name in self._flush():
            with (self._folder / name).open("rb") as file:
                os.fsync(file.fileno())
        return dict(self._sizes)

    def rows(self, key: SourceKey) -> Rows:
        """A source's packets, dtype ROW, in the log's order; where their payloads stand is not known."""
        stamps = self._read(key, "stamps", STAMP)
        rows = np.zeros(len(stamps), dtype=ROW)
        rows["stamp"] = stamps
        return rows

    def payloads(self, _offset: Integers, _size: Integers) -> bytes:
        """None are kept."""
        return b""

    def settled(self, key: SourceKey) -> list[Settled]:
        """A source's packets in their places, lane by lane."""
        places = self._read(key, "places", PLACE)
        lanes = [places[places["lane"] == lane] for lane in np.unique(places["lane"]).tolist()]
        return [
            Settled(
                take=key[0],
                ssrc=key[1],
                lane=int(rows["lane"][0]),
                record=rows["record"].astype(np.int64),
                tick=rows["tick"].astype(np.int64),
                ticks=rows["ticks"].astype(np.int64),
                silent=rows["silent"].astype(np.bool_),
                lost=rows["lost"].astype(np.int64),
            )
            for rows in lanes
        ]

    def _read(self, key: SourceKey, what: str, dtype: np.dtype[np.void]) -> Rows:
        self._flush()
        path = self._folder / f"{key[0]}.{key[1]}.{what}"
        return np.fromfile(path, dtype=dtype) if path.exists() else np.empty(0, dtype=dtype)

    def _write(self, name: str, data: bytes) -> None:
        self._waiting.setdefault(name, []).append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes >= WAITING_BYTES:
            self._flush()

    def _flush(self) -> list[str]:
        """Write what waits; the names of the files that grew."""
        grew = list(self._waiting)
        for name, parts in self._waiting.items():
            data = b"".join(parts)
            with (self._folder / name).open("ab") as file:
                file.write(data)
            self._sizes[name] = self._sizes.get(name, 0) + len(data)
        self._waiting, self._waiting_bytes = {}, 0
        return grew


def report_session(session: Session, records: Records, notes: Mapping[SourceKey, Notes]) -> bytes:
    """The report of a session that was followed, with how far apart hindsight puts a packet: JSON.

    Parameters
    ----------
    notes
        What was judged while following.
    """
    tracks = [_with(track, records) for track in session.tracks]
    hindsight = Timeline(tracks, "hindsight")
    speakers = []
    for track in tracks:
        settled = {key: records.settled(key) for key in ((source.take, source.ssrc) for source in track.sources)}
        speakers.append(report_track(track, place_settled(track, settled, notes), hindsight.place(track)))
    return report_json(speakers, malformed_messages=session.malformed)


def _with(track: Track, records: Records) -> Track:
    sources = tuple(msgspec.structs.replace(source, columns=records) for source in track.sources)
    return msgspec.structs.replace(track, sources=sources)
