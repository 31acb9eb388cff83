"""People in one room are laid onto each other, and nobody else is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.clock import TICKS_PER_SECOND
from contracts.errors import MalformedError
from contracts.packets import Outcome, decode_batch, encode_batch
from contracts.recipes import Recipe, encode_recipe
from contracts.subjects import PacketSubject, parse
from mixer.engine import engine_string
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.logfile import write_log
from mixer.opus import Samples, decode_packets
from mixer.render import Order, Rendered, render
from mixer.same_room import lag_of, shifts
from tests.builders import Built, build_session, encode_opus, replay_of, speech_samples
from tests.judge import decode_file

SECONDS = 60.0
BEGIN_S, END_S = 0.5, 59.5
LATE_MS = 30  # one of the two in the room has a longer way to the recorder
PATH_MS = 3  # a metre of air
BLEED = 0.1  # -20 dB


def later(samples: Samples, milliseconds: float) -> Samples:
    ticks = round(milliseconds * TICKS_PER_SECOND / 1000)
    return np.concatenate((np.zeros((ticks, 1), np.float32), samples[: len(samples) - ticks]))


def noise(ticks: int, seed: int) -> Samples:
    return (np.random.default_rng(seed).standard_normal((ticks, 1)) * 1e-3).astype(np.float32)


def turns(seconds: float, *own: bool) -> Samples:
    """Speech in every other part."""
    said = speech_samples(seconds)
    return said * np.repeat(own, len(said) // len(own)).astype(np.float32).reshape(-1, 1)


def in_one_room(seconds: float, path_ms: float = PATH_MS) -> tuple[Samples, Samples]:
    """What two microphones hear of two people who take turns."""
    one, other = turns(seconds, True, False, True, False), np.roll(turns(seconds, True, False, True, False), -7, axis=0)
    other = np.roll(other, round(seconds / 4 * TICKS_PER_SECOND), axis=0)
    ticks = len(one)
    return (
        one + BLEED * later(other, path_ms) + noise(ticks, 1),
        other + BLEED * later(one, path_ms) + noise(ticks, 2),
    )


def heard(samples: Samples) -> Samples:
    """Through a codec."""
    return decode_packets(encode_opus(samples))


@pytest.mark.parametrize("late_ms", [-40.0, 0.0, 12.5, 49.0])
def test_a_lag_is_found_through_the_codec(late_ms: float):
    """Of the one who speaks in the other's microphone."""
    own = speech_samples(10.0) + noise(10 * TICKS_PER_SECOND, 1)
    bleed = BLEED * speech_samples(10.0) + noise(10 * TICKS_PER_SECOND, 2)
    one, other = (later(own, late_ms), bleed) if late_ms > 0 else (own, later(bleed, -late_ms))
    found = lag_of(heard(one), heard(other))
    assert found is not None
    assert found * 1000 == pytest.approx(late_ms, abs=0.05)


def test_an_echo_from_a_loudspeaker_is_no_room():
    """As sharp, but late: it tells of the way there and back."""
    own = speech_samples(10.0)
    for echo_ms in (120, 200, 313):
        assert lag_of(heard(own), heard(BLEED * later(own, echo_ms) + noise(len(own), 2))) is None


def test_people_who_are_apart_agree_in_nothing():
    said = speech_samples(40.0)
    parts = np.array_split(said, 4)
    for one, other in ((0, 1), (1, 2), (0, 3)):
        assert lag_of(heard(parts[one]), heard(parts[other])) is None
    assert lag_of(np.zeros_like(said), said) is None


def test_a_hum_is_no_room():
    """Of two fans in two rooms, with and without somebody who speaks."""
    at_s = np.arange(10 * TICKS_PER_SECOND).reshape(-1, 1) / TICKS_PER_SECOND
    hums = [
        sum(0.02 / number * np.sin(2 * np.pi * 50 * number * at_s + phase) for number in range(1, 20)).astype(
            np.float32
        )
        for phase in (0.3, 1.9)
    ]
    assert lag_of(heard(hums[0]), heard(hums[1])) is None
    said = np.array_split(speech_samples(20.0), 2)
    assert lag_of(heard(hums[0] + said[0]), heard(hums[1] + said[1])) is None


def test_a_room_of_three_fits_and_its_mean_stays():
    """All pairs together; sounds are given as they were, nobody's way through the air in them."""
    late_ms = {"a": 0, "b": 24, "c": -9, "d": 13}
    sounds = {
        person: later(speech_samples(60.0) + noise(60 * TICKS_PER_SECOND, seed), 20 + late)
        for seed, (person, late) in enumerate(late_ms.items())
    }
    sounds["d"] = np.roll(speech_samples(60.0), 1_000_000, axis=0)  # sits elsewhere
    activity = {person: np.full(60, 50) for person in sounds}
    found = shifts(activity, lambda person, start, stop: sounds[person][start:stop])
    assert {person: ticks / 48 for person, ticks in found.items()} == pytest.approx(
        {"a": -5, "b": 19, "c": -14}, abs=0.1
    )


