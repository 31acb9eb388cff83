"""Where the timeline puts a packet, there its sound is: to the sample in PCM, to half the grid in a copy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from contracts.clock import TICKS_PER_SECOND
from contracts.recipes import Recipe
from mixer.engine import engine_string
from mixer.feed import Row, SourceFeed
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.formats.ogg import GRID_TICKS
from mixer.logfile import LogFile, write_log
from mixer.opus import DECODER_DELAY_TICKS, decode_packets
from mixer.render import Order, render
from mixer.timeline import Timeline
from tests.builders import Built, Network, build_session, replay_of
from tests.judge import decode_file

SECONDS = 40.0
NETWORK = Network(jitter_ms=8, skew_ppm=80, loss=0.01)


@pytest.fixture(scope="module")
def built() -> Built:
    return build_session(SECONDS, 2, 0.5, seed=8, network=NETWORK, speech=True)


@pytest.fixture(scope="module")
def log(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log"
    asyncio.run(write_log(path, built.session, replay_of(built.messages)))
    return path


def singles(row: Row) -> Iterator[Row]:
    """The packets of a row, one by one."""
    while len(row) > 1:
        first, row = row.split(1)
        yield first
    yield row


def runs(log: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Per person: (tick, sound) of the first half second of every utterance, by a plain decoder."""
    found: dict[str, list[tuple[int, np.ndarray]]] = {}
    with LogFile(log) as file:
        session = file.fold()
        timeline = Timeline(session.tracks, "hindsight")
        for track in session.tracks:
            for source in timeline.place(track):
                packets = [one for row in SourceFeed(source).until(1 << 60) if not row.silent for one in singles(row)]
                begins = [
                    index
                    for index in range(len(packets) - 25)
                    if (index == 0 or packets[index].tick - packets[index - 1].tick > TICKS_PER_SECOND // 5)
                    and packets[index + 24].tick - packets[index].tick == 24 * 960
                ]
                for index in begins:
                    sound = decode_packets([one.packets for one in packets[index : index + 25]])
                    found.setdefault(track.user_id, []).append((packets[index].tick - DECODER_DELAY_TICKS, sound))
    return found


def shift(expected: np.ndarray, whole: np.ndarray, at: int, reach: int) -> int:
    """By how many samples the sound lies later in the file than at `at`; at most `reach`."""
    part = whole[at - reach : at + len(expected) + reach, 0]
    return int(np.argmax(np.correlate(part, expected[:, 0], "valid"))) - reach


@pytest.mark.parametrize(
    ("kind", "within"),
    [("wav", 1), ("flac", 1), ("mp3", 1), ("m4a", 1), ("opus", GRID_TICKS // 2)],
)
def test_sound_lies_where_the_timeline_puts_it(log: Path, built: Built, tmp_path: Path, kind: str, within: int):
    """Every utterance of every track, decoded by FFmpeg, against a plain decoder's sound at its packets' ticks."""
    ffmpeg = find_ffmpeg()
    recipe = Recipe(output="tracks", format=kind)
    order = Order(session=built.session, recipe=recipe, log_end=1, engine=engine_string(ffmpeg), ffmpeg=ffmpeg)
    files = {file.user_id: decode_file(Path(file.path)) for file in render(log, order, tmp_path).files}
    expected = runs(log)
    assert sum(map(len, expected.values())) >= 6
    for user, utterances in expected.items():
        for tick, sound in utterances:
            assert abs(shift(sound[2400:], files[user], tick + 2400, 600)) <= within, (user, tick)
