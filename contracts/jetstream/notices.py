"""News for others, each told until it was heard: durable consumers on the directory and on the results of renders.

A consumer is shared by every gateway, so each piece of news is told once, by one of them; what could not be told is
given again later and later, also by another process. Nobody is told what happened before the consumer was made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from contracts.jetstream.connection import RECONNECT_WAIT_S, Bus
from contracts.streams import DIRECTORY_BUCKET, RENDERS, WEBHOOKS_CONSUMER

log = structlog.get_logger()

ENTRIES: Final = (f"KV_{DIRECTORY_BUCKET}", f"$KV.{DIRECTORY_BUCKET}.*")
RESULTS: Final = (RENDERS.name, "renders.>")
RETRY_S: Final = (5.0, 30.0, 120.0, 600.0, 3600.0)
TELLING_S: Final = 60.0  # the longest that one telling may take
WAIT_S: Final = 5.0

Tell = Callable[[bytes], Awaitable[bool]]


async def tell_all(bus: Bus, source: tuple[str, str], tell: Tell) -> None:
    """Hand every message of a stream to `tell`, until cancelled; one that it could not tell comes again.

    Parameters
    ----------
    source
        ENTRIES or RESULTS.
    tell
        Whether it was told, or need not be.
    """
    stream, subject = source
    config = ConsumerConfig(
        durable_name=WEBHOOKS_CONSUMER,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=TELLING_S,
        max_deliver=len(RETRY_S) + 1,
        deliver_policy=DeliverPolicy.NEW,
        filter_subject=subject,
    )
    while True:
        try:
            subscription = await bus.js.pull_subscribe(subject, durable=WEBHOOKS_CONSUMER, stream=stream, config=config)
            while True:
                try:
                    (message,) = await subscription.fetch(1, timeout=WAIT_S)
                except TimeoutError:
                    continue
                if await tell(message.data):
                    await message.ack()
                else:
                    await message.nak(delay=RETRY_S[min(message.metadata.num_delivered, len(RETRY_S)) - 1])
        except NatsError as error:
            log.info("notices_interrupted", stream=stream, why=str(error) or type(error).__name__)
            await asyncio.sleep(RECONNECT_WAIT_S)
