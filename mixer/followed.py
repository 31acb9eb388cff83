"""A session that is followed, in a folder of its own: its log goes in message by message, the default files come out.

    folder/state    what a follower goes on from: the log up to `sequence`, written when a segment of the mix begins
    folder/frames   the mix so far
    folder/packets  what the report needs of every packet

Killed at any moment, it goes on from the last state: the messages behind it are given again. Without a state, or with
one of another engine, it begins anew: nothing is lost but time. `render_followed` renders an ended session by the same
code.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from contracts.recipes import FOLLOWED_MIX, FOLLOWED_PEAKS, FOLLOWED_REPORT, Recipe
from contracts.subjects import facts
from mixer import names
from mixer.ahead import ahead
from mixer.formats.mp3 import TakeFrames, ignore_frames
from mixer.grown import GrowingMix, GrowingPeaks, MixState, Pixels
from mixer.hearing import Block, Hearing
from mixer.logfile import LogFile
from mixer.records import Records, report_session
from mixer.rendered import Order, Rendered, RenderedFile, check_range, describe_file
from mixer.replay import Session

STATE: Final = "state"
FRAMES: Final = "frames"
PACKETS: Final = "packets"


class FollowState(msgspec.Struct, frozen=True, array_like=True):
    """All that a follower knows after a message of the log."""

    engine: str
    sequence: int
    hearing: bytes
    mix: MixState
    peaks: Pixels
    packets: dict[str, int]


class Followed:
    """The fold over one running session; `close` it.

    Parameters
    ----------
    order
        Its `engine` decides whether a state can be gone on from; recipe and log range are not looked at.
    take
        Told of the mix's frames as soon as they are made, by another thread: the number of the first, and their bytes.

    Attributes
    ----------
    sequence
        Stream sequence of the last message that was taken in.
    """

    def __init__(self, folder: Path, order: Order, *, take: TakeFrames = ignore_frames) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._order = folder, order
        state = _read_state(folder, order.engine)
        self._records = Records(folder / PACKETS, state.packets if state else None)
        self._hearing = Hearing(self._records)
        self.sequence = 0
        if state is not None:
            self._hearing.load(state.hearing, facts(order.session))
            self.sequence = state.sequence
        self._mix = GrowingMix(order.ffmpeg, folder / FRAMES, state=state.mix if state else None, take=take)
        self._peaks = GrowingPeaks(state.peaks if state else None)

    @property
    def ended(self) -> bool:
        """Whether the log told the session's end."""
        return self._hearing.ended

    def apply(self, sequence: int, subject: str, data: bytes) -> None:
        """The next message of the log; one that was given before changes nothing."""
        if sequence <= self.sequence:
            return
        self._hearing.apply(subject, data)
        self.sequence = sequence
        self._push(self._hearing.blocks())
        if self._mix.savable:
            self._save()

    def finish(self) -> Iterator[tuple[Recipe, tuple[RenderedFile, ...]]]:
        """The log is at its end: the files of each recipe, what people wait for first.

        Raises
        ------
        RequestError
            If the session has no length.
        """
        session = self._hearing.session()
        check_range(FOLLOWED_MIX, session)
        self._push(self._hearing.finish(session.duration_ticks))
        order = msgspec.structs.replace(self._order, log_end=self.sequence)
        yield FOLLOWED_MIX, (_finish_mix(self._mix, session, order, self._folder),)
        yield FOLLOWED_PEAKS, _finish_peaks(self._peaks, session, order, self._folder)
        yield FOLLOWED_REPORT, (_finish_report(self._hearing, self._records, order, self._folder),)

    def close(self) -> None:
        """End what runs; the state stays."""
        self._mix.close()

    def _push(self, blocks: Iterator[Block]) -> None:
        for block in blocks:
            self._mix.push(block)
            self._peaks.push(block)

    def _save(self) -> None:
        state = FollowState(
            engine=self._order.engine,
            sequence=self.sequence,
            hearing=self._hearing.save(),
            mix=self._mix.save(),
            peaks=self._peaks.save(),
            packets=self._records.save(),  # last: `hearing` settles what waits
        )
        path = self._folder / STATE
        with path.with_suffix(".new").open("wb") as file:
            file.write(msgspec.msgpack.encode(state))
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").replace(path)


