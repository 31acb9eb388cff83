r"""MP3 of constant bit rate, encoded in segments: two at a time, and a follower can stop and go on between them.

Without the bit reservoir a frame holds all that is its own, and depends only on the sound near it. So a segment's
FFmpeg is given a little more sound on both sides, and those frames are cut off: the segments put together are, frame
for frame, what one encoder makes in one run (tested).

    PCM ---> segment 0 -> FFmpeg ---\
        \--> segment 1 -> FFmpeg ----+--> frames;   file = ID3v2 | Info frame | frames

    Info frame   header(4) | side information, zero(17) | "Info" flags(4) frames(4) bytes(4) seek points(100) quality(4)
                 | LAME's tag: name(9) ... delay and padding, 12 bits each (3) ... length(4) ... CRC-16 (2)
"""

from __future__ import annotations

import os
import queue
import struct
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from contracts.clock import TICKS_PER_SECOND
from contracts.recipes import MP3_KBPS
from mixer.errors import EncoderError
from mixer.formats.about import About
from mixer.formats.ffmpeg import DEFAULT_KBPS, STDERR_LINES, Ffmpeg, FfmpegWriter, wait_end, widened
from mixer.mix import Pcm

Pcm16: TypeAlias = NDArray[np.int16]
TakeFrames: TypeAlias = Callable[[int, bytes], None]

FRAME_TICKS: Final = 1152
SEGMENT_FRAMES: Final = 10_000  # four minutes: an FFmpeg's start is a twentieth of what they cost
BEFORE_FRAMES: Final = 50  # of sound that an encoder hears before its segment; ten were enough for equal frames
BEHIND_FRAMES: Final = 3  # the encoder looks ahead less than two
OVERLAP_TICKS: Final = (BEFORE_FRAMES + BEHIND_FRAMES) * FRAME_TICKS
FRESH_TICKS: Final = OVERLAP_TICKS + 8 * TICKS_PER_SECOND  # so long after it began a segment can be begun anew
ENDING: Final = 1  # segments that have all their sound, beside the one that gets it
DELAY_TICKS: Final = 576  # LAME's, as its tag counts; decoders know of 529 of their own
_SIDE_BYTES: Final = 17  # one channel
_SEEK_POINTS: Final = 100
_ALONE: Final = ("-reservoir", "0", "-write_xing", "0", "-id3v2_version", "0", "-flush_packets", "0")
_EXACT: Final = ("-threads", "1", "-fflags", "+bitexact", "-flags:a", "+bitexact")
_READ_BYTES: Final = 64 * 1024
_COPY_BYTES: Final = 1 << 30


def frame_bytes(kbps: int) -> int:
    """Size of a frame: at 48 kHz there is no padding."""
    return 3 * kbps


def ignore_frames(_number: int, _frames: bytes) -> None:
    """Nobody listens."""


