"""A session that is followed: the files are those of a render afterwards, whoever was killed on the way."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from contracts.clock import TICKS_PER_SECOND
from contracts.jetstream.replay import LogMessage
from contracts.recipes import FOLLOWED, FOLLOWED_MIX, Recipe
from mixer import grown
from mixer.engine import engine_string
from mixer.errors import RequestError
from mixer.followed import FRAMES, PACKETS, STATE, Followed
from mixer.formats import mp3
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.logfile import write_log
from mixer.render import Order, RenderedFile, render
from tests.builders import Built, Network, build_session, replay_of
from tests.judge import decode_file, verdicts

SECONDS = 75.0
SHORT_SEGMENT = 400  # frames: ten seconds
Files = dict[str, tuple[str, str, int]]  # name, sha256 and ticks, by speaker or suffix
NETWORK = Network(jitter_ms=5, loss=0.02, skew_ppm=60, duplicates=0.1)


@pytest.fixture(scope="module", autouse=True)
def _short_segments() -> Iterator[None]:
    """As if the session came at its own speed: a state after each segment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mp3, "SEGMENT_FRAMES", SHORT_SEGMENT)
        patch.setattr(grown, "LONGEST_SEGMENTS", 1)
        yield


@pytest.fixture(scope="module")
def built() -> Built:
    return build_session(SECONDS, 3, 0.4, 7, network=NETWORK, speech=True)


@pytest.fixture(scope="module")
def later(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What renders of the ended session make."""
    return rendered(built, tmp_path_factory.mktemp("renders") / "later")


def order_of(built: Built, recipe: Recipe) -> Order:
    ffmpeg = find_ffmpeg()
    return Order(
        session=built.session,
        recipe=recipe,
        log_end=len(built.messages),
        engine=engine_string(ffmpeg),
        ffmpeg=ffmpeg,
    )


def contents(files: tuple[RenderedFile, ...]) -> Files:
    return {file.user_id or Path(file.path).suffix: (file.name, file.sha256, file.duration_ticks) for file in files}


def rendered(built: Built, folder: Path) -> Files:
    folder.mkdir()
    asyncio.run(write_log(folder / "log", built.session, replay_of(built.messages)))
    found = {}
    for recipe in FOLLOWED:
        found |= contents(render(folder / "log", order_of(built, recipe), folder).files)
    return found


def feed(followed: Followed, messages: list[LogMessage]) -> None:
    for message in messages:
        followed.apply(message.sequence, message.subject, message.data)


def finished(followed: Followed) -> tuple[RenderedFile, ...]:
    return tuple(file for _, files in followed.finish() for file in files)


def test_following_and_rendering_give_the_same_bytes(built: Built, tmp_path: Path, later: Files):
    followed = Followed(tmp_path / "live", order_of(built, FOLLOWED_MIX))
    feed(followed, built.messages)
    assert followed.ended
    files = finished(followed)
    followed.close()
    assert contents(files) == later
    mix = decode_file(Path(files[0].path))
    assert len(mix) == SECONDS * TICKS_PER_SECOND
    assert verdicts(mix, [span for person in built.people for span in person.spoke]) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_follower_that_is_killed_goes_on_to_the_same_bytes(built: Built, tmp_path: Path, later: Files, seed: int):
    """At random messages, again and again; what it did since its last state is gone."""
    chance = random.Random(seed)
    at, states = 0, set()
    while True:
        followed = Followed(tmp_path / "live", order_of(built, FOLLOWED_MIX))
        states.add(followed.sequence)
        at = min(max(at, followed.sequence) + chance.randrange(20, 90), len(built.messages))
        feed(followed, built.messages[followed.sequence : at])
        if at == len(built.messages):
            break
        followed.close()
    files = finished(followed)
    followed.close()
    assert len(states) > 2
    assert contents(files) == later


def test_messages_that_are_given_again_change_nothing(built: Built, tmp_path: Path, later: Files):
    followed = Followed(tmp_path / "live", order_of(built, FOLLOWED_MIX))
    for message in built.messages:
        feed(followed, [message, message])
    files = finished(followed)
    followed.close()
    assert contents(files) == later


@pytest.mark.long
@pytest.mark.parametrize("spoil", ["engine", "cut", "gone", "no frames", "no packets"])
def test_without_a_state_that_fits_it_begins_anew(built: Built, tmp_path: Path, later: Files, spoil: str):
    """Another engine's state, half a state, and none: the frames on disk are nobody's then."""
    order = order_of(built, FOLLOWED_MIX)
    followed = Followed(tmp_path / "live", order)
    feed(followed, built.messages[: len(built.messages) * 3 // 4])
    followed.close()
    state = tmp_path / "live" / STATE
    assert state.exists()
    if spoil == "engine":
        order = msgspec.structs.replace(order, engine="other")
    elif spoil == "cut":
        state.write_bytes(state.read_bytes()[:1000])
    elif spoil == "gone":
        state.unlink()
    elif spoil == "no frames":
        (tmp_path / "live" / FRAMES).write_bytes(b"")
    else:
        shutil.rmtree(tmp_path / "live" / PACKETS)
    again = Followed(tmp_path / "live", order)
    assert again.sequence == 0
    feed(again, built.messages)
    files = finished(again)
    again.close()
    assert [file.sha256 for file in files] == [sha for _, sha, _ in later.values()]


def test_a_session_without_length_has_no_mix(tmp_path: Path):
    empty = build_session(0.0, 0, plan=[[]])
    followed = Followed(tmp_path / "live", order_of(empty, FOLLOWED_MIX))
    feed(followed, empty.messages)
    with pytest.raises(RequestError, match=r"0\.000 s long"):
        finished(followed)
    followed.close()
