"""Identifiers: sessions and jobs are short, sortable by time, and safe as a subject token, a bucket and a file name.

session  48 bits of Unix milliseconds | 32 random bits, Crockford base32, lower case: 16 characters
"""

from __future__ import annotations

import secrets
import time
from typing import TypeAlias

from contracts.errors import MalformedError

Snowflake: TypeAlias = str  # an id of Discord's

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: no i, l, o, u
ID_LENGTH = 16


def new_id(unix_ms: int | None = None, random_bits: int | None = None) -> str:
    """A new identifier; both halves can be given, so that a test is repeatable.

    Parameters
    ----------
    unix_ms
        Unix time in milliseconds, now if absent.
    random_bits
        The lower 32 bits, from the system's source if absent.
    """
    now = time.time_ns() // 1_000_000 if unix_ms is None else unix_ms
    low = secrets.randbits(32) if random_bits is None else random_bits
    value = ((now & 0xFFFF_FFFF_FFFF) << 32) | (low & 0xFFFF_FFFF)
    return "".join(ALPHABET[(value >> shift) & 31] for shift in range(75, -1, -5))


def id_unix_ms(identifier: str) -> int:
    """The Unix time in milliseconds that an identifier carries.

    Raises
    ------
    MalformedError
        If it is not an identifier of ours.
    """
    value = 0
    for character in check_id(identifier):
        value = (value << 5) | ALPHABET.index(character)
    return value >> 32


def is_id(text: str) -> bool:
    """Whether it is an identifier of ours."""
    return len(text) == ID_LENGTH and all(character in ALPHABET for character in text)


def check_id(identifier: str) -> str:
    """The identifier itself, if it is one; otherwise MalformedError."""
    if not is_id(identifier):
        raise MalformedError(f"{identifier[:64]!r} is not an id: {ID_LENGTH} characters of {ALPHABET}")
    return identifier
