"""Ids, subjects and the clock: every pair of inverses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import clock, subjects
from contracts.errors import MalformedError
from contracts.ids import check_id, id_unix_ms, new_id
from contracts.streams import object_stream_name, session_stream, session_stream_name
from tests import strategies

milliseconds = st.integers(0, 2**48 - 1)

A = "a" * 16


@given(milliseconds, strategies.u32)
def test_an_id_carries_its_time(unix_ms: int, low: int):
    """id_unix_ms(new_id(t)) is t, to the millisecond, whatever the random half."""
    identifier = new_id(unix_ms, low)
    assert id_unix_ms(identifier) == unix_ms
    assert check_id(identifier) == identifier


@given(milliseconds, milliseconds, strategies.u32, strategies.u32)
def test_ids_sort_by_time(earlier: int, later: int, one: int, other: int):
    """As text, ids stand in the order of their times."""
    assert ((earlier, one) < (later, other)) == (new_id(earlier, one) < new_id(later, other))


@given(st.text(max_size=20))
def test_what_is_no_id_is_malformed(text: str):
    """Every text is an id of ours, or MalformedError."""
    try:
        assert len(check_id(text)) == 16
    except MalformedError:
        assert id_or_none(text) is None


def id_or_none(text: str) -> int | None:
    try:
        return id_unix_ms(text)
    except MalformedError:
        return None


@given(strategies.ids, strategies.u32, strategies.u32)
def test_subjects_parse_to_what_they_were_built_from(session: str, take: int, ssrc: int):
    """parse(build(x)) is x."""
    assert subjects.parse(subjects.packets(session, take, ssrc)) == subjects.PacketSubject(session, take, ssrc)
    assert subjects.parse(subjects.facts(session)) == subjects.FactSubject(session)
    assert subjects.parse(subjects.render(session, "job-1")) == subjects.RenderSubject(session, "job-1")


subject_texts = st.lists(
    st.sampled_from(
        ["rec", "pkt", "evt", "renders", "jobs", "0", "007", "-1", "*", ">", "", "a b", "x", "\n", "٣", "9" * 5000]
    )
).map(".".join)


@given(subject_texts | st.text(max_size=40))
def test_whatever_parses_is_built_to_the_same_subject(text: str):
    """build(parse(text)) is text: one spelling only, no wildcard, and nothing but MalformedError."""
    try:
        parsed = subjects.parse(text)
    except MalformedError:
        return
    match parsed:
        case subjects.PacketSubject(session, take, ssrc):
            assert subjects.packets(session, take, ssrc) == text
        case subjects.FactSubject(session):
            assert subjects.facts(session) == text
        case subjects.RenderSubject(session, job):
            assert subjects.render(session, job) == text
    assert not set(text) & set("*> \n")


@pytest.mark.parametrize(
    "wrong",
    [
        "rec.*.evt",
        "rec.>.evt",
        "rec..evt",
        "rec.a.pkt.01.2",
        "rec.a.pkt.1." + "9" * 5000,
        "renders.a.",
        "rec.a.pkt.1.2 ",
    ],
)
def test_a_subject_with_a_second_spelling_is_malformed(wrong: str):
    """Wildcards, empty tokens, leading zeros and numbers of a thousand digits are none of ours."""
    with pytest.raises(MalformedError):
        subjects.parse(wrong)


def test_a_sessions_streams_are_its_own():
    """Stream names and subject of a session follow from its id alone."""
    assert (session_stream_name(A), object_stream_name(A)) == (f"REC_{A}", f"OBJ_{A}")
    assert session_stream(A).subjects == (f"rec.{A}.>",)


@given(st.integers(-(2**63), 2**63))
def test_ticks_survive_nanoseconds(ticks: int):
    """ns_to_ticks(ticks_to_ns(t)) is t: a tick is 20833 ns, and rounding stays below half of it."""
    assert clock.ns_to_ticks(clock.ticks_to_ns(ticks)) == ticks


@given(st.integers(-(2**60), 2**60))
def test_nanoseconds_are_kept_to_half_a_tick(ns: int):
    """ticks_to_ns(ns_to_ticks(n)) is n within half a tick and half a nanosecond."""
    assert abs(clock.ticks_to_ns(clock.ns_to_ticks(ns)) - ns) <= 125_000 / 6 / 2 + 0.5


@given(st.integers(0, 2**40))
def test_ticks_survive_seconds(ticks: int):
    """seconds_to_ticks(ticks_to_seconds(t)) is t for every session below 265 days."""
    assert clock.seconds_to_ticks(clock.ticks_to_seconds(ticks)) == ticks
