"""Withdrawn links: KV bucket `revoked`, one entry per link id (`jti`), never per token: a token has many spellings."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from contracts.errors import MalformedError
from contracts.jetstream.connection import Bus
from contracts.jetstream.pull import read_newest
from contracts.streams import REVOKED_BUCKET

LINK_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what `new_claims` makes, and what a KV key may be
_STREAM: Final = f"KV_{REVOKED_BUCKET}"


class Revocation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a link was withdrawn, by whom, why."""

    unix_ns: int
    by: str = ""
    reason: str = ""


async def revoke(bus: Bus, jti: str, *, by: str = "", reason: str = "") -> None:
    """Withdraw a link; durable when it returns, harmless twice.

    Raises
    ------
    MalformedError
        If it is not the id of a link.
    """
    if not LINK_ID.fullmatch(jti):
        raise MalformedError(f"{jti[:64]!r} is not the id of a link")
    revocation = Revocation(unix_ns=time.time_ns(), by=by, reason=reason)
    await bus.publish(_key(jti), msgspec.json.encode(revocation))


async def is_revoked(bus: Bus, jti: str) -> bool:
    """Whether a link was withdrawn. An id that nobody could withdraw counts as withdrawn.

    Raises
    ------
    UnavailableError
        If the server does not say: never taken for a no.
    """
    if not LINK_ID.fullmatch(jti):
        return True
    return await read_newest(bus, _STREAM, _key(jti)) is not None


async def watch_revocations(bus: Bus, handler: Callable[[str], Awaitable[None]]) -> None:
    """Hand the id of every link that is withdrawn from now on, as it passes, to `handler`."""

    async def receive(subject: str, _data: bytes) -> None:
        await handler(subject.rpartition(".")[2])

    await bus.subscribe(f"$KV.{REVOKED_BUCKET}.*", receive)


def _key(jti: str) -> str:
    return f"$KV.{REVOKED_BUCKET}.{jti}"
