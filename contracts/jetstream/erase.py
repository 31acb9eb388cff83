"""Erasing: what is taken away must not stay readable on the disk.

Deleting a stream deletes its files. Purging messages out of a stream that goes on does not: their bytes stay in the
block. The server overwrites only what is deleted one by one (STREAM.MSG.DELETE), so that is what is done to the few
messages about a session that stand in streams of everybody's: its entry in the directory, and the results of renders,
which hold names.
"""

from __future__ import annotations

from typing import Final

from contracts import streams
from contracts.errors import UnavailableError
from contracts.ids import check_id
from contracts.jetstream.connection import STREAM_NOT_FOUND, Bus, JetStreamError
from contracts.jetstream.pull import read_stream
from contracts.jetstream.streams import delete_stream
from contracts.subjects import live

NOT_THERE: Final = {10043, 10057}  # sequence not found; delete failed, since nothing is there
DELETED: Final = {"KV-Operation": "PURGE"}


async def delete_session(bus: Bus, session: str) -> bool:
    """Erase a session: its log, its artifacts, its entry, what its renders told. Whether there was anything to erase.

    Raises
    ------
    MalformedError
        If it is no session id.
    UnavailableError
        If the server is away.
    """
    key = f"$KV.{streams.DIRECTORY_BUCKET}.{check_id(session)}"
    found = False
    try:
        marker = await bus.publish(key, b"", headers=DELETED)  # first: whoever dies has said what the keeper finishes
    except UnavailableError:  # a server that is full takes no message, but gives room
        found = await delete_streams(bus, session)
        marker = await bus.publish(key, b"", headers=DELETED)
    found = await delete_streams(bus, session) or found
    await erase_messages(bus, streams.RENDERS.name, f"renders.{session}.>")
    await erase_messages(bus, streams.LIVE.name, live(session))
    await erase_messages(bus, f"KV_{streams.DIRECTORY_BUCKET}", key, before=marker)
    return found


async def delete_streams(bus: Bus, session: str) -> bool:
    """Delete a session's log and its artifacts, and leave the directory as it is; whether they were there."""
    found = False
    for stream in (streams.session_stream_name(session), streams.object_stream_name(session)):
        found = await delete_stream(bus, stream) or found
    return found


async def erase_messages(bus: Bus, stream: str, subject: str, *, before: int | None = None) -> None:
    """Overwrite every message on a subject, which may hold wildcards; with `before`, only those of lower sequence."""
    try:
        found = [
            message.sequence async for message in read_stream(bus, stream, filter_subject=subject, headers_only=True)
        ]
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return
        raise
    for sequence in found:
        if before is None or sequence < before:
            await erase_message(bus, stream, sequence)


async def erase_message(bus: Bus, stream: str, sequence: int) -> None:
    """Overwrite one message; harmless if it is gone."""
    try:
        await bus.api(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence, "no_erase": False})
    except JetStreamError as error:
        if error.err_code not in NOT_THERE:
            raise