def render_followed(file: LogFile, order: Order, directory: Path, progress: Callable[[float], None]) -> Rendered:
    """One of the FOLLOWED recipes of a log that is all there, by the code that follows.

    Raises
    ------
    RequestError
        If the session has no length.
    """
    recipe = order.recipe.canonical()
    records = Records(directory / PACKETS) if recipe == FOLLOWED_REPORT else None
    hearing = Hearing(records)
    if records is not None:
        for message in file.messages(progress):
            hearing.apply(message.subject, message.data)
            hearing.pass_over()
        hearing.settle()
        files: tuple[RenderedFile, ...] = (_finish_report(hearing, records, order, directory),)
        shutil.rmtree(directory / PACKETS)
    elif recipe == FOLLOWED_PEAKS:
        files = _render_peaks(ahead(_heard(file, hearing, progress)), hearing, order, directory)
    else:
        files = (_render_mix(ahead(_heard(file, hearing, progress)), hearing, order, directory),)
    return Rendered(files=files, speakers=(), malformed_messages=hearing.session().malformed)


def _render_peaks(blocks: Iterator[Block], hearing: Hearing, order: Order, directory: Path) -> tuple[RenderedFile, ...]:
    peaks = GrowingPeaks()
    for block in blocks:
        peaks.push(block)
    return _finish_peaks(peaks, hearing.session(), order, directory)


def _render_mix(blocks: Iterator[Block], hearing: Hearing, order: Order, directory: Path) -> RenderedFile:
    mix = GrowingMix(order.ffmpeg, directory / FRAMES)
    try:
        for block in blocks:
            mix.push(block)
        return _finish_mix(mix, hearing.session(), order, directory)
    finally:
        mix.close()
        (directory / FRAMES).unlink()


def _heard(file: LogFile, hearing: Hearing, progress: Callable[[float], None]) -> Iterator[Block]:
    for message in file.messages(progress):
        hearing.apply(message.subject, message.data)
        yield from hearing.blocks()
    session = hearing.session()
    check_range(FOLLOWED_MIX, session)
    yield from hearing.finish(session.duration_ticks)


def _finish_report(hearing: Hearing, records: Records, order: Order, directory: Path) -> RenderedFile:
    session = hearing.session()
    check_range(FOLLOWED_REPORT, session)
    path = _path(FOLLOWED_REPORT, order, directory)
    path.write_bytes(report_session(session, records, hearing.notes()))
    return describe_file(path, session, FOLLOWED_REPORT, user_id=None, ticks=session.duration_ticks)


def _path(recipe: Recipe, order: Order, directory: Path, user_id: str | None = None) -> Path:
    return directory / names.object_name(recipe, log_end=order.log_end, engine=order.engine, user_id=user_id)


def _finish_mix(mix: GrowingMix, session: Session, order: Order, directory: Path) -> RenderedFile:
    path = _path(FOLLOWED_MIX, order, directory)
    sound = mix.finish(path, session)
    return describe_file(path, session, FOLLOWED_MIX, user_id=None, ticks=session.duration_ticks, sound=sound)


def _finish_peaks(peaks: GrowingPeaks, session: Session, order: Order, directory: Path) -> tuple[RenderedFile, ...]:
    files = []
    for user_id, data in peaks.finish(session).items():
        path = _path(FOLLOWED_PEAKS, order, directory, user_id)
        path.write_bytes(data)
        files.append(describe_file(path, session, FOLLOWED_PEAKS, user_id=user_id, ticks=session.duration_ticks))
    return tuple(files)


def forget(folder: Path) -> None:
    """Take what a follower left off the disk."""
    shutil.rmtree(folder, ignore_errors=True)


def _read_state(folder: Path, engine: str) -> FollowState | None:
    """The state, if it is this engine's and all that it counts on is there."""
    try:
        state = msgspec.msgpack.decode((folder / STATE).read_bytes(), type=FollowState)
        there = {name: (folder / PACKETS / name).stat().st_size for name in state.packets}
        frames = (folder / FRAMES).stat().st_size
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    whole = all(there[name] >= size for name, size in state.packets.items()) and frames >= state.mix.frame_bytes
    return state if whole and state.engine == engine else None
