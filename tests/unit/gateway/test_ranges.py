"""Ranges and conditions, against slicing and against RFC 9110."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ranges import (
    MAX_SPANS,
    Conditions,
    NotModified,
    Partial,
    PreconditionFailed,
    Span,
    Unsatisfiable,
    Validators,
    Whole,
    choose_spans,
    content_range,
    decide,
    frame_parts,
    read_conditions,
)

TAG = "0123456789abcdef"
MODIFIED = 1_790_000_000
FILE = Validators(1000, TAG, MODIFIED)
SAME = format_datetime(datetime.fromtimestamp(MODIFIED, UTC), usegmt=True)
BEFORE = format_datetime(datetime.fromtimestamp(MODIFIED - 1, UTC), usegmt=True)
AFTER = format_datetime(datetime.fromtimestamp(MODIFIED + 1, UTC), usegmt=True)
sizes = st.integers(0, 500)
positions = st.integers(0, 600)


@given(st.binary(max_size=500), positions, st.none() | positions)
def test_one_range_is_the_slice(data: bytes, first: int, last: int | None) -> None:
    """`bytes=a-b` is data[a:b+1], or 416 if that is empty, or ignored if it runs backwards."""
    decision = choose_spans(f"bytes={first}-{'' if last is None else last}", len(data))
    expected = data[first:] if last is None else data[first : last + 1]
    if last is not None and last < first:
        assert decision == Whole()
    elif not expected:
        assert decision == Unsatisfiable()
    else:
        assert isinstance(decision, Partial)
        (span,) = decision.spans
        assert data[span.start : span.stop] == expected


@given(st.binary(max_size=500), st.integers(1, 600))
def test_a_suffix_is_the_end_of_the_file(data: bytes, length: int) -> None:
    """`bytes=-n` is the last n bytes, the whole if there are fewer, 416 if there are none."""
    decision = choose_spans(f"bytes=-{length}", len(data))
    if not data:
        assert decision == Unsatisfiable()
    else:
        assert isinstance(decision, Partial)
        (span,) = decision.spans
        assert data[span.start : span.stop] == data[-length:]


@given(sizes, st.lists(st.tuples(positions, st.none() | positions), min_size=1, max_size=8))
def test_many_ranges_never_give_a_byte_twice_or_one_outside(size: int, ranges: list[tuple[int, int | None]]) -> None:
    """Whatever is asked: spans are inside the file, disjoint, in order, and at most MAX_SPANS."""
    header = "bytes=" + ",".join(f"{first}-{'' if last is None else last}" for first, last in ranges)
    decision = choose_spans(header, size)
    if isinstance(decision, Partial):
        assert 1 <= len(decision.spans) <= MAX_SPANS
        assert all(0 <= span.start < span.stop <= size for span in decision.spans)
        assert all(a.stop <= b.start for a, b in zip(decision.spans, decision.spans[1:], strict=False))


@given(st.sets(st.integers(0, 199), min_size=2, max_size=2 * MAX_SPANS).filter(lambda cuts: len(cuts) % 2 == 0))
def test_disjoint_ranges_in_order_are_all_given(cuts: set[int]) -> None:
    """Up to MAX_SPANS disjoint ascending ranges are each answered."""
    edges = sorted(cuts)
    spans = tuple(Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True))
    header = "bytes=" + ", ".join(f"{span.start}-{span.stop - 1}" for span in spans)
    assert choose_spans(header, 200) == Partial(spans)


@given(st.text(max_size=60))
def test_any_text_as_a_range_has_an_answer(text: str) -> None:
    """No header makes the parser fail."""
    for header in (text, "bytes=" + text):
        assert isinstance(choose_spans(header, 100), Whole | Partial | Unsatisfiable)


@pytest.mark.parametrize(
    "header",
    [
        "items=0-1",
        "bytes",
        "bytes=",
        "bytes=a-b",
        "bytes=5-3",
        "bytes=--5",
        "bytes=0-5,3-9",
        "bytes=500-599,-950",
        "bytes=9-9,0-0",
        "bytes=" + ",".join(f"{10 * n}-{10 * n}" for n in range(MAX_SPANS + 1)),
        "bytes=0-" + "9" * 5000,
    ],
)
def test_a_range_that_is_not_worth_answering_is_ignored(header: str) -> None:
    """Unknown unit, malformed, backwards, overlapping, too many: the whole file."""
    assert decide("GET", Conditions(range=header), FILE) == Whole()


def test_ranges_outside_are_dropped_beside_one_inside() -> None:
    """A set is satisfiable if one of its ranges is (RFC 9110 §14.1.2)."""
    assert choose_spans("bytes=990-2000,5000-6000", 1000) == Partial((Span(990, 1000),))
    assert choose_spans("bytes=1000-", 1000) == Unsatisfiable()


def test_head_knows_no_range() -> None:
    """Range is defined for GET only (RFC 9110 §14.2)."""
    assert decide("HEAD", Conditions(range="bytes=0-1"), FILE) == Whole()


@pytest.mark.parametrize(
    ("if_range", "holds"),
    [
        (f'"{TAG}"', True),
        (f'W/"{TAG}"', False),
        (f'w/"{TAG}"', False),
        ('"other"', False),
        (TAG, False),
        ('"', False),
        (SAME, True),
        (BEFORE, False),
        (AFTER, False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_if_range_compares_strongly(if_range: str, *, holds: bool) -> None:
    """Only the same strong tag or exactly the same date gets the part; anything else the whole."""
    expected = Partial((Span(0, 2),)) if holds else Whole()
    assert decide("GET", Conditions(range="bytes=0-1", if_range=if_range), FILE) == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (Conditions(if_match=f'"{TAG}"'), Whole()),
        (Conditions(if_match="*"), Whole()),
        (Conditions(if_match=f'"x", "{TAG}"'), Whole()),
        (Conditions(if_match=f'W/"{TAG}"'), PreconditionFailed()),
        (Conditions(if_match='"x"'), PreconditionFailed()),
        (Conditions(if_match=""), PreconditionFailed()),
        (Conditions(if_unmodified_since=BEFORE), PreconditionFailed()),
        (Conditions(if_unmodified_since=SAME), Whole()),
        (Conditions(if_match="*", if_unmodified_since=BEFORE), Whole()),
        (Conditions(if_none_match=f'"{TAG}"'), NotModified()),
        (Conditions(if_none_match=f'W/"{TAG}"'), NotModified()),
        (Conditions(if_none_match="*"), NotModified()),
        (Conditions(if_none_match='"x"'), Whole()),
        (Conditions(if_none_match='"x"', if_modified_since=AFTER), Whole()),
        (Conditions(if_modified_since=SAME), NotModified()),
        (Conditions(if_modified_since=AFTER), NotModified()),
        (Conditions(if_modified_since=BEFORE), Whole()),
        (Conditions(if_modified_since="Mon, 20 Nov 99999999999 10:00:00 GMT"), Whole()),
        (Conditions(if_match='"x"', if_none_match=f'"{TAG}"'), PreconditionFailed()),
        (Conditions(if_none_match=f'"{TAG}"', range="bytes=0-1"), NotModified()),
        (Conditions(if_match='"x"', range="bytes=0-1"), PreconditionFailed()),
    ],
)
def test_conditions_are_judged_in_the_order_of_the_rfc(conditions: Conditions, expected: object) -> None:
    """RFC 9110 §13.2.2, each with its kind of comparison."""
    assert decide("GET", conditions, FILE) == expected
    if conditions.range is None:
        assert decide("HEAD", conditions, FILE) == expected


@given(st.text(max_size=80), st.sampled_from(Conditions.__struct_fields__))
def test_any_text_as_a_condition_has_an_answer(text: str, field: str) -> None:
    """No header makes us fail."""
    decide("GET", Conditions(**{"range": "bytes=0-1", field: text}), FILE)


def test_conditions_come_from_lower_case_headers() -> None:
    """Names are those of HTTP."""
    assert read_conditions({"if-none-match": "*", "range": "x", "host": "y"}) == Conditions(
        if_none_match="*", range="x"
    )


@given(st.binary(min_size=10, max_size=400), st.sets(st.integers(0, 9), min_size=4, max_size=8))
def test_a_multipart_body_is_read_back_by_a_mime_parser(data: bytes, cuts: set[int]) -> None:
    """Python's own MIME parser finds every span with its Content-Range, and the announced length is exact."""
    edges = sorted(cuts)
    spans = tuple(Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False))
    frame = frame_parts(spans, size=len(data), media_type="application/octet-stream", boundary="b" * 32)
    body = b"".join(part.head + data[part.span.start : part.span.stop] for part in frame.parts) + frame.tail
    assert len(body) == frame.length
    assert body.startswith(b"--" + b"b" * 32)
    head = b'Content-Type: multipart/byteranges; boundary="' + b"b" * 32 + b'"\r\n\r\n'
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    assert not message.defects
    assert [part["Content-Range"] for part in message.iter_parts()] == [content_range(s, len(data)) for s in spans]
