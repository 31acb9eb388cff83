"""Replaying what may be heard of a session."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from contracts.consented import Consented
from contracts.errors import MalformedError
from contracts.events import decode_fact
from contracts.jetstream.connection import Bus
from contracts.jetstream.pull import LogMessage
from contracts.jetstream.replay import replay
from contracts.subjects import facts


async def only_consented(
    bus: Bus, session: str, messages: AsyncIterator[LogMessage], *, last: int
) -> AsyncIterator[LogMessage]:
    """Messages of a session's log, without the speech of people who were withheld at the time, or forgotten.

    The facts up to sequence `last` are read first: one that comes late counts for what stands before it, too.
    """
    consented = Consented()
    async for message in replay(bus, session, last=last, filter_subject=facts(session)):
        try:
            consented.apply(decode_fact(message.data))
        except MalformedError:
            continue
    async for message in messages:
        kept = consented.message(message.subject, message.data)
        if kept is not None:
            yield message if kept is message.data else msgspec.structs.replace(message, data=kept)
