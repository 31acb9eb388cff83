"""Which bytes of a file a request gets: conditions first, then ranges (RFC 9110 §13 and §14). Pure.

    conditions, in the order of §13.2.2    If-Match / If-Unmodified-Since    -> 412
                                           If-None-Match / If-Modified-Since -> 304
    If-Range does not hold                                                   -> the whole, 200
    Range                                  one span                          -> 206
                                           2 to MAX_SPANS disjoint spans     -> 206 multipart/byteranges
                                           none of it inside the file        -> 416
                                           anything else                     -> ignored: the whole, 200

Headers are parsed by werkzeug. Its parser refuses ranges that are malformed, overlap or run backwards; a server may
ignore such a Range (§14.2), so the answer is the whole file.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec
from werkzeug.http import parse_date, parse_etags, parse_range_header, unquote_etag

MAX_SPANS: Final = 5  # a player or a resuming client asks for one or two; more is a way to make us work
MAX_RANGE_CHARACTERS: Final = 256
FIRST_CLOSING_BYTES: Final = 2  # the CRLF before every delimiter but the first


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The request headers that decide; None = not sent."""

    range: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since: str | None = None
    if_unmodified_since: str | None = None


class Validators(msgspec.Struct, frozen=True):
    """What the file is compared by.

    Attributes
    ----------
    size
        Bytes.
    tag
        The strong entity tag, without its quotes.
    modified_unix_s
        Last-Modified. Strong too: an artifact never changes under its name.
    """

    size: int
    tag: str
    modified_unix_s: int


class Span(msgspec.Struct, frozen=True):
    """Half-open interval of bytes, never empty."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Bytes in it."""
        return self.stop - self.start


class Whole(msgspec.Struct, frozen=True):
    """200."""


class Partial(msgspec.Struct, frozen=True):
    """206: one span is a single part, more are multipart/byteranges."""

    spans: tuple[Span, ...]


class NotModified(msgspec.Struct, frozen=True):
    """304."""


class PreconditionFailed(msgspec.Struct, frozen=True):
    """412."""


class Unsatisfiable(msgspec.Struct, frozen=True):
    """416."""


Decision: TypeAlias = Whole | Partial | NotModified | PreconditionFailed | Unsatisfiable


def read_conditions(headers: Mapping[str, str]) -> Conditions:
    """Conditions from request headers with lower-case names."""
    return Conditions(**{name: headers.get(name.replace("_", "-")) for name in Conditions.__struct_fields__})


def decide(method: str, conditions: Conditions, file: Validators) -> Decision:
    """What a GET or HEAD gets. Range is for GET only (§14.2)."""
    if not _may_proceed(conditions, file):
        return PreconditionFailed()
    if not _is_changed(conditions, file):
        return NotModified()
    if method != "GET" or conditions.range is None or not _range_applies(conditions.if_range, file):
        return Whole()
    return choose_spans(conditions.range, file.size)


def choose_spans(header: str, size: int) -> Whole | Partial | Unsatisfiable:
    """The spans that a Range header asks of a file of `size` bytes."""
    parsed = parse_range_header(header) if len(header) <= MAX_RANGE_CHARACTERS else None
    if parsed is None or parsed.units != "bytes":
        return Whole()
    spans = tuple(span for start, stop in parsed.ranges if (span := _clip(start, stop, size)) is not None)
    if not spans:
        return Unsatisfiable()
    if len(parsed.ranges) > MAX_SPANS or _overlap(spans):
        return Whole()
    return Partial(spans)


def _clip(start: int, stop: int | None, size: int) -> Span | None:
    """A span inside the file; a negative start counts from the end, as far as there is one."""
    first = max(size + start, 0) if start < 0 else start
    last = size if stop is None else min(stop, size)
    return Span(first, last) if first < last else None


def _overlap(spans: tuple[Span, ...]) -> bool:
    return any(later.start < earlier.stop for earlier, later in pairwise(spans))


def _may_proceed(conditions: Conditions, file: Validators) -> bool:
    """If-Match, strong comparison (§13.1.1); without it If-Unmodified-Since (§13.1.4)."""
    if conditions.if_match is not None:
        return parse_etags(conditions.if_match).contains(file.tag)
    since = _read_date(conditions.if_unmodified_since)
    return since is None or file.modified_unix_s <= since


def _is_changed(conditions: Conditions, file: Validators) -> bool:
    """If-None-Match, weak comparison (§13.1.2); without it If-Modified-Since (§13.1.3)."""
    if conditions.if_none_match is not None:
        return not parse_etags(conditions.if_none_match).contains_weak(file.tag)
    since = _read_date(conditions.if_modified_since)
    return since is None or file.modified_unix_s > since


def _range_applies(if_range: str | None, file: Validators) -> bool:
    """If-Range: the same strong tag, or exactly the same date (§13.1.5). A weak tag never applies."""
    if if_range is None:
        return True
    if if_range.endswith('"'):
        return unquote_etag(if_range) == (file.tag, False)
    return _read_date(if_range) == file.modified_unix_s


def _read_date(value: str | None) -> int | None:
    """Unix seconds of an HTTP date; None if it is none, which counts as not sent (§13.1.3)."""
    try:
        moment: datetime | None = parse_date(value)
        return None if moment is None else int(moment.timestamp())
    except (OverflowError, ValueError):  # werkzeug lets a year of eleven digits through to datetime
        return None


class Part(msgspec.Struct, frozen=True):
    """One part of a multipart/byteranges body: what stands before its bytes, and which they are."""

    head: bytes
    span: Span


class Multipart(msgspec.Struct, frozen=True):
    """A multipart/byteranges body (RFC 9110 §14.6), told in advance so that its length is known."""

    parts: tuple[Part, ...]
    tail: bytes

    @property
    def length(self) -> int:
        """Bytes of the whole body."""
        return sum(len(part.head) + part.span.length for part in self.parts) + len(self.tail)


def frame_parts(spans: tuple[Span, ...], *, size: int, media_type: str, boundary: str) -> Multipart:
    """The frame around several spans; `boundary` must not occur in the file (take 128 random bits)."""
    parts = tuple(
        Part(
            f"\r\n--{boundary}\r\nContent-Type: {media_type}\r\n"
            f"Content-Range: {content_range(span, size)}\r\n\r\n".encode()[0 if number else FIRST_CLOSING_BYTES :],
            span,
        )
        for number, span in enumerate(spans)
    )
    return Multipart(parts, f"\r\n--{boundary}--\r\n".encode())


def content_range(span: Span, size: int) -> str:
    """The Content-Range of one span."""
    return f"bytes {span.start}-{span.stop - 1}/{size}"
