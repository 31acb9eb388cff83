"""What a close of the voice websocket means, and how soon to try again."""

from __future__ import annotations

import pytest

from capture.voice.closes import DELAYS_S, GIVE_UP_S, STABLE_S, Action, Backoff, loss_of


@pytest.mark.parametrize(
    ("code", "action", "cause"),
    [
        (1000, Action.REJOIN, "closed"),
        (1001, Action.REJOIN, "voice_server_going_away"),
        (1006, Action.REJOIN, "connection_dropped"),
        (4006, Action.REJOIN, "session_invalid"),
        (4009, Action.REJOIN, "session_timed_out"),
        (4014, Action.FOLLOW, "disconnected"),
        (4015, Action.REJOIN, "voice_server_crashed"),
        (4017, Action.END, "dave_required"),
        (4021, Action.END, "rate_limited"),
        (4022, Action.FOLLOW_OR_END, "call_ended"),
        (4999, Action.REJOIN, "closed_4999"),
        (-1, Action.REJOIN, "connection_dropped"),
        (None, Action.REJOIN, "connection_dropped"),
    ],
)
def test_each_close_code_has_one_meaning(code: int | None, action: Action, cause: str) -> None:
    """Reconnect, follow or end, and the word for it; what nobody documented is worth another try."""
    assert loss_of(code)[:2] == (action, cause)


def test_the_first_attempt_is_at_once_and_the_pauses_grow_to_a_cap() -> None:
    """No storm of attempts while Discord is away."""
    backoff = Backoff()
    delays = [backoff.lost(float(second)) for second in range(len(DELAYS_S) + 3)]
    assert delays == [*DELAYS_S, *[DELAYS_S[-1]] * 3]


def test_a_connection_that_stood_is_replaced_at_once() -> None:
    """One that broke soon is not: the pauses go on growing."""
    backoff = Backoff()
    assert backoff.lost(0.0) == 0
    backoff.stands(0.2)
    assert backoff.lost(0.2 + STABLE_S / 2) == DELAYS_S[1]
    backoff.stands(10.0)
    assert backoff.lost(10.0 + STABLE_S) == 0


def test_after_a_long_time_without_connection_it_is_over() -> None:
    """The session ends; but a connection in between starts the time anew."""
    backoff = Backoff()
    assert backoff.lost(0.0) is not None
    backoff.stands(GIVE_UP_S - 1)
    assert backoff.lost(GIVE_UP_S + 1) is not None
    assert backoff.lost(2 * GIVE_UP_S + 1) is None
