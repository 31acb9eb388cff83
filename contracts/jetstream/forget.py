"""Forgetting a person on the server: a session's stream is written anew without them, and the old one is deleted.

Purging messages would leave them readable on the disk; deleting a stream deletes its files. So:

    1  the log without the person goes into a bundle on this machine's disk, whole and synced, under `<name>.part`;
    2  it is renamed: from here on it is the session, whatever dies;
    3  the stream, the files made of it and what renders told are deleted;
    4  the bundle is put back, compared with what the server holds then, and removed.

A start that finds such a bundle goes on at 3.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import structlog

from contracts.artifacts import RenderJob
from contracts.bundle import BundleHeader, BundleMessage, BundleReader, BundleWriter
from contracts.errors import MalformedError, RetoldError
from contracts.events import (
    PersonForgotten,
    SessionEnded,
    SessionFact,
    SessionStarted,
    decode_fact,
    encode_fact,
)
from contracts.forgetting import Removal, Sources
from contracts.ids import Snowflake, new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import rebuild_entry, was_erased
from contracts.jetstream.erase import erase_messages
from contracts.jetstream.jobs import submit_job
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.replay import last_sequence, replay
from contracts.jetstream.streams import create_session, delete_stream
from contracts.jetstream.transfer import compare, publish_all
from contracts.recipes import Recipe
from contracts.streams import LIVE, RENDERS, object_stream_name, session_stream_name
from contracts.subjects import facts, live

log = structlog.get_logger()

SUFFIX: Final = ".forget"
PART: Final = ".part"
WRITER: Final = "retold forget"
REQUESTED_BY: Final = "forget"


class StillRunningError(RetoldError):
    """The session has not ended; a person can be taken out of it afterwards."""


async def forget_in_session(bus: Bus, session: str, user_id: Snowflake, folder: Path) -> PersonForgotten | None:
    """Take a person out of a session that has ended; the proof, or None if nothing of them was in it.

    Parameters
    ----------
    folder
        Where the bundle lies meanwhile; on the machine that records.

    Raises
    ------
    SessionNotFoundError
        If there is no such session.
    StillRunningError
        If it has no end yet.
    UnavailableError
        If the server went away; the next `finish_forgetting` goes on.
    """
    sources, ended = await _read_sources(bus, session, user_id)
    if not ended:
        raise StillRunningError(f"session {session} has not ended; ask again when it has")
    recipes = [stored.artifact.recipe for stored in await list_artifacts(bus, session)]
    path = folder / f"{session}{SUFFIX}"
    part = path.with_suffix(SUFFIX + PART)
    with part.open("w+b") as file:
        os.fchmod(file.fileno(), 0o600)
        proof = await _write_without(bus, session, sources, file)
        file.flush()
        os.fsync(file.fileno())
    if proof is None:
        part.unlink()
        return None
    part.rename(path)
    await _put_back(bus, session, path)
    await _render_anew(bus, session, user_id, recipes)
    log.info("person_forgotten", session=session, packets=proof.packets, messages=proof.messages)
    return proof


async def finish_forgetting(bus: Bus, folder: Path) -> list[str]:
    """Go on where an earlier process died; the sessions that are whole again."""
    for part in folder.glob(f"*{SUFFIX}{PART}"):  # noqa: ASYNC240  # a handful of files, at the start
        part.unlink()  # the session itself was not touched yet
    done = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):  # noqa: ASYNC240  # as above
        session = path.name.removesuffix(SUFFIX)
        if await was_erased(bus, session):
            path.unlink()
            continue
        await _put_back(bus, session, path)
        done.append(session)
    return done


async def _read_sources(bus: Bus, session: str, user_id: Snowflake) -> tuple[Sources, bool]:
    sources, ended = Sources(user_id), False
    async for message in replay(bus, session, filter_subject=facts(session)):
        fact = _decoded(message.data)
        if fact is not None:
            sources.apply(fact)
            ended = ended or isinstance(fact, SessionEnded)
    return sources, ended


async def _write_without(bus: Bus, session: str, sources: Sources, file: BinaryIO) -> PersonForgotten | None:
    """The log without the person and with the fact of it; None if it would be the same."""
    writer = BundleWriter(file, BundleHeader(session, time.time_ns(), WRITER))
    removal, changed = Removal(sources), False
    started: SessionStarted | None = None
    last_ns = 0
    async for message in replay(bus, session, last=await last_sequence(bus, session)):
        kept = removal.apply(message.subject, message.data)
        changed = changed or kept != message.data
        if kept is not None:
            writer.write(BundleMessage(message.subject, message.message_id, kept))
        fact = _decoded(message.data) if message.subject == facts(session) else None
        if isinstance(fact, SessionStarted):
            started = fact
        last_ns = max(last_ns, fact.at_ns) if fact else last_ns
    if not changed or started is None:
        return None
    proof = PersonForgotten(
        id=new_id(),
        session=session,
        at_ns=last_ns,
        unix_ns=started.unix_ns + last_ns,
        user_id=sources.user_id,
        messages=removal.messages,
        packets=removal.packets,
        kept_sha256=removal.kept_sha256,
    )
    writer.write(BundleMessage(facts(session), proof.id, encode_fact(proof)))
    writer.close()
    return proof


async def _put_back(bus: Bus, session: str, path: Path) -> None:
    """The bundle is the session: the server's is deleted and written anew."""
    await delete_stream(bus, session_stream_name(session))
    await delete_stream(bus, object_stream_name(session))
    await erase_messages(bus, RENDERS.name, f"renders.{session}.>")
    await erase_messages(bus, LIVE.name, live(session))
    await create_session(bus, session)
    with path.open("rb") as file:
        given = await publish_all(bus, session, BundleReader(file), None)
    await compare(bus, session, given)
    await rebuild_entry(bus, session)
    path.unlink()  # noqa: ASYNC240  # one file


async def _render_anew(bus: Bus, session: str, user_id: Snowflake, recipes: list[Recipe]) -> None:
    """What had been made is made again, without the person."""
    wanted = {}
    for recipe in recipes:
        people = None if recipe.people is None else tuple(each for each in recipe.people if each != user_id)
        if people != ():
            gains = {each: gain for each, gain in recipe.gain_db.items() if each != user_id}
            mute = tuple(each for each in recipe.mute if each != user_id)
            again = msgspec.structs.replace(recipe, people=people, mute=mute, gain_db=gains)
            wanted[msgspec.json.encode(again)] = again
    for recipe in wanted.values():
        await submit_job(bus, RenderJob(id=new_id(), session=session, recipe=recipe, requested_by=REQUESTED_BY))


def _decoded(data: bytes) -> SessionFact | None:
    try:
        return decode_fact(data)
    except MalformedError:
        return None
