"""What the mixer costs against what cannot be avoided: decoding the packets that exist, encoding the finished audio."""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from contracts.clock import TICKS_PER_SECOND
from contracts.packets import decode_batch
from contracts.recipes import FOLLOWED_MIX, Recipe
from contracts.subjects import PacketSubject, parse
from mixer.engine import engine_string
from mixer.feed import SourceFeed
from mixer.followed import Followed
from mixer.formats.ffmpeg import BITEXACT, DEFAULT_KBPS, FfmpegWriter, find_ffmpeg
from mixer.logfile import LogFile, write_log
from mixer.mix import mix_blocks, to_pcm
from mixer.opus import MAX_PACKET_TICKS, Decoder
from mixer.render import BLOCK_TICKS, Order, render
from mixer.timeline import Timeline
from mixer.voice import SourceDecoder
from tests.builders import Built, Network, build_session, replay_of
from tests.judge import decode_file

SECONDS = 3600.0
SPEAKERS = 4
ACTIVITY = 0.35
MINUTES = SECONDS / 60
NETWORK = Network(jitter_ms=5, loss=0.01, skew_ppm=50)
MOST_OPUS_CPU_S = 0.6  # the goal for the tracks of this session
MOST_RATIO_OF_WALL = 0.65  # of the CPU time, on two idle cores
MOST_FOLLOWING = 1.5  # of what the same render costs afterwards


