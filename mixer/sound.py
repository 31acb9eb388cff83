"""How a mix sounds: voices in, finished sound out. A fold over blocks of any size, with savable state.

    blocks -> frames of a second -> gate -> level of each voice -> sum -> loudness of the mix -> limiter -> blocks

What comes out does not depend on where blocks were cut: everything is done by frames that begin with the fold. It lags
LOOKAHEAD_FRAMES and one behind: three seconds. A voice that is silent in a frame costs nothing there.
All sound is mono, float32 (samples, 1), range [-1, 1], 48 kHz.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec
import numpy as np

from mixer import levels
from mixer.gate import Gate
from mixer.kernel import kernel
from mixer.levels import Level, LevelState
from mixer.limiter import FRAME_TICKS, Limiter, LimiterState
from mixer.loudness import HOP_TICKS, Blocks, Meter, Powers, hop_powers
from mixer.opus import Samples

Frame: TypeAlias = dict[str, Samples]
Gains: TypeAlias = tuple[float, float]  # at the beginning and at the end of a frame, dB

LAG_TICKS: Final = (levels.LOOKAHEAD_FRAMES + 1) * FRAME_TICKS  # how far what comes out is behind what goes in
_HOPS: Final = FRAME_TICKS // HOP_TICKS
_NO_POWER: Final = np.zeros(_HOPS)
_SPARSE: Final = 997


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to voices.

    Attributes
    ----------
    levelling
        Whether each is brought to the target.
    loudness
        `followed`: the sum is, too; `fixed`: it has `fixed_db`.
    ceiling_dbtp
        Where the limiter stands, true peak; None = there is none.
    gate_db
        Threshold of the noise gate, dBFS; None = there is none.
    gain_db
        What a person asked for, per voice; after levelling.
    """

    levelling: bool
    loudness: Literal["followed", "fixed"]
    ceiling_dbtp: float | None
    fixed_db: float = 0.0
    gate_db: float | None = None
    gain_db: dict[str, float] = {}


class SoundState(msgspec.Struct, frozen=True, array_like=True):
    """A fold between two blocks; sound as float32."""

    pushed: int
    given: int
    partial: dict[str, bytes]
    waiting: tuple[dict[str, bytes], ...]
    fading: tuple[str, ...]
    voices: dict[str, LevelState]
    gates: dict[str, list[bool]]
    mix: LevelState
    limiter: LimiterState | None
    blocks: list[float]
    meter: list[tuple[int, int, float]]


