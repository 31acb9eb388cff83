"""How a mix sounds: as loud as it should be, voices alike, and the same however it was cut."""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.clock import TICKS_PER_SECOND
from mixer.levels import TARGET_LUFS
from mixer.sound import LAG_TICKS, Sound, SoundFold, SoundState
from mixer.survey import Survey
from tests.builders import speech_samples
from tests.ebur128 import Measured, measure

FOLLOWED_LU = 1.0  # EBU R128 for live programmes
EXACT_LU = 0.5
SHORT_LU = 1.0
LIMIT_DBTP = -1.0
CEILING_DBTP = -1.2  # what a render asks for: meters of true peaks differ
FOLLOWED = Sound(levelling=True, loudness="followed", ceiling_dbtp=CEILING_DBTP)
UNLEVELLED = Sound(levelling=False, loudness="followed", ceiling_dbtp=CEILING_DBTP)
GATED = Sound(levelling=True, loudness="followed", ceiling_dbtp=CEILING_DBTP, gate_db=-45.0)

Voices = dict[str, np.ndarray]


def talk(seconds: float, activity: float, gain_db: float, seed: int, longest_s: float = 6.0) -> np.ndarray:
    """Speech in utterances, with pauses between; float32 (samples, 1)."""
    chance = np.random.default_rng(seed)
    speech = speech_samples(30.0)
    out = np.zeros((round(seconds * TICKS_PER_SECOND), 1), dtype=np.float32)
    at, read = round(chance.uniform(0, 1.5) * TICKS_PER_SECOND), int(chance.integers(len(speech)))
    while at < len(out):
        length = round(chance.uniform(0.8, longest_s) * TICKS_PER_SECOND)
        part = np.take(speech, np.arange(read, read + length), axis=0, mode="wrap")[: len(out) - at]
        out[at : at + len(part)] = part
        read += length
        at += length + round(0.3 * TICKS_PER_SECOND + chance.exponential(length * (1 / activity - 1)))
    return np.clip(out * np.float32(10 ** (gain_db / 20)), -1, 1)


def music(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * TICKS_PER_SECOND)) / TICKS_PER_SECOND
    turns = 2 * np.pi * time
    chord = sum(np.sin(hz * turns) * (1 + np.sin(turns / (3 + hz / 200))) for hz in (110, 277, 660))
    return (0.08 * chord).astype(np.float32).reshape(-1, 1)


def noise(seconds: float) -> np.ndarray:
    chance = np.random.default_rng(1)
    return (0.02 * chance.standard_normal((round(seconds * TICKS_PER_SECOND), 1))).astype(np.float32)


@cache
def session(kind: str) -> Voices:
    """Sessions that are hard in different ways."""
    match kind:
        case "balanced":
            return {str(who): talk(90, 0.35, -6, who) for who in range(4)}
        case "one loud, one very quiet":
            return {"loud": talk(90, 0.4, 10, 1), "quiet": talk(90, 0.4, -18, 2)}
        case "sparse":
            return {str(who): talk(180, 0.03, -6 * who, who, 2.5) for who in range(2)}
        case "many speakers":
            return {str(who): talk(60, 0.15, -20 + who, who, 4.0) for who in range(16)}
        case "short call":
            return {"a": talk(8, 0.4, -14, 1, 2.0), "b": talk(8, 0.4, 0, 2, 2.0)}
        case _:
            return {"music": music(60), "noise": noise(60), "voice": talk(60, 0.2, -10, 3)}


KINDS = (
    "balanced",
    "one loud, one very quiet",
    pytest.param("sparse", marks=pytest.mark.long),
    "many speakers",
    "short call",
    "music and noise",
)


def fold(sound: Sound, voices: Voices, cuts: list[int] | None = None) -> tuple[np.ndarray, SoundFold]:
    """All of it through a fold, cut into blocks of these sizes, over and over."""
    made = SoundFold(sound)
    return np.concatenate([*pushes(made, voices, cuts or [TICKS_PER_SECOND]), made.flush()]), made


def pushes(made: SoundFold, voices: Voices, cuts: list[int]):
    at, turn, total = 0, 0, len(next(iter(voices.values())))
    while at < total:
        stop = min(at + cuts[turn % len(cuts)], total)
        blocks = {name: samples[at:stop] for name, samples in voices.items()}
        yield made.push({name: block for name, block in blocks.items() if block.any()}, stop - at)
        at, turn = stop, turn + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sound", [FOLLOWED, UNLEVELLED], ids=["levelled", "as it came"])
