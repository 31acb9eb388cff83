"""What the signs of life say is wrong, and how often something is done about it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from capture.voice.watch import CHECK_NS, MS, PAUSE_NS, Kind, Remedy, Signs, Watch

S = 1_000 * MS
BEGUN = 1_000 * S


def watched(
    signs: Callable[[int], Signs], *, seconds: float, watch: Watch | None = None
) -> Iterator[tuple[float, Remedy]]:
    """Every remedy with its time in seconds after BEGUN."""
    watch = watch or Watch()
    for now_ns in range(BEGUN, BEGUN + round(seconds * S), CHECK_NS):
        remedy = watch.judge(signs(now_ns), now_ns)
        if remedy is not None:
            yield (now_ns - BEGUN) / S, remedy


def test_a_healthy_connection_is_left_alone() -> None:
    """Also one in which nobody speaks, and one whose frames all have their keys."""

    def healthy(now: int) -> Signs:
        return Signs(stands_since_ns=BEGUN, acked_ns=now - 4 * S, heard_ns=now - 5 * S, ponged_ns=now - 5 * S)

    assert list(watched(healthy, seconds=60)) == []


def test_without_a_connection_only_the_task_is_watched() -> None:
    """There is nothing to judge; but if nobody tries to connect, somebody must."""
    assert list(watched(lambda _: Signs(stands_since_ns=None, reading=False), seconds=30)) == []
    (_, first), *_ = watched(lambda _: Signs(stands_since_ns=None, alive=False), seconds=1)
    assert first == Remedy(Kind.REVIVE, "task_ended")


def test_a_silent_route_is_probed_and_then_replaced() -> None:
    """Somebody speaks, nothing comes, pings that were answered are not any more: a second, then another connection."""
    remedies = list(
        watched(
            lambda _: Signs(stands_since_ns=BEGUN, heard_ns=BEGUN, ponged_ns=1, speaking_since_ns=BEGUN), seconds=1.5
        )
    )
    assert [remedy.kind for _, remedy in remedies] == [Kind.PROBE] * 3 + [Kind.RECONNECT]
    assert remedies[-1][1] == Remedy(Kind.RECONNECT, "route_silent", BEGUN)
    assert remedies[-1][0] < 1.2


def test_a_route_that_dies_while_nobody_speaks_is_found_by_its_keepalives() -> None:
    """One ping that is not answered asks for more at once; seconds later, another connection."""
    remedies = list(watched(lambda _: Signs(stands_since_ns=BEGUN, heard_ns=BEGUN, ponged_ns=1), seconds=9))
    kinds = [remedy.kind for _, remedy in remedies]
    assert kinds == [Kind.PROBE] * (len(kinds) - 1) + [Kind.RECONNECT]
    assert len(kinds) > 10
    assert remedies[-1][1] == Remedy(Kind.RECONNECT, "keepalive_unanswered", BEGUN)
    assert 5 < remedies[0][0] < remedies[-1][0] < 8.2


def test_pings_that_are_answered_prove_the_route() -> None:
    """A speaking flag that stays on is no reason to reconnect."""

    def signs(now: int) -> Signs:
        return Signs(stands_since_ns=BEGUN, heard_ns=now - 500 * MS, ponged_ns=now - 500 * MS, speaking_since_ns=BEGUN)

    assert {remedy.kind for _, remedy in watched(signs, seconds=30)} == {Kind.PROBE}


def test_who_begins_to_speak_after_a_long_silence_has_time_to() -> None:
    """Silence counts from when somebody was said to speak."""

    def signs(now: int) -> Signs:
        speaking = now - 900 * MS if now > BEGUN + 5 * S else None
        heard = max(BEGUN, now - 5 * S)
        return Signs(stands_since_ns=BEGUN, heard_ns=heard, ponged_ns=1, speaking_since_ns=speaking)

    assert {remedy.kind for _, remedy in watched(signs, seconds=10)} == {Kind.PROBE}


def test_where_pings_are_never_answered_silence_needs_longer() -> None:
    """Ten seconds with the speaking flag on."""

    def signs(_: int) -> Signs:
        return Signs(stands_since_ns=BEGUN, speaking_since_ns=BEGUN)

    at_s = [at for at, remedy in watched(signs, seconds=20) if remedy.kind is Kind.RECONNECT]
    assert 10 <= at_s[0] < 10.5


def test_unanswered_heartbeats_and_a_lost_reader_end_the_connection() -> None:
    """Each with its cause."""
    silent = next(watched(lambda _: Signs(stands_since_ns=BEGUN, acked_ns=BEGUN), seconds=20))
    assert 12 <= silent[0] < 12.5
    assert silent[1].cause == "heartbeat_unanswered"
    detached = next(watched(lambda _: Signs(stands_since_ns=BEGUN, reading=False), seconds=20))
    assert detached == (0.0, Remedy(Kind.RECONNECT, "reader_detached"))


def test_frames_that_wait_for_a_key_ask_for_keys_then_for_a_connection() -> None:
    """Twice new keys, then another connection; not while keys change, nor for frames from before we had any."""

    def stuck(now: int) -> Signs:
        return Signs(stands_since_ns=BEGUN, waiting_since_ns=now - S, heard_ns=now)

    kinds = [remedy.kind for _, remedy in watched(stuck, seconds=20)]
    assert kinds[:3] == [Kind.REKEY, Kind.REKEY, Kind.RECONNECT]

    def switching(now: int) -> Signs:
        return Signs(stands_since_ns=BEGUN, waiting_since_ns=now - S, keys_switching=True, heard_ns=now)

    assert list(watched(switching, seconds=20)) == []

    def early(now: int) -> Signs:
        return Signs(stands_since_ns=BEGUN, waiting_since_ns=now - S, keys_changed_ns=now - S, heard_ns=now)

    assert list(watched(early, seconds=20)) == []


def test_what_was_not_read_because_we_were_busy_is_not_missing() -> None:
    """After a stall of ours the clock of silence starts anew."""
    watch = Watch()
    signs = Signs(stands_since_ns=BEGUN, heard_ns=BEGUN, ponged_ns=1, speaking_since_ns=BEGUN)
    assert watch.judge(signs, BEGUN) is None
    assert watch.judge(signs, BEGUN + 5 * S) is None
    assert watch.judge(signs, BEGUN + 5 * S + CHECK_NS) is None


@given(
    st.builds(
        Signs,
        stands_since_ns=st.just(BEGUN) | st.none(),
        alive=st.booleans(),
        reading=st.booleans(),
        acked_ns=st.none() | st.just(BEGUN),
        heard_ns=st.none() | st.just(BEGUN),
        ponged_ns=st.none() | st.just(BEGUN),
        speaking_since_ns=st.none() | st.just(BEGUN),
        waiting_since_ns=st.none() | st.just(BEGUN + S),
    )
)
def test_there_is_never_a_storm(signs: Signs) -> None:
    """Whatever stays wrong, a remedy other than a ping is tried at most once in three seconds of a kind, ever less."""
    acts = [(at, remedy) for at, remedy in watched(lambda _: signs, seconds=100) if remedy.kind is not Kind.PROBE]
    for kind in Kind:
        times = [at for at, remedy in acts if remedy.kind is kind]
        assert all(round((later - earlier) * S) >= PAUSE_NS[0] for earlier, later in itertools.pairwise(times))
    assert len(acts) <= 12
