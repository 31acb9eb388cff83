"""The directory entry is a fold of facts."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from contracts import events
from contracts.directory import SessionEntry, decode_entry, encode_entry, fold_entry
from contracts.events import SessionFact
from tests import strategies
from tests.golden import GOLDEN

STARTED = GOLDEN["session_started.1.json"].value
ENDED = GOLDEN["session_ended.1.json"].value


def folded(facts: list[SessionFact], entry: SessionEntry | None = None) -> SessionEntry | None:
    for fact in facts:
        entry = fold_entry(entry, fact)
    return entry


@given(st.lists(strategies.facts, max_size=8), st.data())
def test_a_fact_twice_changes_nothing(facts: list[SessionFact], data: st.DataObject):
    """Applying any fact again right after itself gives the same entry."""
    doubled = [fact for fact in facts for _ in range(data.draw(st.integers(1, 3)))]
    assert folded([STARTED, *doubled]) == folded([STARTED, *facts])


@given(st.lists(strategies.facts, max_size=8))
def test_a_replay_over_its_own_result_changes_nothing(facts: list[SessionFact]):
    """Folding the whole log again into its entry gives the same entry."""
    entry = folded([STARTED, *facts])
    assert folded([STARTED, *facts], entry) == entry


@given(st.lists(strategies.facts.filter(lambda fact: not isinstance(fact, events.SessionStarted))))
def test_there_is_no_entry_before_the_start(facts: list[SessionFact]):
    """A log without SessionStarted makes none."""
    assert folded(list(facts)) is None


@given(st.lists(strategies.facts, max_size=6))
def test_an_entry_survives_the_wire(facts: list[SessionFact]):
    """decode(encode(entry)) is the entry."""
    entry = folded([STARTED, *facts])
    assert entry is not None
    assert decode_entry(encode_entry(entry)) == entry


def test_people_are_those_who_came_under_their_newest_name():
    """Bots are none of them; a new name replaces the old one."""
    identity = {"id": "i", "session": STARTED.session, "at_ns": 0, "unix_ns": 0, "take": 1}
    joined = [
        events.SpeakerJoined(**identity, user_id="1", name="Ada"),
        events.SpeakerJoined(**identity, user_id="2", name="Robot", bot=True),
        events.SpeakerJoined(**identity, user_id="3", name="Bela"),
        events.SpeakerLeft(**identity, user_id="3"),
        events.SpeakerJoined(**identity, user_id="1", name="Ada Lovelace"),
    ]
    entry = folded([STARTED, *joined])
    assert entry is not None
    assert entry.people == {"1": "Ada Lovelace", "3": "Bela"}


def test_the_end_brings_duration_cause_and_counts():
    """Until then the entry says that it is being recorded."""
    running, ended = folded([STARTED]), folded([STARTED, ENDED])
    assert running is not None
    assert ended is not None
    assert (running.ended_unix_ns, running.duration_ns, running.cause) == (None, None, "")
    assert (ended.ended_unix_ns, ended.duration_ns, ended.cause) == (ENDED.unix_ns, ENDED.at_ns, "stopped")
    assert msgspec.structs.replace(ended, ended_unix_ns=None, duration_ns=None, cause="", **NO_COUNTS) == running


NO_COUNTS = {"recorded": 0, "undecryptable": 0, "lost": 0}
