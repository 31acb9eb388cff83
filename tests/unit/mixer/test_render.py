"""A render: the log and a recipe in, files that sound where the plan says out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from contracts.clock import TICKS_PER_SECOND
from contracts.packets import Outcome, decode_batch, encode_batch
from contracts.recipes import Recipe
from mixer.engine import engine_string
from mixer.errors import RequestError
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.logfile import write_log
from mixer.render import Order, Rendered, RenderedFile, render
from tests.builders import Built, Network, build_session, replay_of
from tests.ebur128 import measure
from tests.judge import decode_file, tone_level, verdicts

SECONDS = 12.0
PLAN = [[(1.0, 4.0), (7.5, 10.5)], [(3.0, 8.0)]]
SAME_S = 0.002  # the Opus copy stands on a grid of 2.5 ms: at most half of it off
MP3_LEVEL = 0.02  # of an amplitude of 0.2: what MP3 at 128 kbit/s may change


def make(built: Built, recipe: Recipe, directory: Path) -> Rendered:
    """The session's files by one recipe."""
    directory.mkdir(parents=True, exist_ok=True)
    asyncio.run(write_log(directory / "log", built.session, replay_of(built.messages)))
    return render(directory / "log", order_of(built, recipe), directory)


def order_of(built: Built, recipe: Recipe) -> Order:
    ffmpeg = find_ffmpeg()
    return Order(
        session=built.session,
        recipe=recipe,
        log_end=len(built.messages),
        engine=engine_string(ffmpeg),
        ffmpeg=ffmpeg,
    )


def read(file: RenderedFile) -> np.ndarray:
    return decode_file(Path(file.path))


@pytest.fixture(scope="module")
def built() -> Built:
    return build_session(SECONDS, 2, seed=3, plan=PLAN, network=Network(jitter_ms=3))


def test_what_says_to_be_a_year_long_is_refused(tmp_path: Path):
    """Not made: a damaged log must not fill the disk, nor the memory."""
    built = build_session(5.0, 1, seed=3, end=False)
    last = built.messages[-1]
    late = msgspec.structs.replace(decode_batch(last.data), base_ns=365 * 86_400 * 10**9, number=99)
    messages = [*built.messages, msgspec.structs.replace(last, data=encode_batch(late), message_id="99")]
    year = msgspec.structs.replace(built, messages=messages)
    for kind in ("opus", "flac"):
        with pytest.raises(RequestError, match="365 days are too long"):
            make(year, Recipe(output="tracks", format=kind), tmp_path)
    part = make(year, Recipe(output="tracks", format="opus", stop_tick=5 * 48_000), tmp_path)
    assert len(part.files) == 1


@pytest.mark.parametrize("kind", ["flac", "opus", "mp3", "wav"])
def test_each_person_sounds_where_the_plan_says_and_is_silent_elsewhere(built: Built, tmp_path: Path, kind: str):
    rendered = make(built, Recipe(output="tracks", format=kind), tmp_path)
    assert [file.user_id for file in rendered.files] == [person.user_id for person in built.people]
    for file, person in zip(rendered.files, built.people, strict=True):
        assert verdicts(read(file), person.spoke) == []


@pytest.mark.parametrize("kind", ["flac", "opus", "mp3", "wav"])
def test_mix_and_tracks_are_exactly_as_long_as_the_session(built: Built, tmp_path: Path, kind: str):
    for output in ("mix", "tracks"):
        for file in make(built, Recipe(output=output, format=kind), tmp_path).files:
            assert file.duration_ticks == SECONDS * TICKS_PER_SECOND
            assert len(read(file)) == file.duration_ticks


def test_the_mix_holds_every_voice(built: Built, tmp_path: Path):
    pcm = read(make(built, Recipe(loudness="off", levelling=False), tmp_path).files[0])
    both = pcm[int(3.3 * TICKS_PER_SECOND) : int(3.9 * TICKS_PER_SECOND)]
    for person in built.people:
        assert tone_level(both, person.tone_hz) == pytest.approx(0.2, abs=MP3_LEVEL)


def test_the_opus_copy_and_the_decoded_track_agree_in_time(built: Built, tmp_path: Path):
    flac = [read(file) for file in make(built, Recipe(output="tracks", format="flac"), tmp_path).files]
    opus = [read(file) for file in make(built, Recipe(output="tracks", format="opus"), tmp_path).files]
    for decoded, copied in zip(flac, opus, strict=True):
        assert len(onsets(decoded)) == len(onsets(copied)) > 0
        assert np.abs(onsets(decoded) - onsets(copied)).max() <= SAME_S


