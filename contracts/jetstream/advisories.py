"""What the server has to say by itself: its advisories, as they pass and as stream ADVISORIES keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from contracts.jetstream.connection import Bus
from contracts.jetstream.pull import read_newest
from contracts.streams import ADVISORIES

_PREFIX: Final = "$JS.EVENT.ADVISORY."
ALARMING: Final = {
    "CONSUMER.MAX_DELIVERIES": "a message was given out as often as is allowed, and nobody could do it",
    "CONSUMER.MSG_TERMINATED": "a message was given up",
    "CONSUMER.QUORUM_LOST": "a consumer has no majority of servers",
    "STREAM.QUORUM_LOST": "a stream has no majority of servers: nothing can be stored in it",
    "SERVER.OUT_OF_STORAGE": "JetStream's disk is full",
    "SERVER.REMOVED": "a server was removed from the cluster",
    "API.LIMIT_REACHED": "the server is asked more than it can answer, and drops requests",
}


class Advisory(msgspec.Struct, frozen=True, kw_only=True):
    """One advisory.

    Attributes
    ----------
    kind
        Such as `CONSUMER.MAX_DELIVERIES`.
    about
        The rest of its subject: stream and consumer, or the server.
    """

    kind: str
    about: str
    unix_s: float

    @property
    def meaning(self) -> str:
        """What it says, in words."""
        return ALARMING.get(self.kind, self.kind.lower().replace("_", " ").replace(".", " "))


class _Body(msgspec.Struct):
    timestamp: datetime


_bodies: msgspec.json.Decoder[_Body] = msgspec.json.Decoder(_Body)


async def watch_advisories(bus: Bus, handler: Callable[[Advisory], None]) -> None:
    """Hand every advisory that passes from now on to `handler`."""

    async def receive(subject: str, data: bytes) -> None:
        if (advisory := _parse(subject, data)) is not None:
            handler(advisory)

    await bus.subscribe(ADVISORIES.subjects[0], receive)


async def alarming_advisories(bus: Bus) -> list[Advisory]:
    """The newest of each alarming kind that is kept, newest first; UnavailableError if the server does not answer."""
    found = await asyncio.gather(*(_newest(bus, kind) for kind in ALARMING))
    return sorted((one for one in found if one is not None), key=lambda one: -one.unix_s)


async def _newest(bus: Bus, kind: str) -> Advisory | None:
    rest = "" if kind == "API.LIMIT_REACHED" else ".>"
    message = await read_newest(bus, ADVISORIES.name, f"{_PREFIX}{kind}{rest}")
    if message is None:
        return None
    return _parse(message.headers.get("Nats-Subject", f"{_PREFIX}{kind}"), message.data)


def _parse(subject: str, data: bytes) -> Advisory | None:
    tokens = subject.removeprefix(_PREFIX).split(".", 2)
    try:
        unix_s = _bodies.decode(data).timestamp.timestamp()
    except msgspec.MsgspecError:
        return None
    return Advisory(kind=".".join(tokens[:2]), about=".".join(tokens[2:]), unix_s=unix_s)