def test_a_followed_mix_has_its_loudness_by_another_meter(kind: str, sound: Sound):
    """-16 LUFS to 1 LU and at most -1 dBTP, without a second pass."""
    out, _ = fold(sound, session(kind))
    found = measure(out)
    assert found.loudness_lufs == pytest.approx(TARGET_LUFS, abs=FOLLOWED_LU)
    assert found.peak_dbtp <= LIMIT_DBTP


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("levelling", [True, False])
def test_an_exact_mix_has_its_loudness_by_another_meter(kind: str, levelling: bool):  # noqa: FBT001  # a case
    """-16 LUFS to 0.5 LU and at most -1 dBTP, by a first pass."""
    found = measure(exact(session(kind), levelling=levelling))
    assert found.loudness_lufs == pytest.approx(TARGET_LUFS, abs=EXACT_LU)
    assert found.peak_dbtp <= LIMIT_DBTP


def exact(voices: Voices, *, levelling: bool) -> np.ndarray:
    survey = Survey(CEILING_DBTP)
    bare = Sound(levelling=levelling, loudness="fixed", ceiling_dbtp=None)
    first = SoundFold(bare)
    for block in (*pushes(first, voices, [TICKS_PER_SECOND]), first.flush()):
        survey.add(block)
    return fold(msgspec.structs.replace(bare, ceiling_dbtp=CEILING_DBTP, fixed_db=survey.gain_db()), voices)[0]


def test_its_own_meter_agrees_with_the_other():
    out, made = fold(FOLLOWED, session("balanced"))
    found = measure(out)
    assert made.loudness_lufs == pytest.approx(found.loudness_lufs, abs=0.15)
    assert made.peak_dbtp == pytest.approx(found.peak_dbtp, abs=0.3)


def alone(voices: Voices, who: str, out: np.ndarray) -> Measured:
    """What is heard of the mix where only this person speaks."""
    others = sum(np.abs(samples) for name, samples in voices.items() if name != who)
    mask = (np.abs(voices[who]) > 0) & (others == 0)
    return measure(out[mask[:, 0]])


def test_a_loud_and_a_very_quiet_person_are_heard_alike():
    """28 dB apart in the room, at most 3 LU in the mix."""
    voices = session("one loud, one very quiet")
    out, _ = fold(FOLLOWED, voices)
    loud, quiet = (alone(voices, who, out).loudness_lufs for who in ("loud", "quiet"))
    assert abs(loud - quiet) <= 3.0


def test_silence_is_not_pumped_up():
    """The hiss of an open microphone gets no louder while its owner is silent: its gain is that of the voice before."""
    voice = talk(60, 0.5, -6, 4)
    hiss = noise(60) * np.float32(0.05)  # -60 dBFS
    voice[20 * TICKS_PER_SECOND : 50 * TICKS_PER_SECOND] = 0
    out, _ = fold(FOLLOWED, {"a": voice + hiss})
    early, late = (out[round(at * TICKS_PER_SECOND) : round((at + 2) * TICKS_PER_SECOND)] for at in (22, 47))
    assert np.abs(20 * np.log10(np.std(late) / np.std(early))) < 0.5
    assert np.std(late) < 0.01


def test_a_fan_is_not_turned_up_like_a_voice():
    """Steady noise beside a voice stays behind it, though the microphone sends it all the time."""
    fan = noise(60) * np.float32(0.2)  # -48 dBFS
    voice = talk(60, 0.5, 0, 3)
    out, _ = fold(FOLLOWED, {"fan": fan, "voice": voice})
    between = out[(voice == 0)[:, 0]][20 * TICKS_PER_SECOND :]
    assert 20 * np.log10(np.std(between)) < -38


