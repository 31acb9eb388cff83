"""How often limited links were used: KV bucket `uses`, one entry per link id, counted by compare-and-set.

A use belongs to a client: who resumes, seeks, or fetches by four connections has used the link once. Of a client the
entry holds a digest that only this link's id can be compared with, and it is forgotten when every link has expired.
"""

from __future__ import annotations

import asyncio
import enum
import random
from typing import Final

import msgspec

from contracts.errors import UnavailableError
from contracts.jetstream.cas import put_if
from contracts.jetstream.connection import Bus
from contracts.jetstream.pull import read_newest
from contracts.streams import USES_BUCKET

GRANT_S: Final = 12 * 3600  # a use lasts as long as the longest evening is listened to
TRIES: Final = 30  # one wins in every round, so as many clients at once are certain to be told
_STREAM: Final = f"KV_{USES_BUCKET}"


class _Use(msgspec.Struct, frozen=True):
    client: str
    since_unix_s: int


class _Uses(msgspec.Struct, frozen=True):
    uses: tuple[_Use, ...] = ()


class Standing(enum.Enum):
    """How a client stands to a limited link: it has a use, could have one, or comes too late."""

    HELD = "held"
    FREE = "free"
    USED_UP = "used_up"


async def look_up(bus: Bus, jti: str, *, client: str, limit: int, now_s: int) -> Standing:
    """How a client stands to a link; nothing is counted. Parameters and errors as `take_use`."""
    found, _ = await _read(bus, jti)
    if _holds(found, client, now_s):
        return Standing.HELD
    return Standing.FREE if len(found.uses) < limit else Standing.USED_UP


async def take_use(bus: Bus, jti: str, *, client: str, limit: int, now_s: int) -> bool:
    """Count a use of a link, if any is left; a client that has one goes on with it for GRANT_S seconds.

    Parameters
    ----------
    client
        A digest of who asks.
    limit
        How many clients may use it.

    Raises
    ------
    UnavailableError
        If the server does not say: never taken for a yes.
    """
    return await bus.insist(lambda: _take(bus, jti, client, limit, now_s))


async def _take(bus: Bus, jti: str, client: str, limit: int, now_s: int) -> bool:
    for _ in range(TRIES):
        found, sequence = await _read(bus, jti)
        if _holds(found, client, now_s):
            return True
        if len(found.uses) >= limit:
            return False
        uses = _Uses((*found.uses, _Use(client, now_s)))
        if await put_if(bus, _key(jti), msgspec.json.encode(uses), sequence) is not None:
            return True
        await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311  # only so that those who lost do not meet again
    raise UnavailableError("too many clients use this link at once")


def _holds(found: _Uses, client: str, now_s: int) -> bool:
    return any(use.client == client and now_s - use.since_unix_s < GRANT_S for use in found.uses)


async def _read(bus: Bus, jti: str) -> tuple[_Uses, int]:
    newest = await read_newest(bus, _STREAM, _key(jti))
    if newest is None:
        return _Uses(), 0
    return msgspec.json.decode(newest.data, type=_Uses), newest.sequence


def _key(jti: str) -> str:
    return f"$KV.{USES_BUCKET}.{jti}"
