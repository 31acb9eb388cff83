"""FFmpeg by pipe: PCM in, a file out, the same bytes every time (`-bitexact`).

Which ffmpeg: the setting's, else one on PATH that has the encoders we need, else the one of the wheel `imageio-ffmpeg`.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, cast

import imageio_ffmpeg
import msgspec
import numpy as np

from contracts.clock import TICKS_PER_SECOND
from mixer.errors import EncoderError, FfmpegMissingError
from mixer.formats.about import About, comments, ffmetadata
from mixer.mix import DEEP_BITS, Pcm

ENCODERS: Final = ("flac", "libmp3lame", "libopus", "aac", "pcm_s16le", "pcm_s24le")
PROBE_TIMEOUT_S: Final = 20.0
CLOSE_TIMEOUT_S: Final = 60.0
STDERR_LINES: Final = 8
PIPE_BYTES: Final = 1 << 20  # what Linux gives to anybody
DEFAULT_KBPS: Final = {"mp3": 128, "opus": 64, "m4a": 128}
_COMMENTED: Final = ("flac", "opus")
_CHAPTERED: Final = ("mp3", "m4a")
_QUEUE: Final = ("-thread_queue_size", "4096")  # with two inputs, FFmpeg 5 naps 10 ms whenever this is empty
BITEXACT: Final = ("-threads", "1", "-fflags", "+bitexact", "-flags:a", "+bitexact")
_WAV: Final = ("-rf64", "auto", "-f", "wav")  # RF64 past 4 GiB (EBU Tech 3306)
_CODECS: Final = {
    "flac": ("-c:a", "flac", "-f", "flac"),
    "wav": ("-c:a", "pcm_s16le", *_WAV),
    "mp3": ("-c:a", "libmp3lame", "-write_xing", "1", "-id3v2_version", "3", "-f", "mp3"),
    "opus": ("-c:a", "libopus", "-application", "audio", "-page_duration", "1000000", "-f", "ogg"),
    "m4a": ("-c:a", "aac", "-movflags", "+faststart", "-f", "ipod"),
}
_DEEP_CODECS: Final = {
    "flac": ("-sample_fmt", "s32", "-bits_per_raw_sample", "24", "-c:a", "flac", "-f", "flac"),
    "wav": ("-c:a", "pcm_s24le", *_WAV),
}


class Ffmpeg(msgspec.Struct, frozen=True):
    """An ffmpeg that has what we need."""

    path: str
    version: str


def find_ffmpeg(setting: str = "") -> Ffmpeg:
    """The ffmpeg to use.

    Parameters
    ----------
    setting
        RETOLD_FFMPEG; empty = look for one.

    Raises
    ------
    FfmpegMissingError
        If the one that is set does not do, or there is none.
    """
    if setting:
        if found := _probe(setting):
            return found
        raise FfmpegMissingError(f"RETOLD_FFMPEG: {setting} does not run, or lacks one of {', '.join(ENCODERS)}")
    if (on_path := shutil.which("ffmpeg")) and (found := _probe(on_path)):
        return found
    try:
        bundled = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise FfmpegMissingError from error
    if found := _probe(bundled):
        return found
    raise FfmpegMissingError


@cache
def _probe(path: str) -> Ffmpeg | None:
    try:
        banner, encoders = (_say(path, argument) for argument in ("-version", "-encoders"))
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"ffmpeg version (\S+)", banner)
    names = set(re.findall(r"^\s*A\S{5}\s+(\S+)", encoders, re.MULTILINE))
    return Ffmpeg(path, version.group(1)) if version and names.issuperset(ENCODERS) else None


def _say(path: str, argument: str) -> str:
    done = subprocess.run(
        [path, "-hide_banner", argument] if argument == "-encoders" else [path, argument],
        capture_output=True,
        check=True,
        timeout=PROBE_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.decode("utf-8", "replace")


class _Encoding(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    kbps: int | None
    vbr_quality: int | None
    deep: bool
    about: About


class FfmpegWriter:
    """Encodes mono PCM at 48 kHz into one file. A context: left by an exception, it kills FFmpeg.

    Parameters
    ----------
    kind
        `flac`, `wav`, `mp3`, `m4a` (AAC) or `opus`.
    kbps
        For mp3, m4a and opus; None = DEFAULT_KBPS.
    vbr_quality
        MP3 of variable bit rate: LAME's 0 (best) to 9.
    bits
        Bit depth of flac and wav: 16, or mixer.mix.DEEP_BITS.
    """

    def __init__(
        self,
        ffmpeg: Ffmpeg,
        path: Path,
        *,
        kind: str,
        kbps: int | None = None,
        vbr_quality: int | None = None,
        bits: int = 16,
        about: About = About(),  # noqa: B008  # frozen
    ) -> None:
        encoding = _Encoding(kind=kind, kbps=kbps, vbr_quality=vbr_quality, deep=bits == DEEP_BITS, about=about)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `_end`; a pipe could fill and block
        with tempfile.TemporaryFile() as told:
            told.write(ffmetadata(About({}, about.chapters)))
            told.seek(0)
            self._process = subprocess.Popen(
                _arguments(ffmpeg.path, path, encoding, told.fileno()),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                bufsize=0,
                pass_fds=(told.fileno(),),
            )
        self._pipe = widened(cast("IO[bytes]", self._process.stdin))

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file; after an exception only end FFmpeg."""
        try:
            if error is None:
                self._finish()
        finally:
            self._end()

    def write(self, pcm: Pcm) -> None:
        """Encode a block, as `mixer.mix.to_pcm` gives it.

        Raises
        ------
        EncoderError
            If FFmpeg has ended.
        """
        try:
            _write_all(self._pipe, pcm.reshape(-1).view(np.uint8).data)
        except BrokenPipeError as error:
            raise self._error() from error

    def _finish(self) -> None:
        self._pipe.close()
        if wait_end(self._process) != 0:
            raise self._error()

    def _end(self) -> None:
        self._pipe.close()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _error(self) -> EncoderError:
        code = wait_end(self._process)
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()[-STDERR_LINES:]
        return EncoderError("\n".join([f"FFmpeg ended with {code}:", *lines]))


