"""Gains that bring voices to one level, and a mix to its loudness, on the way: no second pass, no pumping.

A level is the gated loudness of what was heard lately, counted in sound and not in time: silence changes nothing, and
neither does breath between words. The gain that it asks for moves slowly while there is sound, and freely while there
is none. What comes in the next LOOKAHEAD_FRAMES is known already, so that a first word is right as well.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from mixer.kernel import kernel
from mixer.loudness import Blocks, Meter, Powers, lufs, power_of

TARGET_LUFS: Final = -16.0  # of podcasts and players (AES TD1008: -16 to -20; Apple Podcasts: -16)
LOOKAHEAD_FRAMES: Final = 2  # seconds
VOICE_GATE_LUFS: Final = -56.0  # quieter is a room, not a voice
MIX_GATE_LUFS: Final = -50.0
VOICE_WINDOW: Final = 300  # blocks: half a minute of one's voice
MIX_WINDOW: Final = 600
LONG_WINDOW: Final = 3000  # where voices are not levelled, five minutes keep the gain from following who speaks
RECENT: Final = 25  # blocks that a shout is judged by
MOST_GAIN_DB: Final = 28.0
STEADY_DB: Final = 2.5  # louder and quieter half so close together: a fan, not a voice (speech: 6 and more)
STEADY_BLOCKS: Final = 40  # needed to tell
STEADY_GAIN_DB: Final = 6.0  # so much is noise turned up at most
SHOUT_LU: Final = 5.0  # so far above the target a voice may go at once
DOUBT: Final = 3  # a cough is no voice yet
RISE_DB_PER_S: Final = 1.5
FALL_DB_PER_S: Final = 10.0  # breath or a keyboard came first: by the first word the gain is down
MIX_RISE_DB_PER_S: Final = 0.75
MIX_FALL_DB_PER_S: Final = 3.0
MOST_MIX_DB: Final = 6.0  # where voices are levelled, there is not much left to do, and noise is not to be turned up
STILL_DB: Final = 0.2  # a gain so close to what is wanted stays, and costs nothing
FEEDBACK: Final = 4.0  # how strongly the integrated loudness so far pulls, once it is that of FEEDBACK_BLOCKS
FEEDBACK_BLOCKS: Final = 60
MOST_FEEDBACK_DB: Final = 6.0
SETTLED_BLOCKS: Final = 10  # then it is worth listening to
GATES: Final = 2  # one after the other: a long murmur must not hide a first word
_RELATIVE_GATE: Final = 0.1  # -10 LU


class LevelState(msgspec.Struct, frozen=True, array_like=True):
    """A level's window of block powers, its unfinished block and its gain (None before the first)."""

    window: tuple[float, ...]
    hops: list[float]
    gain_db: float | None
    sounded: bool


class Level:
    """Loudness of what was heard lately, and the gain that follows it.

    Parameters
    ----------
    window
        How many blocks above the gate it remembers.
    doubt
        Blocks' worth of belief that things are right as they are.
    """

    def __init__(self, *, window: int, gate_lufs: float, doubt: int) -> None:
        self._doubt = doubt
        self._size = window
        self._gate = power_of(gate_lufs)
        self._window = np.zeros(0)
        self._blocks = Blocks()
        self._gain_db: float | None = None
        self._sounded = False

    def hear(self, powers: Powers) -> None:
        """The hops of one more frame."""
        self._window = self._with(self._blocks.add(powers))

    def _with(self, blocks: Powers) -> Powers:
        heard = blocks[blocks > self._gate]
        return np.concatenate((self._window, heard))[-self._size :] if len(heard) else self._window

    def wanted_db(self, target_lufs: float, *, ahead: Powers | None = None) -> float:
        """The gain that would bring it to the target, less while little was heard; `ahead` are hops not heard yet."""
        window = self._window if ahead is None else self._with(self._blocks.ahead(ahead))
        count = len(window)
        if not count:
            return 0.0
        level = lufs(kernel().gated_mean(window.ctypes.data, count, _RELATIVE_GATE, GATES))
        return (target_lufs - level) * count / (count + self._doubt)

    def recent_lufs(self) -> float:
        """Loudness of the last RECENT blocks."""
        recent = self._window[-RECENT:]
        return lufs(_sum(recent) / len(recent)) if len(recent) else -np.inf

    @property
    def is_steady(self) -> bool:
        """Whether it sounds like noise that never pauses."""
        half = len(self._window) // 2
        if half < STEADY_BLOCKS // 2:
            return False
        parted = np.partition(self._window, half)
        return _sum(parted[half:]) < _sum(parted[:half]) * 10 ** (STEADY_DB / 10)

    def move(self, wanted_db: float, *, rise_db: float, fall_db: float) -> tuple[float, float]:
        """Gains at the beginning and the end of the next frame, dB: towards what is wanted, at most so far."""
        before = self._gain_db
        if before is None or not self._sounded:
            before = wanted_db
        close = abs(wanted_db - before) < STILL_DB
        self._gain_db = before if close else min(max(wanted_db, before - fall_db), before + rise_db)
        self._sounded = True
        return before, self._gain_db

    def rest(self) -> None:
        """A frame without sound: after it the gain is free."""
        self._sounded = False

    def save(self) -> LevelState:
        """The state, for `load`."""
        return LevelState(tuple(self._window.tolist()), self._blocks.save(), self._gain_db, self._sounded)

    def load(self, state: LevelState) -> None:
        """Go on from there."""
        self._window = np.array(state.window)
        self._blocks = Blocks.load(state.hops)
        self._gain_db, self._sounded = state.gain_db, state.sounded


def _sum(powers: Powers) -> float:
    return float(np.add.reduce(powers))


def voice_level() -> Level:
    """The level of one voice."""
    return Level(window=VOICE_WINDOW, gate_lufs=VOICE_GATE_LUFS, doubt=DOUBT)


def aim_voice(level: Level) -> float:
    """The gain that a voice should have, dB: to the target, and down at once where it shouts."""
    wanted = min(level.wanted_db(TARGET_LUFS), TARGET_LUFS + SHOUT_LU - level.recent_lufs())
    most = STEADY_GAIN_DB if wanted > STEADY_GAIN_DB and level.is_steady else MOST_GAIN_DB
    return min(max(wanted, -MOST_GAIN_DB), most)


def mix_level(*, levelled: bool) -> Level:
    """The level of the sum of the voices."""
    return Level(window=MIX_WINDOW if levelled else LONG_WINDOW, gate_lufs=MIX_GATE_LUFS, doubt=0)


def aim_mix(level: Level, meter: Meter, ahead: Powers) -> float:
    """The gain that the mix should have, dB: by what comes, corrected by what the meter says of what came out."""
    wanted = level.wanted_db(TARGET_LUFS, ahead=ahead)
    if meter.blocks >= SETTLED_BLOCKS:
        pull = FEEDBACK * min(meter.blocks / FEEDBACK_BLOCKS, 1.0)
        missing = (TARGET_LUFS - meter.integrated_lufs()) * pull
        wanted += min(max(missing, -MOST_FEEDBACK_DB), MOST_FEEDBACK_DB)
    return min(max(wanted, -MOST_GAIN_DB), MOST_GAIN_DB)