def rows() -> Iterator[dict[str, str | float]]:
    """One row per output: {"name", "value", "unit", "floor", "ratio"}."""
    built = build_session(SECONDS, SPEAKERS, ACTIVITY, 1, network=NETWORK, speech=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(built, Path(folder))
        gc.freeze()  # a mixer does not hold an hour of messages, for its collector to go through again and again
        yield bench.timeline()
        yield bench.mix()
        yield from bench.encoded("MP3 mix", Recipe(output="mix", format="mp3"))
        yield from bench.encoded("FLAC mix", Recipe(output="mix", format="flac"))
        yield from bench.encoded("FLAC tracks", Recipe(output="tracks", format="flac"))
        yield bench.opus_tracks()
        yield bench.following()


class _Bench:
    def __init__(self, built: Built, folder: Path) -> None:
        self._built, self._folder = built, folder
        self._log = folder / "log"
        asyncio.run(write_log(self._log, built.session, replay_of(built.messages)))
        self._ffmpeg = find_ffmpeg()
        self._batches = [m.data for m in built.messages if isinstance(parse(m.subject), PacketSubject)]
        self._packets = sum(len(decode_batch(data).packets) for data in self._batches)
        self._decode_floor = _cpu(self._bare_decode)
        self._mix_cpu_s = 0.0

    def timeline(self) -> dict[str, str | float]:
        """Fold and placement, against decoding the batches' wire form alone."""
        wire = _cpu(lambda: [decode_batch(data) for data in self._batches])
        placed = _cpu(self._place)
        return _row("timeline", self._packets / placed, "packets/s", self._packets / wire)

    def mix(self) -> dict[str, str | float]:
        """Replay, placement, decoding and mixing, no encoder; against bare decoding."""
        return _row("decode and mix", _cpu(self._mix) / MINUTES, "CPU s/min", self._decode_floor / MINUTES)

    def encoded(self, name: str, recipe: Recipe) -> Iterator[dict[str, str | float]]:
        """CPU against bare decoding and bare encoding; and wall time against the CPU time, which two cores halve."""
        files: list[Path] = []
        began = time.monotonic()
        made = _cpu(lambda: files.extend(self._render(recipe)))
        wall = time.monotonic() - began
        floor = self._decode_floor
        for path in files:
            pcm = to_pcm(decode_file(path), bits=16)
            floor += _cpu(lambda pcm=pcm: self._bare_encode(recipe.format, pcm))
        if recipe == FOLLOWED_MIX:
            self._mix_cpu_s = made
        yield _row(name, made / MINUTES, "CPU s/min", floor / MINUTES)
        yield _row(f"{name}, wall of CPU", wall, "s", made)

    def opus_tracks(self) -> dict[str, str | float]:
        """Opus copies of an hour, against the goal."""
        made = min(_cpu(lambda: self._render(Recipe(output="tracks", format="opus"))) for _ in range(3))
        return _row("Opus tracks of an hour", made, "CPU s", MOST_OPUS_CPU_S)

    def following(self) -> dict[str, str | float]:
        """Following the session message by message, states written on the way, against rendering its mix."""
        return _row("following", _cpu(self._follow), "CPU s", self._mix_cpu_s)

    def _follow(self) -> None:
        followed = Followed(self._folder / "follow", self._order(FOLLOWED_MIX))
        for message in self._built.messages:
            followed.apply(message.sequence, message.subject, message.data)
        for _recipe, _files in followed.finish():
            pass
        followed.close()

    def _render(self, recipe: Recipe) -> list[Path]:
        return [Path(file.path) for file in render(self._log, self._order(recipe), self._folder).files]

    def _order(self, recipe: Recipe) -> Order:
        return Order(
            session=self._built.session,
            recipe=recipe,
            log_end=len(self._built.messages),
            engine=engine_string(self._ffmpeg),
            ffmpeg=self._ffmpeg,
        )

    def _place(self) -> None:
        with LogFile(self._log) as file:
            tracks = file.fold().tracks
            timeline = Timeline(tracks, "hindsight")
            for track in tracks:
                timeline.place(track)

    def _mix(self) -> None:
        with LogFile(self._log) as file:
            session = file.fold()
            timeline = Timeline(session.tracks, "follow")
            placed = [source for track in session.tracks for source in timeline.place(track)]
            voices = [SourceDecoder(SourceFeed(source)) for source in placed]
            for start in range(0, session.duration_ticks, BLOCK_TICKS):
                blocks = (voice.block(start, start + BLOCK_TICKS) for voice in voices)
                mix_blocks(block for block in blocks if block is not None)

    def _read(self) -> None:
        with LogFile(self._log) as file:
            file.fold()

    def _bare_decode(self) -> None:
        room = np.empty(MAX_PACKET_TICKS, dtype=np.float32)
        address, decoder = room.ctypes.data, Decoder()
        for data in self._batches:
            for packet in decode_batch(data).packets:
                decoder.decode(packet.payload, address)

    def _bare_encode(self, kind: str, pcm: np.ndarray) -> None:
        if kind == "mp3":  # without the reservoir, as ours: it is a tenth cheaper
            self._bare_mp3(pcm)
            return
        with FfmpegWriter(self._ffmpeg, self._folder / f"bare.{kind}", kind=kind) as writer:
            for start in range(0, len(pcm), 10 * TICKS_PER_SECOND):
                writer.write(pcm[start : start + 10 * TICKS_PER_SECOND])

    def _bare_mp3(self, pcm: np.ndarray) -> None:
        source = ("-f", "s16le", "-ar", str(TICKS_PER_SECOND), "-ac", "1", "-i", "pipe:0")
        encoder = ("-c:a", "libmp3lame", "-b:a", f"{DEFAULT_KBPS['mp3']}k", "-reservoir", "0", *BITEXACT)
        target = str(self._folder / "bare.mp3")
        command = [self._ffmpeg.path, "-loglevel", "error", "-nostdin", *source, *encoder, "-y", target]
        subprocess.run(command, input=pcm.tobytes(), check=True)


def _cpu(work: Callable[[], object]) -> float:
    """CPU seconds, those of ended child processes included."""
    before = time.process_time() + _children_s()
    work()
    return time.process_time() + _children_s() - before


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _row(name: str, value: float, unit: str, floor: float) -> dict[str, str | float]:
    return {"name": f"mixer: {name}", "value": value, "unit": unit, "floor": floor, "ratio": value / floor}
