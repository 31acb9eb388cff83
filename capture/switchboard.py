"""Requests on the bus, each passed on to the capture that has its server's shard: whoever asks need not know of shards.

    ctl.record.<verb>   one of the captures hears it   ->   ctl.shard.<shard>.<verb>   the one that answers

While a shard has no capture, because its own died just now, a request waits for the next one.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Final

import msgspec

from contracts import subjects
from contracts.commands import AskStatus, Refused, Status, encode_reply
from contracts.errors import MalformedError, UnavailableError
from contracts.ids import Snowflake
from contracts.jetstream.asking import ASK_TIMEOUT_S, FORGET_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S, ask_status
from contracts.jetstream.connection import Bus, NobodyError
from contracts.shards import shard_of

TAKE_OVER_S: Final = 15.0  # until another capture has a dead one's shards
AGAIN_S: Final = 0.25
STATUS_S: Final = 2.0
PATIENCE_S: Final = {
    subjects.START_RECORDING: START_TIMEOUT_S,
    subjects.STOP_RECORDING: STOP_TIMEOUT_S,
    subjects.ADD_NOTE: ASK_TIMEOUT_S,
    subjects.PLACE_PANEL: ASK_TIMEOUT_S,
    subjects.CHOOSE_CONSENT: ASK_TIMEOUT_S,
    subjects.FORGET_PERSON: FORGET_TIMEOUT_S,
}


class _Addressed(msgspec.Struct):
    guild_id: Snowflake


async def serve_switchboard(bus: Bus, shards: int) -> None:
    """Pass requests on, from now on."""
    for subject in PATIENCE_S:
        await bus.serve(subject, functools.partial(_pass_on, bus, shards, subject), queue="capture")
    await bus.serve(subjects.STATUS, functools.partial(_gather, bus, shards), queue="capture")


async def _pass_on(bus: Bus, shards: int, subject: str, data: bytes) -> bytes:
    try:
        guild_id = int(msgspec.json.decode(data, type=_Addressed).guild_id)
    except (msgspec.MsgspecError, ValueError) as error:
        return encode_reply(Refused(code="malformed", message=f"The request is malformed: {error}"))
    to = subjects.to_shard(subject, shard_of(guild_id, shards))
    until_s = time.monotonic() + min(TAKE_OVER_S, PATIENCE_S[subject] / 2)
    while True:
        try:
            return await bus.request(to, data, timeout_s=PATIENCE_S[subject])
        except NobodyError:
            if time.monotonic() >= until_s:
                return encode_reply(
                    Refused(code="not_ready", message="No recorder serves this server just now; try again in a moment.")
                )
            await asyncio.sleep(AGAIN_S)
        except UnavailableError as error:
            return encode_reply(Refused(code="failed", message=str(error)))


async def _gather(bus: Bus, shards: int, data: bytes) -> bytes:
    """What all shards say; not ready as long as one says nothing."""
    try:
        msgspec.json.decode(data or b"{}", type=AskStatus)
    except msgspec.MsgspecError as error:
        return encode_reply(Refused(code="malformed", message=f"The request is malformed: {error}"))
    found = await asyncio.gather(*(_ask(bus, shard) for shard in range(shards)))
    sessions = tuple(live for each in found if each is not None for live in each.sessions)
    return encode_reply(Status(ready=all(each is not None and each.ready for each in found), sessions=sessions))


async def _ask(bus: Bus, shard: int) -> Status | None:
    try:
        async with asyncio.timeout(STATUS_S):
            return await ask_status(bus, shard=shard)
    except (UnavailableError, TimeoutError, MalformedError):
        return None