@pytest.mark.parametrize("first_db", [-48, -38])
def test_who_breathes_into_the_microphone_first_does_not_shout_then(first_db: float):
    """20 s of an uneven murmur, then speech by the same person: its first seconds are as loud as the rest."""
    murmur = talk(20, 0.9, first_db + 24, 5, 1.5)
    voice = talk(40, 0.6, -3, 6)
    voice[: 20 * TICKS_PER_SECOND] = 0
    voice[: len(murmur)] += murmur
    out, _ = fold(FOLLOWED, {"a": voice})
    start = int(np.flatnonzero(np.abs(voice[:, 0]) > 0.1)[0])
    begun = measure(out[start : start + 4 * TICKS_PER_SECOND]).loudness_lufs
    assert begun == pytest.approx(TARGET_LUFS, abs=4.0)


def test_an_empty_room_is_silent():
    """Nothing in, nothing out, as long as it was; and no loudness is claimed."""
    made = SoundFold(FOLLOWED)
    out = np.concatenate((made.push({}, 100_001), made.flush()))
    assert len(out) == 100_001
    assert not out.any()
    assert (made.loudness_lufs, made.peak_dbtp) == (None, None)


def test_untouched_is_the_sum():
    """No levelling, no loudness: a mix that does not clip is the very sum of its voices."""
    voices = {name: samples * np.float32(0.2) for name, samples in session("balanced").items()}
    out, _ = fold(Sound(levelling=False, loudness="fixed", ceiling_dbtp=CEILING_DBTP), voices)
    total = np.zeros_like(out)
    for samples in voices.values():
        total += samples
    assert np.array_equal(out, total)


BASE = {"a": talk(12, 0.4, 8, 1, 3.0), "b": talk(12, 0.3, -20, 2, 3.0), "c": noise(12) * np.float32(0.1)}
SOUNDS = {"levelled": FOLLOWED, "gated": GATED}
WHOLE = {name: fold(sound, BASE)[0] for name, sound in SOUNDS.items()}


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(1, 200_000), min_size=1, max_size=6), name=st.sampled_from(sorted(SOUNDS)))
def test_the_result_does_not_depend_on_where_blocks_are_cut(cuts: list[int], name: str):
    """Byte for byte."""
    cuts = [max(cut, 500) for cut in cuts]
    assert np.array_equal(fold(SOUNDS[name], BASE, cuts)[0], WHOLE[name])


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(5_000, 150_000), min_size=1, max_size=4), name=st.sampled_from(sorted(SOUNDS)))
def test_a_fold_goes_on_from_its_state(cuts: list[int], name: str):
    """Saved, sent over a wire and loaded into a new fold after every block: the same bytes."""
    sound = SOUNDS[name]
    made, found, at, turn = SoundFold(sound), [], 0, 0
    while at < len(BASE["a"]):
        stop = min(at + cuts[turn % len(cuts)], len(BASE["a"]))
        found.append(made.push({who: samples[at:stop] for who, samples in BASE.items()}, stop - at))
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(made.save()), type=SoundState)
        made = SoundFold(sound)
        made.load(state)
        at, turn = stop, turn + 1
    assert np.array_equal(np.concatenate([*found, made.flush()]), WHOLE[name])


def test_the_fold_looks_three_seconds_ahead():
    """What goes in more than LAG_TICKS later changes nothing."""
    made, other = SoundFold(FOLLOWED), SoundFold(FOLLOWED)
    loud = {name: samples[: 6 * TICKS_PER_SECOND] for name, samples in BASE.items()}
    first = made.push(loud, 6 * TICKS_PER_SECOND)
    assert len(first) == 6 * TICKS_PER_SECOND - LAG_TICKS
    assert np.array_equal(first, np.concatenate(list(pushes(other, loud, [TICKS_PER_SECOND]))))


def test_the_gate_mutes_the_room_and_keeps_the_words():
    """Hiss between words is gone, speech stays as it was."""
    voice, hiss = talk(20, 0.5, 0, 6), noise(20) * np.float32(0.05)
    gated = Sound(levelling=False, loudness="fixed", ceiling_dbtp=None, gate_db=-50.0)
    out, _ = fold(gated, {"a": voice + hiss})
    steps = (voice + hiss).reshape(-1, 480)
    loud = np.sqrt(np.square(steps).mean(axis=1)) > 10 ** (-50 / 20)
    near = np.convolve(loud, np.ones(61), mode="same") > 0
    kept = out.reshape(-1, 480)
    assert not kept[~near].any()
    assert np.array_equal(kept[loud], steps[loud])
    assert (~near).sum() > 100