class SoundFold:
    """The fold. `push` blocks in order, then `flush` once.

    Attributes
    ----------
    meter
        Loudness of what came out so far; it hears nothing where no loudness is asked for.
    """

    def __init__(self, sound: Sound) -> None:
        self._sound = sound
        self._listens = sound.levelling or sound.loudness == "followed" or sound.fixed_db != 0
        self._pushed = 0  # ticks
        self._given = 0
        self._partial: Frame = {}  # of the frame that is being filled
        self._waiting: list[tuple[Frame, dict[str, Powers]]] = []
        self._fading: set[str] = set()  # who sounded in the last frame
        self._voices: dict[str, Level] = {}
        self._aims: dict[str, float] = {}  # the gains they should have, dB
        self._gates: dict[str, Gate] = {}
        self._mix = levels.mix_level(levelled=sound.levelling)
        self._limiter = None if sound.ceiling_dbtp is None else Limiter(10 ** (sound.ceiling_dbtp / 20))
        self._blocks = Blocks()
        self.meter = Meter()

    @property
    def loudness_lufs(self) -> float | None:
        """Integrated loudness of what came out so far; None if it was not listened to, or is silence."""
        found = self.meter.integrated_lufs()
        return round(found, 2) if np.isfinite(found) else None

    @property
    def peak_dbtp(self) -> float | None:
        """The largest true peak that came out, dB; None without a limiter, or if all was silence."""
        peak = 0.0 if self._limiter is None else self._limiter.peak
        return round(20 * float(np.log10(peak)), 2) if peak else None

    def push(self, voices: Mapping[str, Samples], ticks: int) -> Samples:
        """Take the next `ticks` of the voices that sound there; give what is finished, (samples, 1), often none."""
        done: list[Samples] = []
        at = 0
        while at < ticks:
            filled = self._pushed % FRAME_TICKS
            size = min(FRAME_TICKS - filled, ticks - at)
            for name, samples in voices.items():
                self._fill(name, samples[at : at + size], filled)
            self._pushed += size
            at += size
            if filled + size == FRAME_TICKS:
                done += self._take(self._partial)
                self._partial = {}
        return self._give(done)

    def flush(self) -> Samples:
        """The rest, so that as much came out as went in."""
        done = self._take(self._partial) if self._pushed % FRAME_TICKS else []
        self._partial = {}
        total = self._pushed
        while self._given + sum(map(len, done)) < total:
            done += self._take({})
        rest = self._give(done)
        return rest[: len(rest) - (self._given - total)]

    def _give(self, done: list[Samples]) -> Samples:
        self._given += sum(map(len, done))
        if len(done) == 1:
            return done[0]
        return np.concatenate(done) if done else np.zeros((0, 1), dtype=np.float32)

    def _fill(self, name: str, samples: Samples, at: int) -> None:
        if len(samples) == FRAME_TICKS:
            self._partial[name] = samples
        elif len(samples):
            frame = self._partial.setdefault(name, np.zeros((FRAME_TICKS, 1), dtype=np.float32))
            frame[at : at + len(samples)] = samples

    def _take(self, frame: Frame) -> list[Samples]:
        """One frame in, what gets finished by it out: none or one."""
        frame = {name: frame[name] for name in sorted(frame) if _sounds(frame[name])}
        self._waiting.append((frame, self._listen(frame)))
        if len(self._waiting) <= levels.LOOKAHEAD_FRAMES:
            return []
        return self._limit(self._sum())

    def _listen(self, frame: Frame) -> dict[str, Powers]:
        """Hear the voices of a frame that comes out LOOKAHEAD_FRAMES later."""
        powers = self._powers(frame)
        for name in self._fading - powers.keys():
            self._hear(name, _NO_POWER)
        self._fading = set(powers)
        for name, heard in powers.items():
            self._hear(name, heard)
        return powers

    def _hear(self, name: str, powers: Powers) -> None:
        level = self._voices.get(name)
        if level is None:
            level = self._voices[name] = levels.voice_level()
        level.hear(powers)
        self._aims[name] = levels.aim_voice(level) if self._sound.levelling else 0.0

    def _powers(self, frame: Frame) -> dict[str, Powers]:
        return {name: hop_powers(samples) for name, samples in frame.items()} if self._listens else {}

    def _sum(self) -> Samples | None:
        """The first frame's voices at their gains, summed."""
        frame, powers = self._waiting.pop(0)
        for name in self._voices.keys() - frame.keys():
            self._voices[name].rest()
        for name in self._gates.keys() - frame.keys():
            self._gates[name].rest()
        if not frame:
            self._mix.rest()
            self._mix.hear(_NO_POWER)
            return None
        gains = {name: self._voice_gains(name) for name in frame}
        mix = self._mix_gains(powers, gains)
        total = self._silence()
        for name, samples in frame.items():
            gated = self._gated(name, samples)
            if gated is not None:
                _add(total, gated, gains[name][0] + mix[0], gains[name][1] + mix[1])
        return total

    def _voice_gains(self, name: str) -> Gains:
        asked = self._sound.gain_db.get(name, 0.0)
        if not self._sound.levelling:
            return asked, asked
        rise, fall = levels.RISE_DB_PER_S, levels.FALL_DB_PER_S
        first, last = self._voices[name].move(self._aims[name], rise_db=rise, fall_db=fall)
        return first + asked, last + asked

    def _mix_gains(self, powers: dict[str, Powers], gains: dict[str, Gains]) -> Gains:
        """By the loudness that the sum has and will have: voices are strangers, so that their powers add up."""
        if self._sound.loudness == "fixed":
            return self._sound.fixed_db, self._sound.fixed_db
        now = _sum_powers(powers, {name: (first + last) / 2 for name, (first, last) in gains.items()})
        asked = self._sound.gain_db
        aims = {name: aim + asked.get(name, 0.0) for name, aim in self._aims.items()}
        coming = [_sum_powers(later, aims) for _, later in self._waiting]
        most = levels.MOST_MIX_DB if self._sound.levelling else levels.MOST_GAIN_DB
        wanted = min(levels.aim_mix(self._mix, self.meter, np.concatenate((now, *coming))), most)
        self._mix.hear(now)
        return self._mix.move(wanted, rise_db=levels.MIX_RISE_DB_PER_S, fall_db=levels.MIX_FALL_DB_PER_S)

    def _gated(self, name: str, samples: Samples) -> Samples | None:
        if self._sound.gate_db is None:
            return samples
        gate = self._gates.setdefault(name, Gate(self._sound.gate_db))
        return gate.frame(samples, self._waiting[0][0].get(name))

    def _limit(self, total: Samples | None) -> list[Samples]:
        if self._limiter is None:
            return [self._silence() if total is None else total]
        limited, was_held = self._limiter.frame(total)
        if not was_held:
            return []
        if self._listens:
            self.meter.add(self._blocks.add(_NO_POWER if limited is None else hop_powers(limited)))
        return [self._silence() if limited is None else limited]

    @staticmethod
    def _silence() -> Samples:
        return np.zeros((FRAME_TICKS, 1), dtype=np.float32)

    def save(self) -> SoundState:
        """The state, for `load`."""
        return SoundState(
            pushed=self._pushed,
            given=self._given,
            partial=_to_bytes(self._partial),
            waiting=tuple(_to_bytes(frame) for frame, _ in self._waiting),
            fading=tuple(sorted(self._fading)),
            voices={name: level.save() for name, level in self._voices.items()},
            gates={name: gate.save() for name, gate in self._gates.items()},
            mix=self._mix.save(),
            limiter=None if self._limiter is None else self._limiter.save(),
            blocks=self._blocks.save(),
            meter=self.meter.save(),
        )

    def load(self, state: SoundState) -> None:
        """Go on from there."""
        self._pushed, self._given = state.pushed, state.given
        self._partial = _from_bytes(state.partial)
        waiting = [_from_bytes(frame) for frame in state.waiting]
        self._waiting = [(frame, self._powers(frame)) for frame in waiting]
        self._fading = set(state.fading)
        for name, level in state.voices.items():
            self._voices.setdefault(name, levels.voice_level()).load(level)
            self._aims[name] = levels.aim_voice(self._voices[name]) if self._sound.levelling else 0.0
        for name, gate in state.gates.items():
            self._gates.setdefault(name, Gate(self._sound.gate_db or 0.0)).load(gate)
        self._mix.load(state.mix)
        if self._limiter is not None and state.limiter is not None:
            self._limiter.load(state.limiter)
        self._blocks, self.meter = Blocks.load(state.blocks), Meter.load(state.meter)


def _sum_powers(powers: dict[str, Powers], gains_db: dict[str, float]) -> Powers:
    total = _NO_POWER.copy()
    for name, heard in powers.items():
        total += heard * 10 ** (gains_db[name] / 10)
    return total


def _sounds(samples: Samples) -> bool:
    """Whether anything is not zero; speech shows it at one of the first samples that are looked at."""
    return bool(samples[::_SPARSE].any() or samples.any())


def _add(total: Samples, samples: Samples, first_db: float, last_db: float) -> None:
    """Add a frame with a gain that runs straight from one to the other, in place."""
    first, last = 10 ** (first_db / 20), 10 ** (last_db / 20)
    samples = np.ascontiguousarray(samples)
    step = (last - first) / FRAME_TICKS
    kernel().add(samples.ctypes.data, total.ctypes.data, FRAME_TICKS, first, step)


def _to_bytes(frame: Frame) -> dict[str, bytes]:
    return {name: samples.tobytes() for name, samples in frame.items()}


def _from_bytes(frame: dict[str, bytes]) -> Frame:
    return {name: np.frombuffer(data, dtype=np.float32).reshape(-1, 1).copy() for name, data in frame.items()}