def onsets(pcm: np.ndarray) -> np.ndarray:
    """Seconds where sound begins after half a second without."""
    loud = np.flatnonzero(np.abs(pcm[:, 0]) > 0.1) / TICKS_PER_SECOND
    return loud[np.concatenate(([True], np.diff(loud) > 0.5))]


def test_the_same_log_recipe_and_engine_give_the_same_bytes(built: Built, tmp_path: Path):
    for kind in ("flac", "opus", "mp3", "wav"):
        for output in ("mix", "tracks"):
            recipe = Recipe(output=output, format=kind)
            first, second = (make(built, recipe, tmp_path / side) for side in ("one", "two"))
            assert [(f.name, f.sha256) for f in first.files] == [(f.name, f.sha256) for f in second.files]


def test_another_process_gives_the_same_bytes(built: Built, tmp_path: Path):
    """Nothing hidden in a process (hash seeds, caches) decides a byte."""
    here = make(built, Recipe(output="tracks", format="opus"), tmp_path).files
    order = order_of(built, Recipe(output="tracks", format="opus"))
    (tmp_path / "other").mkdir()
    script = (
        "import sys, msgspec, pathlib; from mixer.render import Order, render;"
        "order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order);"
        f"log, out = pathlib.Path({str(tmp_path / 'log')!r}), pathlib.Path({str(tmp_path / 'other')!r});"
        "print(' '.join(file.sha256 for file in render(log, order, out).files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=msgspec.json.encode(order), capture_output=True, check=True
    )
    assert done.stdout.decode().split() == [file.sha256 for file in here]


def test_another_recipe_has_another_name(built: Built, tmp_path: Path):
    names = {make(built, recipe, tmp_path).files[0].name for recipe in (Recipe(), Recipe(bitrate_kbps=192))}
    assert len(names) == 2


def test_a_gain_changes_only_its_person(built: Built, tmp_path: Path):
    first, second = built.people
    recipe = Recipe(format="flac", gain_db={first.user_id: -20.0}, loudness="off", levelling=False)
    both = read(make(built, recipe, tmp_path).files[0])[int(3.3 * TICKS_PER_SECOND) : int(3.9 * TICKS_PER_SECOND)]
    assert tone_level(both, first.tone_hz) == pytest.approx(0.02, rel=0.1)
    assert tone_level(both, second.tone_hz) == pytest.approx(0.2, rel=0.1)


def test_a_gain_counts_on_top_of_levelling(built: Built, tmp_path: Path):
    """Who is asked to be 6 dB louder is 6 dB louder than the others, however loud they came."""
    first, second = built.people
    recipe = Recipe(format="flac", gain_db={first.user_id: 6.0})
    both = read(make(built, recipe, tmp_path).files[0])[int(3.3 * TICKS_PER_SECOND) : int(3.9 * TICKS_PER_SECOND)]
    ratio_db = 20 * np.log10(tone_level(both, first.tone_hz) / tone_level(both, second.tone_hz))
    assert ratio_db == pytest.approx(6.0, abs=1.0)  # the two tones weigh a little differently to the ear


def test_what_was_measured_stands_beside_the_file(built: Built, tmp_path: Path):
    """Loudness and peak of a mix, as another meter finds them in the file; none for a track that is left as it is."""
    file = make(built, Recipe(format="flac"), tmp_path).files[0]
    found = measure(Path(file.path))
    assert file.loudness_lufs == pytest.approx(found.loudness_lufs, abs=0.15)
    assert file.peak_dbtp == pytest.approx(found.peak_dbtp, abs=0.3)
    track = make(built, Recipe(output="tracks", format="flac"), tmp_path).files[0]
    assert (track.loudness_lufs, track.peak_dbtp) == (None, None)


def test_a_muted_person_is_not_heard_and_has_no_track(built: Built, tmp_path: Path):
    first, second = built.people
    mix = read(make(built, Recipe(format="flac", mute=(first.user_id,)), tmp_path).files[0])
    assert verdicts(mix, second.spoke) == []
    tracks = make(built, Recipe(output="tracks", format="flac", mute=(first.user_id,)), tmp_path).files
    assert [file.user_id for file in tracks] == [second.user_id]


