"""Decoding what others wrote: whatever the bytes are, a value comes out or MalformedError, never anything else.

msgspec lets two errors through that are not its own: UnicodeDecodeError for a string that is not UTF-8, RecursionError
for a thousand brackets.
"""

from __future__ import annotations

from typing import Final, TypeAlias, TypeVar

import msgspec

from contracts.errors import MalformedError

T = TypeVar("T")

Decoder: TypeAlias = msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]
UNDECODABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def decode(decoder: Decoder[T], data: bytes, what: str, *, error: type[MalformedError] = MalformedError) -> T:
    """What the decoder makes of `data`; otherwise `error`, saying that it is not `what`."""
    try:
        return decoder.decode(data)
    except UNDECODABLE as problem:
        raise error(f"not {what}: {problem}") from problem