def _arguments(ffmpeg: str, path: Path, encoding: _Encoding, chapters: int) -> list[str]:
    pcm = "s32le" if encoding.deep else "s16le"
    source = ("-f", pcm, "-ar", str(TICKS_PER_SECOND), "-ac", "1", "-i", "pipe:0")
    return [
        *(ffmpeg, "-hide_banner", "-loglevel", "error", "-nostdin"),
        *(_QUEUE if _reads(encoding) else ()),
        *source,
        *(("-f", "ffmetadata", "-i", f"pipe:{chapters}", "-map", "0") if _reads(encoding) else ()),
        *(("-map_chapters", "1", "-map_metadata", "1") if _reads(encoding) else ("-map_metadata", "-1")),
        *_metadata(encoding),
        *(*_codec(encoding), *BITEXACT, "-y", str(path)),
    ]


def _reads(encoding: _Encoding) -> bool:
    """Whether FFmpeg is given chapters to write in its own way."""
    return bool(encoding.about.chapters) and encoding.kind in _CHAPTERED


def _codec(encoding: _Encoding) -> tuple[str, ...]:
    kind = encoding.kind
    if encoding.vbr_quality is not None:
        return "-q:a", str(encoding.vbr_quality), *_CODECS[kind]
    if kind in DEFAULT_KBPS:
        return "-b:a", f"{encoding.kbps or DEFAULT_KBPS[kind]}k", *_CODECS[kind]
    return (_DEEP_CODECS if encoding.deep else _CODECS)[kind]


def _metadata(encoding: _Encoding) -> list[str]:
    """Tags; chapters as Vorbis comments, as FFmpeg makes none for FLAC, and rounds their seconds up for Ogg (5.1)."""
    about = encoding.about
    chapters = comments(About({}, about.chapters)) if encoding.kind in _COMMENTED else {}
    told = {key: value.replace("\0", "") for key, value in (about.tags | chapters).items() if value}
    return [part for key, value in told.items() for part in ("-metadata", f"{key}={value}")]


def widened(pipe: IO[bytes]) -> IO[bytes]:
    """The pipe with room for ten seconds of sound, where the system lets us: who writes waits less often."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return pipe


def wait_end(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; what does not end by itself is killed. `wait` with a timeout would nap up to 50 ms too long."""
    killing = threading.Timer(CLOSE_TIMEOUT_S, process.kill)
    killing.start()
    try:
        return process.wait()
    finally:
        killing.cancel()


def _write_all(pipe: IO[bytes], data: memoryview) -> None:
    """Write all of it: a raw pipe may take less at a time."""
    while data:
        data = data[pipe.write(data) :]
