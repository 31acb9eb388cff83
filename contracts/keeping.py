"""How long sessions are kept, in words and on the bus.

An age is a number and a unit: `36h`, `30d`, `12w`, `2y`. Requests go to the keeper, JSON, one reply each.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

import msgspec

from contracts import wire
from contracts.errors import MalformedError

AGE_PATTERN: Final = r"[0-9]{1,5}(\.[0-9])?[hdwy]"
UNITS_S: Final = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
FETCH: Final = "ctl.keep.fetch"
KEEPER: Final = "keeper"  # the lease of the one process that keeps
ARCHIVE_AWAY: Final = "archive-away"  # a lease that it holds while it cannot reach the archive: for who watches

_AGE: Final = re.compile(AGE_PATTERN)


def read_age_s(text: str) -> float:
    """Seconds of an age.

    Raises
    ------
    MalformedError
        If it is none.
    """
    if not _AGE.fullmatch(text):
        raise MalformedError(f"{text[:40]!r} is no age: 36h, 30d, 12w and 2y are")
    return float(text[:-1]) * UNITS_S[text[-1]]


class FetchSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `ctl.keep.fetch`: bring a session back from the archive; asked again and again until it is here."""

    session: str


FetchState: TypeAlias = Literal["here", "fetching", "waiting", "gone"]


class Fetching(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How bringing it back goes.

    Attributes
    ----------
    state
        `here`: it is on the server; `fetching`; `waiting`: it could not be read, `reason` says why, and is tried again;
        `gone`: there is no such session.
    fraction
        0 to 1.
    """

    state: FetchState
    fraction: float = 0.0
    reason: str = ""


_requests = msgspec.json.Decoder(FetchSession)
_replies = msgspec.json.Decoder(Fetching)


def decode_fetch(data: bytes) -> FetchSession:
    """A request; MalformedError if it is none."""
    return wire.decode(_requests, data, "a request to the keeper")


def decode_fetching(data: bytes) -> Fetching:
    """A reply; MalformedError if it is none."""
    return wire.decode(_replies, data, "an answer of the keeper")