def test_who_does_not_send_at_the_same_time_is_not_compared():
    sounds = speech_samples(60.0)
    activity = {"a": np.repeat([50, 0], 30), "b": np.repeat([0, 50], 30)}

    def hear(_person: str, _start: int, _stop: int) -> Samples:
        raise AssertionError("nothing is to be heard")

    assert shifts(activity, hear) == {}
    assert shifts({"a": activity["a"]}, hear) == {}
    assert shifts({}, hear) == {}
    assert shifts({"a": np.full(4, 50), "b": np.full(4, 50)}, lambda *_: sounds) == {}


def test_windows_that_disagree_move_nobody():
    """A sender's clock that steps: there is no one lag."""
    own = speech_samples(60.0)
    stepping = np.concatenate([later(part, 5 * number) for number, part in enumerate(np.array_split(own, 6))])
    sounds = {"a": own, "b": stepping}
    activity = {person: np.full(60, 50) for person in sounds}
    assert shifts(activity, lambda person, start, stop: sounds[person][start:stop]) == {}


def with_voices(built: Built, voices: list[Samples], late_ms: list[int]) -> Built:
    """The same session, with these voices, each that much later at the recorder."""
    packets = {person.ssrc: iter(encode_opus(voice)) for person, voice in zip(built.people, voices, strict=True)}
    late = {person.ssrc: milliseconds for person, milliseconds in zip(built.people, late_ms, strict=True)}
    messages = []
    for message in built.messages:
        if isinstance(parse(message.subject), PacketSubject):
            batch = decode_batch(message.data)
            said = tuple(
                msgspec.structs.replace(packet, payload=next(packets[batch.ssrc]))
                if packet.outcome == Outcome.VOICE
                else packet
                for packet in batch.packets
            )
            base_ns = batch.base_ns + late[batch.ssrc] * 1_000_000
            data = encode_batch(msgspec.structs.replace(batch, packets=said, base_ns=base_ns))
            messages.append(msgspec.structs.replace(message, data=data))
        else:
            messages.append(message)
    return msgspec.structs.replace(built, messages=messages)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    """Two at one table, and one who is elsewhere."""
    plain = build_session(SECONDS, 3, seed=4, plan=[[(BEGIN_S, END_S)]] * 3)
    elsewhere = np.roll(speech_samples(SECONDS), 900_000, axis=0)
    built = with_voices(plain, [*in_one_room(SECONDS), elsewhere], [0, LATE_MS, 50])
    log = tmp_path_factory.mktemp("room") / "log"
    asyncio.run(write_log(log, built.session, replay_of(built.messages)))
    return log, built


def rendered(table: tuple[Path, Built], folder: Path, recipe: Recipe) -> Rendered:
    log, built = table
    ffmpeg = find_ffmpeg()
    order = Order(
        session=built.session, recipe=recipe, log_end=len(built.messages), engine=engine_string(ffmpeg), ffmpeg=ffmpeg
    )
    return render(log, order, folder)


@pytest.mark.parametrize("same_room", [False, True])
def test_nobody_at_the_table_is_an_echo(table: tuple[Path, Built], tmp_path: Path, *, same_room: bool):
    """In the files: without it one is LATE_MS behind; with it, each is in the other's after the air's way."""
    done = rendered(table, tmp_path, Recipe(output="tracks", format="wav", same_room=same_room))
    one, other, _ = (decode_file(Path(file.path)) for file in done.files)
    seconds = [slice(begin * TICKS_PER_SECOND, (begin + 10) * TICKS_PER_SECOND) for begin in (3, 18)]
    lags_ms = [(lag_of(one[part], other[part]) or 0) * 1000 for part in seconds]
    base_ms = 0 if same_room else -LATE_MS
    assert lags_ms == pytest.approx([base_ms - PATH_MS, base_ms + PATH_MS], abs=0.3)
    told = {speaker.user_id: speaker.same_room_ms for speaker in done.speakers}
    half_ms = LATE_MS / 2 if same_room else 0
    assert list(told.values()) == pytest.approx([-half_ms, half_ms, 0], abs=0.3)


def test_who_is_heard_does_not_change_where(table: tuple[Path, Built], tmp_path: Path):
    """A track alone is the track among the others."""
    everybody = rendered(table, tmp_path, Recipe(output="tracks", format="wav", same_room=True))
    second = table[1].people[1].user_id
    alone = rendered(table, tmp_path, Recipe(output="tracks", format="wav", same_room=True, people=(second,)))
    assert alone.files[0].sha256 == next(file.sha256 for file in everybody.files if file.user_id == second)


def test_the_recipe_has_one_spelling_and_names_what_does_not_go_together():
    """And the name of a recipe without it is what it was."""
    assert b"same_room" not in encode_recipe(Recipe())
    assert encode_recipe(Recipe(same_room=True)) == encode_recipe(Recipe(same_room=True, alignment="hindsight"))
    assert Recipe(same_room=True).aligns_by == "hindsight"
    for alignment in ("follow", "arrival"):
        with pytest.raises(MalformedError, match=r"same_room.*hindsight"):
            Recipe(same_room=True, alignment=alignment)
    with pytest.raises(MalformedError, match="same_room"):
        Recipe(output="report", format="json", alignment="hindsight", same_room=True)
