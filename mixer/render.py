r"""A render: a log file and a recipe in, files out. Pure work: no bus, no clock.

    log file -> fold -> Session -> place -> feeds -> decode -> sound -> FFmpeg    mix, FLAC, MP3, WAV
                                              \----> copy -> Ogg Opus             Opus tracks, untouched

Blocks of a second go through; a voice that is silent in a block costs nothing there. Decoding runs ahead of the sound,
encoders are processes of their own, and two tracks are made at a time: both cores are busy, however many people there
were, and memory holds two.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import msgspec
import numpy as np

from contracts.clock import TICKS_PER_SECOND, ns_to_ticks, ticks_to_seconds
from contracts.recipes import FOLLOWED
from mixer import names
from mixer.ahead import ahead
from mixer.errors import RequestError
from mixer.extras import Held, extras
from mixer.feed import SourceFeed, packets_by_time
from mixer.followed import render_followed
from mixer.formats.about import About, comments, divide
from mixer.formats.archive import Archive
from mixer.formats.ffmpeg import FfmpegWriter
from mixer.formats.matroska import mux_tracks
from mixer.formats.mp3 import Mp3Writer
from mixer.formats.ogg import OggOpusWriter
from mixer.logfile import LogFile
from mixer.mastering import is_untouched, made_exact, sound_of, unlimited
from mixer.mix import mix_blocks, to_pcm
from mixer.opus import Samples
from mixer.peaks import Peaks, peaks_dat, peaks_json
from mixer.remux import Remuxer
from mixer.rendered import Order, Rendered, RenderedFile, check_range, describe_file
from mixer.replay import Session, Track
from mixer.report import SpeakerReport, lost_spans, report_track
from mixer.same_room import activity_of, moved, shifts
from mixer.sound import Sound, SoundFold
from mixer.timeline import PlacedSource, Timeline
from mixer.trim import trim, whole
from mixer.voice import SourceDecoder

T = TypeVar("T")

__all__ = ["Order", "Rendered", "RenderedFile", "check_range", "render"]

Progress: TypeAlias = Callable[[str, float], None]
Voices: TypeAlias = dict[str, list[SourceDecoder]]  # the sources of each track, by whose it is

TRACKS_AT_A_TIME: Final = 2
DECODING: Final = 2  # threads that decode the voices of a mix
BLOCK_TICKS: Final = TICKS_PER_SECOND
PREROLL_TICKS: Final = TICKS_PER_SECOND  # what a decoder hears before a range begins (RFC 7845 §4.6 wants 80 ms)
_REPLAY_SHARE: Final = 0.1  # of the work
_PEAKS: Final = {"dat": peaks_dat, "json": peaks_json}


class _Line(msgspec.Struct, frozen=True):
    """A track and where its packets belong."""

    track: Track
    placed: tuple[PlacedSource, ...]


def render(
    log: Path, order: Order, directory: Path, *, progress: Progress = lambda _stage, _fraction: None
) -> Rendered:
    """Make every file of a recipe.

    Parameters
    ----------
    log
        Bundle of the session.
    directory
        Where the files go.
    progress
        Called with the stage and the fraction of the whole; may raise to cancel, and FFmpeg ends with it.

    Raises
    ------
    RequestError
        If this session does not have what the recipe asks for.
    EncoderError
        If FFmpeg fails.
    BundleError
        If the log is damaged.
    """
    with LogFile(log) as file:
        if order.recipe.canonical() in FOLLOWED:
            return render_followed(file, order, directory, lambda fraction: progress("render", fraction))
        session = file.fold(lambda fraction: progress("replay", fraction * _REPLAY_SHARE))
        job = _Job(file, session, order, directory, progress)
        files = tuple(job.files())
        return Rendered(
            files=files,
            speakers=job.report(),
            malformed_messages=session.malformed,
        )


class _Job:
    """One recipe on one opened log."""

    def __init__(self, file: LogFile, session: Session, order: Order, directory: Path, progress: Progress) -> None:
        self._file = file
        self._session = session
        self._order = order
        self._recipe = order.recipe.canonical()
        self._directory = directory
        self._progress = progress
        self._range = check_range(self._recipe, session)
        self._kept = whole(self._range)
        timeline = Timeline(session.tracks, self._recipe.aligns_by)
        self._shifts: dict[str, int] = {}
        if self._recipe.same_room:
            self._shifts = self._find_shifts(timeline)
        heard = [track for track in session.tracks if self._recipe.hears(track.user_id)]
        self.lines = [_Line(track, moved(timeline.place(track), self._shifts.get(track.user_id, 0))) for track in heard]
        if self._recipe.silence == "trim":
            self._trim()
        self._passes = 2 if self._recipe.aims_at == "exact" else 1
        self._done = [0.0] * (1 if self._recipe.output == "mix" else max(len(self.lines), 1))
        self._telling = threading.Lock()

    def report(self) -> tuple[SpeakerReport, ...]:
        """What was judged of everybody who is in it."""
        return tuple(
            msgspec.structs.replace(
                report_track(line.track, line.placed),
                same_room_ms=round(ticks_to_seconds(self._shifts.get(line.track.user_id, 0)) * 1000, 3),
            )
            for line in self.lines
        )

    def files(self) -> Iterator[RenderedFile]:
        if self._recipe.output == "mix":
            path = self._path(None)
            yield self._rendered(path, None, self._write(self.lines, path, 0))
        elif self._recipe.container != "files":
            yield self._hold_tracks()
        else:
            yield from self._each_track(self._track)

    def _find_shifts(self, timeline: Timeline) -> dict[str, int]:
        """Of everybody, also who is not in this recipe: it decides who is heard, not where."""
        placed = {track.user_id: timeline.place(track) for track in self._session.tracks}

        def hear(user_id: str, start: int, stop: int) -> Samples:
            preroll = max(start - PREROLL_TICKS, 0)
            decoders = [SourceDecoder(SourceFeed(source, start_tick=preroll)) for source in placed[user_id]]
            blocks = (block for decoder in decoders if (block := decoder.block(preroll, stop)) is not None)
            sound = mix_blocks(blocks)
            return np.zeros((stop - start, 1), dtype=np.float32) if sound is None else sound[start - preroll :]

        ticks = self._session.duration_ticks
        activity = {user_id: activity_of(each, ticks) for user_id, each in placed.items()}
        return shifts(activity, hear, told=lambda: self._progress("place", _REPLAY_SHARE))

    def _each_track(self, make: Callable[[_Line, int], T]) -> Iterator[T]:
        """What is made of each track, in order; TRACKS_AT_A_TIME are made at a time."""
        with ThreadPoolExecutor(TRACKS_AT_A_TIME) as pool:
            tracks = [pool.submit(make, line, part) for part, line in enumerate(self.lines)]
            try:
                for track in tracks:
                    yield track.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _track(self, line: _Line, part: int) -> RenderedFile:
        path = self._path(line.track.user_id)
        file = self._rendered(path, line.track.user_id, self._write([line], path, part))
        if self._recipe.silence == "trim":  # then its places are no longer those of the session
            return file
        return msgspec.structs.replace(file, losses=lost_spans(line.placed, self._session.duration_ticks))

    def _trim(self) -> None:
        self._kept = trim([source for line in self.lines for source in line.placed], self._range)
        self.lines = [
            _Line(line.track, tuple(self._kept.place(source) for source in line.placed)) for line in self.lines
        ]
        self._range = range(self._kept.ticks)

    def _hold_tracks(self) -> RenderedFile:
        """All tracks in one file; each is deleted as soon as it is in."""
        path = self._path(None)
        stems = names.speaker_stems({line.track.user_id: line.track.name for line in self.lines})

        def make(line: _Line, part: int) -> tuple[Path, str]:
            file = self._directory / f"{stems[line.track.user_id]}.{self._recipe.format}"
            self._write([line], file, part)
            return file, line.track.name

        tracks = self._each_track(make)
        if self._recipe.container == "matroska":
            self._hold_in_matroska(path, list(tracks))
        else:
            self._hold_in_zip(path, tracks)
        return self._rendered(path, None)

    def _hold_in_matroska(self, path: Path, tracks: list[tuple[Path, str]]) -> None:
        if not tracks:
            raise RequestError("nobody of this recipe speaks in the session: there is no track to put into a file")
        mux_tracks(self._order.ffmpeg, path, tracks, self._about(self.lines))
        for file, _ in tracks:
            file.unlink()

    def _hold_in_zip(self, path: Path, tracks: Iterator[tuple[Path, str]]) -> None:
        listed: list[tuple[str, str]] = []
        with path.open("wb") as target, Archive(target) as archive:
            for file, speaker in tracks:
                archive.move(file.name, file)
                listed.append((speaker, file.name))
            for name, data in extras(self._session, self._held(listed)).items():
                archive.add(name, data)

    def _held(self, tracks: list[tuple[str, str]]) -> Held:
        return Held(
            recipe=self._recipe,
            tracks=tracks,
            notes=self._notes(),
            speakers=list(self.report()),
            ticks=len(self._range),
        )

    def _write(self, lines: list[_Line], path: Path, part: int) -> SoundFold | None:
        """One file of sound, or of peaks; how it was made to sound, unless it was copied."""
        recipe, tracks = self._recipe, self._recipe.output == "tracks"
        if recipe.format == "opus" and tracks and is_untouched(recipe, lines[0].track.user_id):
            self._copy(lines[0], path, part)
            return None
        fold = SoundFold(self._sound(lines, part))
        if recipe.format in _PEAKS:
            peaks = Peaks()
            pixels = b"".join([*(peaks.push(block) for block in self._heard(lines, fold, part)), peaks.flush()])
            path.write_bytes(_PEAKS[recipe.format](pixels))
            return fold
        with self._writer(path, self._about(lines)) as writer:
            for block in self._heard(lines, fold, part):
                writer.write(to_pcm(block, bits=recipe.bits))
        return fold

    def _writer(self, path: Path, about: About) -> Mp3Writer | FfmpegWriter:
        recipe, ffmpeg = self._recipe, self._order.ffmpeg
        if recipe.format == "mp3" and recipe.vbr_quality is None:
            return Mp3Writer(ffmpeg, path, kbps=recipe.bitrate_kbps, about=about)
        return FfmpegWriter(
            ffmpeg,
            path,
            kind=recipe.format,
            kbps=recipe.bitrate_kbps,
            vbr_quality=recipe.vbr_quality,
            bits=recipe.bits,
            about=about,
        )

    def _sound(self, lines: list[_Line], part: int) -> Sound:
        sound = sound_of(self._recipe)
        if self._recipe.aims_at != "exact":
            return sound
        return made_exact(sound, self._heard(lines, SoundFold(unlimited(sound)), part))

    def _heard(self, lines: list[_Line], fold: SoundFold, part: int) -> Iterator[Samples]:
        """What the fold makes of these tracks, in order, some blocks behind."""
        voices = [(line.track.user_id, self._decoders(line)) for line in lines]
        groups = [dict(voices[first::DECODING]) for first in range(min(DECODING, len(voices)) or 1)]
        heard = zip(*(ahead(self._sounding(group)) for group in groups), strict=True)
        for (start, stop), sounding in zip(self._blocks(part), heard, strict=True):
            yield fold.push({name: block for group in sounding for name, block in group.items()}, stop - start)
        yield fold.flush()

    def _sounding(self, voices: Voices) -> Iterator[dict[str, Samples]]:
        """Block by block the voices that sound in it, each of its sources summed."""
        for start, stop in self._edges():
            blocks = {
                name: mix_blocks(block for source in sources if (block := source.block(start, stop)) is not None)
                for name, sources in voices.items()
            }
            yield {name: block for name, block in blocks.items() if block is not None}

    def _copy(self, line: _Line, path: Path, part: int) -> None:
        with path.open("wb") as file:
            tags = comments(self._about([line]))
            writer = OggOpusWriter(file, serial=zlib.crc32(path.name.encode()), tags=tags)
            columns = line.track.sources[0].columns
            remuxer = Remuxer(writer, columns, start_tick=self._range.start, stop_tick=self._range.stop)
            remuxer.write(packets_by_time(line.placed, start_tick=self._range.start))
            remuxer.close()
        self._tell(part, 1.0)

    def _decoders(self, line: _Line) -> list[SourceDecoder]:
        start = self._range.start - PREROLL_TICKS
        return [SourceDecoder(SourceFeed(source, start_tick=start)) for source in line.placed]

    def _blocks(self, part: int) -> Iterator[tuple[int, int]]:
        """The edges of each, and progress told behind it."""
        for start, stop in self._edges():
            yield start, stop
            self._tell(part, (stop - start) / len(self._range) / self._passes)

    def _edges(self) -> Iterator[tuple[int, int]]:
        for start in range(self._range.start, self._range.stop, BLOCK_TICKS):
            yield start, min(start + BLOCK_TICKS, self._range.stop)

    def _tell(self, part: int, more: float) -> None:
        """By how much more one of the files is done; several are made at a time."""
        with self._telling:
            self._done[part] += more
            done = sum(self._done) / len(self._done)
            self._progress("render", _REPLAY_SHARE + done * (1 - _REPLAY_SHARE))

    def _path(self, user_id: str | None) -> Path:
        order = self._order
        name = names.object_name(self._recipe, log_end=order.log_end, engine=order.engine, user_id=user_id)
        return self._directory / name

    def _about(self, lines: list[_Line]) -> About:
        tags = names.tags(self._session, [line.track.name for line in lines])
        return About(tags, divide(self._notes(), len(self._range)) if self._recipe.chapters else ())

    def _notes(self) -> list[tuple[int, str]]:
        """Ticks of the file, and what was noted there."""
        notes = [(ns_to_ticks(note.at_ns), " ".join(note.text.split())) for note in self._session.notes]
        return [(self._kept.moved(tick), text) for tick, text in notes if self._kept.spans(tick)]

    def _rendered(self, path: Path, user_id: str | None, fold: SoundFold | None = None) -> RenderedFile:
        return describe_file(path, self._session, self._recipe, user_id=user_id, ticks=len(self._range), sound=fold)
