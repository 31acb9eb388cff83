"""How far everybody is: what each stream holds, and how far each consumer is behind it.

Lag = num_pending (not delivered yet) + num_ack_pending (delivered, not acknowledged).

Two sources say the same: JetStream's API, in pages, one request for each stream that has consumers; and the server's
monitoring address (`/jsz`), one request for everything. Asking for each consumer by itself is what servers suffer from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

import msgspec

from contracts.errors import MalformedError
from contracts.jetstream.connection import STREAM_NOT_FOUND, Bus, JetStreamError

AT_ONCE: Final = 16  # requests
JSZ_DETAILS: Final = "accounts=1&streams=1&consumers=1&config=1&stream-leader-only=1"


class ConsumerLag(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer.

    Attributes
    ----------
    lag_messages
        Pending plus delivered but not acknowledged.
    ack_floor
        Stream sequence below which everything is acknowledged.
    delivered
        Stream sequence of what was delivered last.
    durable
        Whether it stays when nobody uses it.
    """

    name: str
    lag_messages: int
    pending: int
    ack_pending: int
    redelivered: int
    waiting: int
    ack_floor: int
    delivered: int = 0
    durable: bool = True


class StreamLag(msgspec.Struct, frozen=True, kw_only=True):
    """One stream with its consumers.

    Attributes
    ----------
    first_unix_s
        When its oldest message was stored; None if it holds none.
    """

    stream: str
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int
    subjects: int
    consumers: tuple[ConsumerLag, ...]
    first_unix_s: float | None = None
    account: str = ""


async def stream_lags(bus: Bus) -> list[StreamLag]:
    """Every stream of this account, by name, as JetStream's API tells it."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(stream: dict[str, Any]) -> StreamLag | None:
        if not stream["state"]["consumer_count"]:
            return _stream_lag(stream["config"]["name"], stream["state"], ())
        async with gate:
            return await _with_consumers(bus, stream)

    lags = await asyncio.gather(*(one(stream) for stream in await _pages(bus, "STREAM.LIST", "streams")))
    return sorted((lag for lag in lags if lag is not None), key=lambda lag: lag.stream)


def lags_from_jsz(body: bytes) -> list[StreamLag]:
    """Every stream of every account, by name, from what `/jsz` answered to JSZ_DETAILS.

    Raises
    ------
    MalformedError
        If that is something else.
    """
    try:
        accounts = msgspec.json.decode(body).get("account_details") or ()
        lags = [
            _stream_lag(stream["name"], stream["state"], stream.get("consumer_detail") or (), account["name"])
            for account in accounts
            for stream in account.get("stream_detail") or ()
        ]
    except (msgspec.MsgspecError, AttributeError, KeyError, TypeError) as error:
        raise MalformedError(f"this is not what /jsz?{JSZ_DETAILS} answers: {error!r}") from error
    return sorted(lags, key=lambda lag: lag.stream)


async def _with_consumers(bus: Bus, stream: dict[str, Any]) -> StreamLag | None:
    name = stream["config"]["name"]
    try:
        return _stream_lag(name, stream["state"], await _pages(bus, f"CONSUMER.LIST.{name}", "consumers"))
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None  # deleted meanwhile
        raise


def _stream_lag(
    name: str, state: dict[str, Any], consumers: Iterable[dict[str, Any]], account: str = "$G"
) -> StreamLag:
    return StreamLag(
        stream=name,
        messages=state["messages"],
        bytes=state["bytes"],
        first_sequence=state["first_seq"],
        last_sequence=state["last_seq"],
        subjects=state.get("num_subjects", 0),
        consumers=tuple(map(_consumer_lag, consumers)),
        first_unix_s=_unix_s(state["first_ts"]) if state["messages"] else None,
        account=account,
    )


def _consumer_lag(consumer: dict[str, Any]) -> ConsumerLag:
    return ConsumerLag(
        name=consumer["name"],
        lag_messages=consumer["num_pending"] + consumer["num_ack_pending"],
        pending=consumer["num_pending"],
        ack_pending=consumer["num_ack_pending"],
        redelivered=consumer["num_redelivered"],
        waiting=consumer["num_waiting"],
        ack_floor=consumer["ack_floor"]["stream_seq"],
        delivered=consumer["delivered"]["stream_seq"],
        durable=bool(consumer["config"].get("durable_name")),
    )


def _unix_s(text: str) -> float:
    """RFC 3339, with as many digits of a second as there are."""
    return msgspec.convert(text, datetime).timestamp()


async def _pages(bus: Bus, verb: str, field: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = await bus.api(verb, {"offset": len(found)})
        rows = page.get(field) or []
        found += rows
        if not rows or len(found) >= page["total"]:
            return found
