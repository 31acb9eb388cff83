"""The log heard as it comes: what is heard is the log's, not how or when it was fed, or who was killed meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from contracts.clock import TICKS_PER_SECOND
from contracts.jetstream.replay import LogMessage
from contracts.subjects import facts
from mixer.hearing import Block, Hearing
from tests.builders import Built, Network, build_session
from tests.judge import verdicts

SECONDS = 60.0
NETWORK = Network(jitter_ms=5, loss=0.02, skew_ppm=60, duplicates=0.1)


@pytest.fixture(scope="module")
def built() -> Built:
    return build_session(SECONDS, 3, 0.4, 7, network=NETWORK)


def hear(messages: list[LogMessage]) -> list[Block]:
    hearing = Hearing()
    return [*_fed(hearing, messages), *hearing.finish(round(SECONDS * TICKS_PER_SECOND))]


def _fed(hearing: Hearing, messages: list[LogMessage]) -> Iterator[Block]:
    for message in messages:
        hearing.apply(message.subject, message.data)
        yield from hearing.blocks()


def voice(blocks: list[Block], user: str) -> np.ndarray:
    quiet = np.zeros((TICKS_PER_SECOND, 1), np.float32)
    return np.concatenate([block.voices.get(user, quiet[: block.stop - block.start]) for block in blocks])


def same(first: list[Block], second: list[Block]) -> bool:
    return [(one.start, one.stop, sorted(one.voices)) for one in first] == [
        (one.start, one.stop, sorted(one.voices)) for one in second
    ] and all(
        np.array_equal(one.voices[user], other.voices[user])
        for one, other in zip(first, second, strict=True)
        for user in one.voices
    )


def test_each_person_is_heard_where_the_plan_says(built: Built):
    blocks = hear(built.messages)
    assert [(block.start, block.stop) for block in blocks] == [
        (start * TICKS_PER_SECOND, (start + 1) * TICKS_PER_SECOND) for start in range(60)
    ]
    for person in built.people:
        assert verdicts(voice(blocks, person.user_id), person.spoke) == []


def test_blocks_come_while_the_log_still_grows(built: Built):
    """At most twenty seconds behind what the log has."""
    hearing = Hearing()
    behind = []
    for message in built.messages:
        heard = [block.stop for block in _fed(hearing, [message])]
        if heard:
            behind.append(heard[-1])
    assert behind[-1] > (SECONDS - 20) * TICKS_PER_SECOND


@pytest.mark.parametrize("seed", range(4))
def test_a_state_that_was_saved_goes_on_as_if_nothing_had_been(built: Built, seed: int):
    """Killed at random points; between them messages are taken in one go or one by one."""
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(1, len(built.messages)), 6))
    hearing, blocks, first = Hearing(), [], 0
    for cut in [*cuts, len(built.messages)]:
        blocks += _fed(hearing, built.messages[first:cut])
        saved, first = hearing.save(), cut
        hearing = Hearing()
        hearing.load(saved, facts(built.session))
    blocks += hearing.finish(round(SECONDS * TICKS_PER_SECOND))
    assert same(blocks, hear(built.messages))
    assert hearing.session().people == {person.user_id: person.name for person in built.people}
    assert hearing.ended


@pytest.mark.parametrize("seed", range(3))
def test_when_blocks_are_asked_for_changes_nothing(built: Built, seed: int):
    chance = random.Random(seed)
    hearing, blocks = Hearing(), []
    for message in built.messages:
        hearing.apply(message.subject, message.data)
        if chance.random() < 0.02:
            blocks += hearing.blocks()
    blocks += hearing.finish(round(SECONDS * TICKS_PER_SECOND))
    assert same(blocks, hear(built.messages))


def test_memory_holds_seconds_not_sessions():
    """The state does not grow with the session."""
    sizes = []
    for seconds in (60.0, 240.0):
        long = build_session(seconds, 2, 0.9, 3)
        hearing = Hearing()
        for _ in _fed(hearing, long.messages[:-2]):
            pass
        sizes.append(len(hearing.save()))
    assert sizes[1] < 1.5 * sizes[0]
