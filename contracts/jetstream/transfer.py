"""Moving a whole session: out of the server into a bundle, and back, byte for byte and in order."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from typing import BinaryIO, Final

import msgspec

from contracts import subjects
from contracts.bundle import BundleError, BundleHeader, BundleMessage, BundleReader, BundleWriter
from contracts.directory import SessionEntry
from contracts.errors import MalformedError, RetoldError, UnavailableError
from contracts.ids import check_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import forget_erasure, rebuild_entry
from contracts.jetstream.erase import delete_session, delete_streams
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.replay import last_sequence, replay
from contracts.jetstream.streams import create_session, session_exists

WRITER: Final = "retold"
DRAIN_TIMEOUT_S: Final = 60.0
DRAIN_EVERY: Final = 2048  # messages; bounds what waits in memory

MESSAGE_ID: Final = re.compile(r"[!-~]{0,256}")
HEADER_BYTES: Final = 512  # of a message with the longest id

Progress = Callable[[int, int], None]


class SessionExistsError(RetoldError):
    """The session is on the server already; delete it first with `retold sessions delete`."""


async def export_session(bus: Bus, session: str, file: BinaryIO, *, progress: Progress | None = None) -> int:
    """Write a session's log to a bundle; the number of messages.

    Parameters
    ----------
    progress
        Called with (messages done, messages in all).

    Raises
    ------
    SessionNotFoundError
        If there is no such session.
    """
    last = await last_sequence(bus, session)
    writer = BundleWriter(file, BundleHeader(session, time.time_ns(), WRITER))
    if last:
        async for message in replay(bus, session, last=last):
            writer.write(BundleMessage(message.subject, message.message_id, message.data))
            if progress:
                progress(message.sequence, last)
    writer.close()
    return writer.messages


async def import_session(
    bus: Bus, file: BinaryIO, *, progress: Callable[[int], None] | None = None
) -> tuple[str, SessionEntry | None]:
    """Put a bundle's session on the server; its id, and its entry in the directory.

    What is on the server then is compared with the bundle. An import that fails leaves nothing behind.

    Raises
    ------
    BundleError
        If the file is no whole bundle, or holds what does not belong to its session.
    SessionExistsError
        If the session is on the server.
    UnavailableError
        If the server did not take everything.
    """
    reader = BundleReader(file)
    session = check_session(reader.header.session)
    if await session_exists(bus, session):
        raise SessionExistsError(f"session {session} is on the server already; delete it first, or keep that one")
    await forget_erasure(bus, session)
    await fill_session(bus, session, reader, progress=progress)
    try:
        return session, await rebuild_entry(bus, session)
    except BaseException:
        await delete_session(bus, session)
        raise


async def fill_session(
    bus: Bus, session: str, reader: BundleReader, *, progress: Callable[[int], None] | None = None
) -> None:
    """Make a session's stream and put a bundle's log into it, proved; the directory is left as it is.

    Whatever fails, nothing of it stays. Raises as `import_session`.
    """
    await create_session(bus, session)
    try:
        given = await publish_all(bus, session, reader, progress)
        await compare(bus, session, given)
    except BaseException:
        await delete_streams(bus, session)
        raise


async def publish_all(
    bus: Bus, session: str, reader: BundleReader, progress: Callable[[int], None] | None
) -> list[bytes]:
    """Send every message; their digests in order, without those that say again what was said."""
    digests: dict[bytes, None] = {}
    publisher = Publisher(bus, keep_acked=False)  # `_compare` proves what is stored
    await publisher.start()
    try:
        for count, message in enumerate(reader.messages(), start=1):
            _check_message(message, session, bus.client.max_payload)
            publisher.publish(message.subject, message.message_id, message.data)
            digests[_digest(message.subject, message.message_id, message.data)] = None
            if count % DRAIN_EVERY == 0:
                await publisher.drain(timeout_s=DRAIN_TIMEOUT_S)
                if progress:
                    progress(count)
        await publisher.drain(timeout_s=DRAIN_TIMEOUT_S)
    finally:
        await publisher.close()
    return list(digests)


async def compare(bus: Bus, session: str, given: list[bytes]) -> None:
    """The server holds what the bundle gave, in that order: what was sent again may have come too late."""
    stored = [_digest(message.subject, message.message_id, message.data) async for message in replay(bus, session)]
    if stored != given:
        raise UnavailableError(
            f"the server holds {len(stored)} messages, not the bundle's {len(given)} in their order: "
            "an id is in it twice, or the server was away meanwhile; try again"
        )


def _digest(subject: str, message_id: str, data: bytes) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode((subject, message_id, data))).digest()


def check_session(session: str) -> str:
    """The id, if it is one of ours; BundleError if not."""
    try:
        return check_id(session)
    except MalformedError as error:
        raise BundleError(f"the bundle names no session of ours: {error}") from error


def _check_message(message: BundleMessage, session: str, max_payload: int) -> None:
    """A bundle may only write to its own session, with ids that can stand in a header, what the server can take."""
    try:
        parsed = subjects.parse(message.subject)
    except MalformedError as error:
        raise BundleError(str(error)) from error
    if isinstance(parsed, subjects.RenderSubject) or parsed.session != session:
        raise BundleError(f"the bundle of session {session} holds a message for {message.subject[:80]}")
    if not MESSAGE_ID.fullmatch(message.message_id):
        raise BundleError(f"the bundle holds a message with the id {message.message_id[:80]!r}")
    if len(message.data) > max_payload - HEADER_BYTES:
        raise BundleError(f"the bundle holds a message of {len(message.data)} bytes; this server takes {max_payload}")
