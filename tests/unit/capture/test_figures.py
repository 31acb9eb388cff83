"""Capture's figures are its status: what a session has is told while it runs, under names that alerts know."""

from __future__ import annotations

from collections import Counter

import msgspec

from capture.figures import status_readings
from contracts.commands import LiveSession, LiveSpeaker, Status
from contracts.metrics import declared
from contracts.metrics.declared import Declared

SPEAKERS = (
    LiveSpeaker(state="heard", user_id="1"),
    LiveSpeaker(state="heard", user_id="2"),
    LiveSpeaker(state="undecryptable"),
)
LIVE = LiveSession(
    session="a",
    guild_id="1",
    channel_id="2",
    elapsed_s=60.0,
    saved_up_to_s=47.5,
    take=2,
    packets={"recorded": 3000, "undecryptable": 7, "lost": 1, "duplicates": 4},
    unacked_batches=12,
    held_packets=5,
    dave_version=1,
    dave_ready=False,
    dave_epoch=9,
    speakers=SPEAKERS,
    unheard_s=4.0,
    last_packet_age_s=4.5,
    ack_p50_s=0.01,
    ack_p99_s=0.5,
    resent=3,
    spool_bytes=1000,
    spool_failures=1,
    dropped_batches=2,
)
OF_A_SESSION = {metric.name for metric in declared.every() if "session" in metric.labels}


def told(*sessions: LiveSession) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (metric.name, labels): value for metric, value, labels in status_readings(Status(ready=True, sessions=sessions))
    }


def value(metric: Declared, *labels: str) -> float:
    return told(LIVE)[metric.name, ("a", *labels)]


def test_a_session_tells_everything_that_a_session_has():
    """All that is declared of sessions, but for their names, which the directory knows."""
    assert {name for name, labels in told(LIVE) if labels} == OF_A_SESSION - {declared.SESSION_INFO.name}


def test_its_figures_are_those_of_its_status():
    """The age of what is not saved is what the session clock says; people are counted by their state."""
    assert value(declared.SESSION_UNSAVED) == 12.5
    assert value(declared.SESSION_UNHEARD) == 4.0
    assert value(declared.SESSION_PACKETS, "undecryptable") == 7
    assert value(declared.SESSION_ACK, "0.99") == 0.5
    assert value(declared.SESSION_DROPPED) == 2
    assert value(declared.SESSION_EPOCH) == 9
    states = Counter(speaker.state for speaker in SPEAKERS)
    assert {state: value(declared.SESSION_SPEAKERS, state) for state in states} == states


def test_without_keys_is_an_alarm_only_with_somebody_in_the_call():
    """Alone, there is nobody to have keys with."""
    name = declared.SESSION_DAVE_READY.name
    assert value(declared.SESSION_DAVE_READY) == 0
    alone = told(msgspec.structs.replace(LIVE, speakers=()))
    assert alone[name, ("a",)] == 1


def test_nothing_is_told_of_what_does_not_run():
    """Before the first packet there is no quiet to measure; without sessions there is only capture itself."""
    fresh = msgspec.structs.replace(LIVE, last_packet_age_s=None, unheard_s=None)
    assert (declared.SESSION_QUIET.name, ("a",)) not in told(fresh)
    assert told(fresh)[declared.SESSION_UNHEARD.name, ("a",)] == 0
    assert set(told()) == {(declared.CAPTURE_READY.name, ()), (declared.CAPTURE_SESSIONS.name, ())}