class _Segment:
    """One FFmpeg at work. Sound is queued, and frames collected, by a thread each."""

    def __init__(self, ffmpeg: Ffmpeg, kbps: int, number: int, take: TakeFrames) -> None:
        self.number = number
        self._size = frame_bytes(kbps)
        self._take = take
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`; a pipe could fill and block
        source = ("-f", "s16le", "-ar", str(TICKS_PER_SECOND), "-ac", "1", "-i", "pipe:0")
        self._process = subprocess.Popen(
            [
                *(ffmpeg.path, "-hide_banner", "-loglevel", "error", "-nostdin", *source),
                *("-c:a", "libmp3lame", "-b:a", f"{kbps}k", *_ALONE, *_EXACT, "-f", "mp3", "pipe:1"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
        )
        self._input = widened(cast("IO[bytes]", self._process.stdin))
        self._output = cast("IO[bytes]", self._process.stdout)
        self._sound: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._frames = bytearray()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._feed, self._collect)]
        for thread in self._threads:
            thread.start()

    def write(self, pcm: Pcm16) -> None:
        """More sound; EncoderError if FFmpeg has ended."""
        if self._process.poll() is not None:
            raise self._error()
        self._sound.put(pcm.tobytes())

    def end(self) -> None:
        """No more sound comes."""
        self._sound.put(b"")

    @property
    def done(self) -> bool:
        """Whether all its frames are there."""
        return not any(thread.is_alive() for thread in self._threads)

    def frames(self) -> bytes:
        """Wait for all frames: of a segment that another follows, SEGMENT_FRAMES of them."""
        for thread in self._threads:
            thread.join()
        if wait_end(self._process) != 0:
            raise self._error()
        return bytes(self._frames)

    def close(self) -> None:
        """End FFmpeg, whether it is done or not."""
        self._process.kill()
        self._process.wait()
        self.end()
        for thread in self._threads:
            thread.join()
        self._output.close()
        self._said.close()

    def _feed(self) -> None:
        try:
            while data := self._sound.get():
                view = memoryview(data)
                while view:
                    view = view[self._input.write(view) :]
        except BrokenPipeError:
            return  # FFmpeg ended; whoever waits for its frames says why
        finally:
            self._input.close()

    def _collect(self) -> None:
        skip = (BEFORE_FRAMES if self.number else 0) * self._size
        rest = b""
        while data := self._output.read(_READ_BYTES):
            rest += data[skip:]
            skip = max(skip - len(data), 0)
            whole = len(rest) // self._size * self._size
            self._take_over(rest[:whole])
            rest = rest[whole:]

    def _take_over(self, frames: bytes) -> None:
        made = len(self._frames) // self._size
        self._frames += frames
        if told := frames[: max(SEGMENT_FRAMES - made, 0) * self._size]:
            self._take(self.number * SEGMENT_FRAMES + made, told)

    def _error(self) -> EncoderError:
        code = wait_end(self._process)
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()[-STDERR_LINES:]
        return EncoderError("\n".join([f"FFmpeg ended with {code}:", *lines]))


class Mp3Frames:
    """PCM to frames, appended to a file segment by segment. A context: left, it ends every FFmpeg that still runs.

    Parameters
    ----------
    file
        Holds `segments` segments, and is open for appending.
    fresh
        The sound with which the next segment begins: what `fresh` was when the file held so many.
    take
        Told of frames as soon as they are made, by another thread: the number of the first, and their bytes.

    Attributes
    ----------
    ffmpeg, file, kbps
        As given.
    segments
        How many are in the file.
    fresh
        All the sound that the segment that is being filled was given; None if that is too long ago to remember.
    """

    def __init__(
        self,
        ffmpeg: Ffmpeg,
        file: IO[bytes],
        *,
        kbps: int,
        segments: int = 0,
        fresh: Pcm16 | None = None,
        take: TakeFrames = ignore_frames,
    ) -> None:
        self.ffmpeg, self.file, self.kbps, self._take = ffmpeg, file, kbps, take
        self._ending: deque[_Segment] = deque()
        self.segments = segments
        self.fresh: Pcm16 | None = np.zeros((0, 1), dtype=np.int16)
        self._tail = np.zeros((0, 1), dtype=np.int16)  # of the sound so far
        self._current = self._begin(segments)
        if fresh is not None:
            self.write(fresh)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every FFmpeg."""
        for segment in (*self._ending, self._current):
            segment.close()

    def write(self, pcm: Pcm16) -> None:
        """The next samples, int16 (samples, 1).

        Raises
        ------
        EncoderError
            If FFmpeg has ended.
        """
        while len(pcm):
            part = pcm[: self._missing]
            self._current.write(part)
            self._missing -= len(part)
            self._tail = np.concatenate((self._tail, part[-OVERLAP_TICKS:]))[-OVERLAP_TICKS:]
            if self.fresh is not None:
                longer = len(self.fresh) + len(part) > FRESH_TICKS
                self.fresh = None if longer else np.concatenate((self.fresh, part))
            pcm = pcm[len(part) :]
            if not self._missing:
                self._turn()

    @property
    def number(self) -> int:
        """Of the segment that is being filled."""
        return self._current.number

    @property
    def done(self) -> bool:
        """Whether all segments before it are encoded."""
        return all(segment.done for segment in self._ending)

    def store(self) -> None:
        """Wait for the frames of all segments that have their sound, and append them to the file."""
        self._store(0)
        self.file.flush()

    def finish(self) -> int:
        """Wait for all frames, also of a segment that is not full; how many the file holds."""
        self._current.end()
        self._store(0)
        self.file.write(self._current.frames())
        self.file.flush()
        return self.file.tell() // frame_bytes(self.kbps)

    def _turn(self) -> None:
        """The segment has all its sound: begin the next with the end of it."""
        self._current.end()
        self._ending.append(self._current)
        self._store(ENDING)
        self._current = self._begin(self._current.number + 1)
        self.fresh = np.zeros((0, 1), dtype=np.int16)
        tail, self._tail = self._tail, self._tail[:0]
        self.write(tail)

    def _begin(self, number: int) -> _Segment:
        before = BEFORE_FRAMES if number else 0
        self._missing = (before + SEGMENT_FRAMES + BEHIND_FRAMES) * FRAME_TICKS
        return _Segment(self.ffmpeg, self.kbps, number, self._take)

    def _store(self, waiting: int) -> None:
        while len(self._ending) > waiting:
            segment = self._ending[0]
            self.file.write(segment.frames()[: SEGMENT_FRAMES * frame_bytes(self.kbps)])
            segment.close()
            self._ending.popleft()
            self.segments += 1


def info_frame(kbps: int, *, frames: int, ticks: int) -> bytes:
    """The frame before the first: how long the file is, and what the encoder added before and behind `ticks` of sound.

    By the Xing header's and the LAME tag's descriptions, as players and FFmpeg read them.
    """
    size = frame_bytes(kbps)
    padding = min(max(frames * FRAME_TICKS - ticks - DELAY_TICKS, 0), 0xFFF)
    rate = 1 + MP3_KBPS.index(kbps)
    header = bytes((0xFF, 0xFB, rate << 4 | 0x04, 0xC4))  # MPEG-1 III, no CRC, 48 kHz, mono, original
    seek = bytes(point * 256 // _SEEK_POINTS for point in range(_SEEK_POINTS))
    xing = b"Info" + struct.pack(">III", 0x0F, frames, (frames + 1) * size) + seek + struct.pack(">I", 0)
    name, method, lowpass = b"Lavc     ", 1, 0  # constant bit rate
    tag = struct.pack(">9sBB", name, method, lowpass) + bytes(8)  # no gains
    tag += struct.pack(">BB", 0, min(kbps, 255)) + (DELAY_TICKS << 12 | padding).to_bytes(3, "big")
    tag += struct.pack(">BBHIH", 0, 0, 0, (frames + 1) * size, 0)
    begun = header + bytes(_SIDE_BYTES) + xing + tag
    return (begun + struct.pack(">H", _crc16(begun))).ljust(size, b"\0")


class Mp3Writer:
    """Encodes 16-bit PCM into one MP3 file, as `FfmpegWriter` does. A context: left by an exception, no file is made.

    Parameters
    ----------
    about
        Tags and chapters: what `FfmpegWriter` makes of them.
    """

    def __init__(
        self,
        ffmpeg: Ffmpeg,
        path: Path,
        *,
        kbps: int | None = None,
        about: About = About(),  # noqa: B008  # frozen
    ) -> None:
        self._path, self._about = path, about
        self._frames = path.with_suffix(".frames")
        self._file = self._frames.open("wb")
        self._encoder = Mp3Frames(ffmpeg, self._file, kbps=kbps or DEFAULT_KBPS["mp3"])
        self._ticks = 0

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file; after an exception only end what runs."""
        try:
            with self._encoder, self._file:
                if error is None:
                    write_mp3(self._encoder, self._path, ticks=self._ticks, about=self._about)
        finally:
            self._frames.unlink(missing_ok=True)

    def write(self, pcm: Pcm) -> None:
        """Encode a block, int16 (samples, 1); EncoderError if FFmpeg has ended."""
        self._ticks += len(pcm)
        self._encoder.write(np.asarray(pcm, dtype=np.int16))


def write_mp3(encoder: Mp3Frames, path: Path, *, ticks: int, about: About) -> None:
    """A file of the ID3v2 tag that `FfmpegWriter` makes, the Info frame and the frames that the encoder finishes."""
    kbps = encoder.kbps
    with FfmpegWriter(encoder.ffmpeg, path, kind="mp3", kbps=kbps, about=about) as empty:
        empty.write(np.zeros((FRAME_TICKS, 1), dtype=np.int16))
        frames = encoder.finish()  # while FFmpeg starts
    tag = id3_tag(path)
    with path.open("wb") as file, Path(encoder.file.name).open("rb") as source:
        file.write(tag + info_frame(kbps, frames=frames, ticks=ticks))
        file.flush()
        while os.sendfile(file.fileno(), source.fileno(), None, _COPY_BYTES):
            pass


def id3_tag(file: Path) -> bytes:
    """The ID3v2 tag at the beginning of a file (id3v2.4.0-structure §3.1)."""
    with file.open("rb") as source:
        header = source.read(10)
        if header[:3] != b"ID3":
            return b""
        size = sum((byte & 0x7F) << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
        return header + source.read(size)


def _crc16(data: bytes) -> int:
    """CRC-16/ARC: the LAME tag's own."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
