"""What grows with a session: the default mix and every speaker's peaks. Blocks of voices in, files out at the end.

Both are folds whose state can be saved where the mix's encoder begins a segment; so a session that is followed, one
that was interrupted, and one that is rendered a year later go through this code, and give the same bytes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np

from contracts.clock import ns_to_ticks
from contracts.recipes import FOLLOWED_MIX
from mixer import names
from mixer.formats import mp3
from mixer.formats.about import About, divide
from mixer.formats.ffmpeg import DEFAULT_KBPS, Ffmpeg
from mixer.formats.mp3 import Mp3Frames, TakeFrames, ignore_frames, write_mp3
from mixer.hearing import BLOCK_TICKS, Block
from mixer.mastering import sound_of
from mixer.mix import to_pcm
from mixer.peaks import PIXEL_TICKS, Peaks, peaks_dat
from mixer.replay import UNKNOWN_PREFIX, Session
from mixer.sound import SoundFold, SoundState

KBPS: Final = DEFAULT_KBPS["mp3"]
LONGEST_SEGMENTS: Final = 5  # so many at the most between two states, also when they come faster than they are encoded
_PIXELS: Final = BLOCK_TICKS // PIXEL_TICKS
_QUIET: Final = bytes(2 * _PIXELS)

Pixels: TypeAlias = dict[str, dict[int, bytes]]  # of each voice, of each second in which it sounds


class MixState(msgspec.Struct, frozen=True, array_like=True):
    """A growing mix where a segment has just begun."""

    sound: SoundState
    segments: int
    fresh: bytes
    ticks: int

    @property
    def frame_bytes(self) -> int:
        """How long the frames of its segments are."""
        return self.segments * mp3.SEGMENT_FRAMES * mp3.frame_bytes(KBPS)


class GrowingMix:
    """The default mix; `close` it.

    Parameters
    ----------
    frames
        Where its frames go.
    state
        What `save` gave; None = from the beginning.
    take
        Told of frames as soon as they are made: the number of the first, and their bytes.
    """

    def __init__(
        self, ffmpeg: Ffmpeg, frames: Path, *, state: MixState | None = None, take: TakeFrames = ignore_frames
    ) -> None:
        self._sound = SoundFold(sound_of(FOLLOWED_MIX))
        self._ticks = 0
        self._file = frames.open("ab")
        segments, fresh = 0, None
        if state is not None:
            self._sound.load(state.sound)
            self._ticks, segments = state.ticks, state.segments
            fresh = np.frombuffer(state.fresh, dtype=np.int16).reshape(-1, 1)
        self._file.truncate(state.frame_bytes if state else 0)
        self._encoder = Mp3Frames(ffmpeg, self._file, kbps=KBPS, segments=segments, fresh=fresh, take=take)
        self._saved = segments

    def push(self, block: Block) -> None:
        """The next second."""
        samples = self._sound.push(block.voices, block.stop - block.start)
        self._ticks += len(samples)
        self._encoder.write(to_pcm(samples, bits=16).astype(np.int16, copy=False))

    @property
    def savable(self) -> bool:
        """Whether a new segment has just begun, and saving costs next to nothing."""
        encoder = self._encoder
        begun = encoder.number - self._saved
        return encoder.fresh is not None and begun > 0 and (encoder.done or begun >= LONGEST_SEGMENTS)

    def save(self) -> MixState:
        """The state; all segments before it are on disk."""
        self._encoder.store()
        os.fsync(self._file.fileno())
        fresh = self._encoder.fresh
        if fresh is None:
            raise AssertionError("saved where it is not savable")  # ours
        self._saved = self._encoder.segments
        return MixState(self._sound.save(), self._encoder.segments, fresh.tobytes(), self._ticks)

    def finish(self, path: Path, session: Session) -> SoundFold:
        """All blocks were given: write the file; how it sounds."""
        samples = self._sound.flush()
        self._ticks += len(samples)
        self._encoder.write(to_pcm(samples, bits=16).astype(np.int16, copy=False))
        about = about_mix(session, self._ticks)
        write_mp3(self._encoder, path, ticks=self._ticks, about=about)
        return self._sound

    def close(self) -> None:
        """End the encoders, whether they are done or not."""
        self._encoder.__exit__(None, None, None)
        self._file.close()


def about_mix(session: Session, ticks: int) -> About:
    """Tags and chapters of the whole session's mix."""
    notes = [(ns_to_ticks(note.at_ns), " ".join(note.text.split())) for note in session.notes]
    return About(names.tags(session, [track.name for track in session.tracks]), divide(notes, ticks))


class GrowingPeaks:
    """Every speaker's peaks."""

    def __init__(self, state: Pixels | None = None) -> None:
        self._pixels: Pixels = state or {}

    def push(self, block: Block) -> None:
        """The next second."""
        for user, samples in block.voices.items():
            peaks = Peaks()
            pixels = peaks.push(samples) + peaks.flush()
            if any(pixels):
                self._pixels.setdefault(user, {})[block.start // BLOCK_TICKS] = pixels

    def save(self) -> Pixels:
        """The state."""
        return self._pixels

    def finish(self, session: Session) -> dict[str, bytes]:
        """The file of every track, audiowaveform's binary form, by its user."""
        owners = {
            f"{UNKNOWN_PREFIX}{source.ssrc}": track.user_id for track in session.tracks for source in track.sources
        }
        files = {track.user_id: self._whole(track.user_id, session.duration_ticks) for track in session.tracks}
        for user in self._pixels.keys() - files.keys():  # somebody whose name was told late
            if (owner := owners.get(user)) is not None:
                files[owner] = _merge(files[owner], self._whole(user, session.duration_ticks))
        return {user: peaks_dat(pixels) for user, pixels in sorted(files.items())}

    def _whole(self, user: str, ticks: int) -> bytes:
        seconds = self._pixels.get(user, {})
        pixels = b"".join(seconds.get(second, _QUIET) for second in range(-(-ticks // BLOCK_TICKS)))
        return pixels[: 2 * -(-ticks // PIXEL_TICKS)]


def _merge(one: bytes, other: bytes) -> bytes:
    """The least and the greatest of both."""
    first, second = (np.frombuffer(pixels, dtype=np.int8).reshape(-1, 2) for pixels in (one, other))
    merged = np.stack((np.minimum(first[:, 0], second[:, 0]), np.maximum(first[:, 1], second[:, 1])), axis=1)
    return bytes(merged.tobytes())
