"""The following process: one running session each, beside the event loop, like the rendering process.

    stdin    one line of JSON, then frames: u32 length | MessagePack [sequence, subject, data]; sequence 0: the end
    stdout   frames of the same form: Resumed, Reached, Frames, Grown, Refused, Failed

It can be killed at any moment; another goes on from its folder. When stdin ends, its mixer is gone, and it ends too.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

import msgspec

from contracts.errors import RetoldError
from contracts.recipes import FOLLOWED, Recipe
from mixer.errors import RequestError
from mixer.followed import Followed
from mixer.formats.mp3 import frame_bytes
from mixer.grown import KBPS
from mixer.rendered import Order, RenderedFile

NICENESS: Final = 5  # recording goes first, renders last
LIVE_FRAMES: Final = 42  # a second
LENGTH: Final = struct.Struct(">I")


class FollowAssignment(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does."""

    folder: str
    order: Order


class Given(msgspec.Struct, frozen=True, array_like=True):
    """A message of the log; `sequence` 0: there is none behind the last."""

    sequence: int
    subject: str = ""
    data: bytes = b""


class Resumed(msgspec.Struct, frozen=True, tag="resumed"):
    """From which message on it wants the log: the one behind this."""

    sequence: int


class Reached(msgspec.Struct, frozen=True, tag="reached"):
    """It took in everything up to here."""

    sequence: int


class Frames(msgspec.Struct, frozen=True, tag="frames"):
    """New frames of the mix, for listeners: the number of the first, and their bytes."""

    number: int
    data: bytes


class Grown(msgspec.Struct, frozen=True, tag="grown"):
    """A recipe's files are there; the log was read up to `log_end`. The last recipe comes without `more`."""

    log_end: int
    recipe: Recipe
    files: tuple[RenderedFile, ...]
    more: bool = False


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The session has no such files."""

    reason: str


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It could not go on."""

    reason: str


Told: TypeAlias = Resumed | Reached | Frames | Grown | Refused | Failed

_given: Final = msgspec.msgpack.Decoder(Given)
_lock: Final = threading.Lock()


def frame(value: msgspec.Struct) -> bytes:
    """A value as it goes through a pipe."""
    body = msgspec.msgpack.encode(value)
    return LENGTH.pack(len(body)) + body


def main() -> None:
    """Read the assignment, and follow."""
    assignment = msgspec.json.decode(sys.stdin.buffer.readline(), type=FollowAssignment)
    os.nice(NICENESS)
    try:
        _follow(assignment)
    except RequestError as error:
        _say(Refused(str(error)))
    except (RetoldError, OSError) as error:
        _say(Failed(str(error) or type(error).__name__))


def _follow(assignment: FollowAssignment) -> None:
    followed = Followed(Path(assignment.folder), assignment.order, take=_Listeners().take)
    try:
        _say(Resumed(followed.sequence))
        for message in _messages(sys.stdin.buffer):
            if message.sequence == 0:
                for recipe, files in followed.finish():
                    _say(Grown(followed.sequence, recipe, files, more=recipe != FOLLOWED[-1]))
                return
            followed.apply(message.sequence, message.subject, message.data)
            _say(Reached(followed.sequence))
    finally:
        followed.close()


class _Listeners:
    """Frames gathered to LIVE_FRAMES; encoders of two segments may tell of theirs at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first = self._count = 0
        self._data = b""

    def take(self, number: int, frames: bytes) -> None:
        """Some more."""
        count = len(frames) // frame_bytes(KBPS)
        with self._lock:
            if number != self._first + self._count:
                self._tell()
                self._first = number
            self._data += frames
            self._count += count
            if self._count >= LIVE_FRAMES:
                self._tell()

    def _tell(self) -> None:
        if self._data:
            _say(Frames(self._first, self._data))
        self._first, self._count, self._data = self._first + self._count, 0, b""


def _messages(file: BinaryIO) -> Iterator[Given]:
    """What the mixer gives, until it is gone."""
    while len(length := file.read(LENGTH.size)) == LENGTH.size:
        yield _given.decode(file.read(LENGTH.unpack(length)[0]))


def _say(told: Told) -> None:
    with _lock:
        sys.stdout.buffer.write(frame(told))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
