"""Replaying a session: its facts and audio in total order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from contracts.errors import MalformedError, UnavailableError
from contracts.jetstream.connection import STREAM_NOT_FOUND, Bus, JetStreamError, SessionNotFoundError
from contracts.jetstream.pull import LogMessage, read_next, read_stream
from contracts.packets import decode_batch
from contracts.streams import session_stream_name
from contracts.subjects import facts, packets_all

__all__ = ["LogMessage", "last_sequence", "log_birth", "replay", "replay_span"]


async def last_sequence(bus: Bus, session: str) -> int:
    """Stream sequence of the newest message of a session; 0 if it has none.

    Raises
    ------
    SessionNotFoundError
        If there is no such session.
    """
    try:
        answer = await bus.api(f"STREAM.INFO.{session_stream_name(session)}")
    except JetStreamError as error:
        raise _not_found(session, error) from error
    return int(answer["state"]["last_seq"])


async def log_birth(bus: Bus, session: str) -> str:
    """When the session's stream was made: another one after a person was taken out of it. Raises as `last_sequence`."""
    try:
        answer = await bus.api(f"STREAM.INFO.{session_stream_name(session)}")
    except JetStreamError as error:
        raise _not_found(session, error) from error
    return str(answer["created"])


async def replay(
    bus: Bus, session: str, *, first: int = 1, last: int | None = None, filter_subject: str = ""
) -> AsyncGenerator[LogMessage, None]:
    """Every message of a session in order, in bounded memory.

    Parameters
    ----------
    first, last
        Stream sequences, both included; None = to the end.
    filter_subject
        Only messages on this subject.

    Raises
    ------
    SessionNotFoundError
        If there is no such session.
    UnavailableError
        If the server went away, or gave less than it has.
    """
    seen = first - 1
    try:
        stream = session_stream_name(session)
        async with aclosing(read_stream(bus, stream, first=first, filter_subject=filter_subject)) as messages:
            async for message in messages:
                if last is not None and message.sequence > last:
                    return
                yield message
                seen = message.sequence
                if seen == last:
                    return
    except JetStreamError as error:
        raise _not_found(session, error) from error
    if last is not None and seen < last and not filter_subject:
        there = min(last, await last_sequence(bus, session))
        if seen < there:
            raise UnavailableError(f"the log of session {session} was read up to message {seen} of {there}; try again")


async def replay_span(
    bus: Bus, session: str, *, start_ns: int | None, stop_ns: int | None, last: int
) -> AsyncGenerator[LogMessage, None]:
    """All facts of a session, and the audio that came in a span of its clock, in order.

    Where the span lies in the log is found by bisection: it costs what it holds, however long the session is.

    Parameters
    ----------
    start_ns, stop_ns
        Session clock; None = from the beginning, to the end. Audio that came near their edges may be there or not.
    last
        Stream sequence of the last message to read.
    """
    first = 1 if start_ns is None else await _sequence_at(bus, session, start_ns, last)
    stop = last if stop_ns is None else await _sequence_at(bus, session, stop_ns, last) - 1
    parts = ((1, first - 1, facts(session)), (first, stop, ""), (stop + 1, last, facts(session)))
    for begin, end, subject in parts:
        if begin <= end:
            async with aclosing(replay(bus, session, first=begin, last=end, filter_subject=subject)) as messages:
                async for message in messages:
                    yield message


async def _sequence_at(bus: Bus, session: str, at_ns: int, last: int) -> int:
    """Sequence of the first message of audio at or after a moment, or thereabouts; else the one behind `last`."""
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        found = await read_next(bus, session_stream_name(session), packets_all(session), middle)
        if found is None or found.sequence >= high or not _came_before(found.data, at_ns):
            high = middle
        else:
            low = found.sequence + 1
    return low


def _came_before(data: bytes, at_ns: int) -> bool:
    try:
        return decode_batch(data).base_ns < at_ns
    except MalformedError:
        return True  # somewhere it stands; the next one tells


def _not_found(session: str, error: JetStreamError) -> Exception:
    if error.err_code == STREAM_NOT_FOUND:
        return SessionNotFoundError(f"there is no session {session}; `retold sessions ls` lists them")
    return error