@pytest.mark.parametrize("kind", ["flac", "opus"])
def test_a_range_is_that_part_of_the_whole(built: Built, tmp_path: Path, kind: str):
    start, stop = 2 * TICKS_PER_SECOND, 9 * TICKS_PER_SECOND
    recipe = Recipe(output="tracks", format=kind, start_tick=start, stop_tick=stop)
    for file, person in zip(make(built, recipe, tmp_path).files, built.people, strict=True):
        pcm = read(file)
        assert len(pcm) == stop - start
        assert verdicts(pcm, [(first - 2, last - 2) for first, last in person.spoke]) == []


def test_a_recipe_that_names_strangers_or_nothing_fails_clearly(built: Built, tmp_path: Path):
    for recipe, words in (
        (Recipe(people=("7",)), "not in this session: 7"),
        (Recipe(gain_db={"8": 1.0}), "not in this session: 8"),
        (Recipe(start_tick=100 * TICKS_PER_SECOND), "12.000 s long"),
    ):
        with pytest.raises(RequestError, match=words):
            make(built, recipe, tmp_path)


def test_an_ssrc_that_nobody_claims_becomes_a_track_of_its_own(tmp_path: Path):
    built = build_session(SECONDS, 2, seed=3, plan=PLAN, identify=False)
    files = make(built, Recipe(output="tracks", format="flac"), tmp_path).files
    assert {file.user_id for file in files} == {f"unknown-{person.ssrc}" for person in built.people}
    spoke = {f"unknown-{person.ssrc}": person.spoke for person in built.people}
    assert all(verdicts(read(file), spoke[file.user_id]) == [] for file in files)


def test_a_session_without_end_lasts_to_the_last_arrival(tmp_path: Path):
    built = build_session(SECONDS, 2, seed=3, plan=PLAN, end=False)
    file = make(built, Recipe(format="flac"), tmp_path).files[0]
    assert 10.5 * TICKS_PER_SECOND < file.duration_ticks < 11 * TICKS_PER_SECOND
    assert len(read(file)) == file.duration_ticks


def test_an_empty_session_is_a_silent_mix_and_no_tracks(tmp_path: Path):
    built = build_session(3.0, 1, plan=[[]])
    assert not read(make(built, Recipe(format="flac"), tmp_path).files[0]).any()
    assert make(built, Recipe(output="tracks", format="flac"), tmp_path).files == ()


@pytest.mark.parametrize("kind", ["flac", "opus", "mp3"])
def test_one_packet_is_a_session(tmp_path: Path, kind: str):
    built = build_session(2.0, 1, plan=[[(1.0, 1.02)]])
    files = make(built, Recipe(output="tracks", format=kind), tmp_path).files
    assert len(files) == 1
    assert len(read(files[0])) == 2 * TICKS_PER_SECOND


def damaged(built: Built) -> Built:
    """Every tenth voice packet is no Opus, and one message is garbage."""

    def spoil(number: int, payload: bytes) -> bytes:
        return (b"\xff\x3f" + payload, b"", b"\x03", b"\xf9\x00" * 3)[number % 4]

    messages = []
    for message in built.messages:
        data = message.data
        if ".pkt." in message.subject:
            batch = decode_batch(data)
            packets = tuple(
                msgspec.structs.replace(packet, payload=spoil(index // 10, packet.payload))
                if index % 10 == 5 and packet.outcome is Outcome.VOICE
                else packet
                for index, packet in enumerate(batch.packets)
            )
            data = encode_batch(msgspec.structs.replace(batch, packets=packets))
        messages.append(msgspec.structs.replace(message, data=data))
    messages.insert(5, msgspec.structs.replace(messages[5], data=b"\x00garbage"))
    return msgspec.structs.replace(built, messages=messages)


@pytest.mark.parametrize("kind", ["flac", "opus", "mp3"])
def test_broken_packets_are_counted_and_concealed_never_fatal(built: Built, tmp_path: Path, kind: str):
    rendered = make(damaged(built), Recipe(output="tracks", format=kind), tmp_path)
    for file, person in zip(rendered.files, built.people, strict=True):
        assert verdicts(read(file), person.spoke) == []
    assert rendered.malformed_messages == 1
    assert all(speaker.lost > 0 for speaker in rendered.speakers)


def test_names_for_people_are_safe_and_say_who(built: Built, tmp_path: Path):
    file = make(built, Recipe(output="tracks", format="flac"), tmp_path).files[0]
    assert file.filename == "2026-11-18 11-06 Curse of Strahd 7 - Speaker 0.flac"
