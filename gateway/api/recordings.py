"""Recordings that run: start, stop, mark, watch. Capture answers, over the bus."""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec
from litestar import delete, post, route
from litestar.params import FromPath

from contracts.commands import AddNote, RefusedError, StartRecording, StopRecording
from contracts.errors import UnavailableError
from contracts.jetstream import asking
from gateway import problems
from gateway.api.access import authorize, check_query, read_body
from gateway.api.models import (
    NewNote,
    NewRecording,
    Recordings,
    StartedRecording,
    StoppedRecording,
    StoredNote,
)
from gateway.edge import METHODS
from gateway.problems import ProblemError
from gateway.services import Visitor, services_of

RECORDINGS: Final = "/api/v1/recordings"
RECORDING: Final = RECORDINGS + "/{guild:str}"

R = TypeVar("R")


@route(RECORDINGS, http_method=METHODS)
async def list_recordings(request: Visitor) -> Recordings:
    """What is being recorded."""
    caller = await authorize(request, "api_recordings", "read")
    check_query(request)
    status = await _answer(request, asking.ask_status(services_of(request).bus))
    seen = tuple(live for live in status.sessions if caller.claims.guild in {"", live.guild_id})
    return Recordings(status.ready, seen)


@post(RECORDINGS, status_code=HTTPStatus.CREATED)
async def start(request: Visitor) -> StartedRecording:
    """Join a voice channel and record it."""
    caller = await authorize(request, "api_start", "record")
    check_query(request)
    body = await read_body(request, NewRecording)
    caller.require_guild(body.guild_id)
    asked = StartRecording(guild_id=body.guild_id, channel_id=body.channel_id, name=body.name, mix=body.mix)
    started = await _answer(request, asking.start_recording(services_of(request).bus, asked))
    return StartedRecording(started.session)


@delete(RECORDING, status_code=HTTPStatus.OK)
async def stop(request: Visitor, guild: FromPath[str]) -> StoppedRecording:
    """End a server's recording and leave."""
    caller = await authorize(request, "api_stop", "record")
    check_query(request)
    caller.require_guild(guild)
    stopped = await _answer(request, asking.stop_recording(services_of(request).bus, StopRecording(guild_id=guild)))
    return msgspec.convert(stopped, StoppedRecording, from_attributes=True)


@post(f"{RECORDING}/notes", status_code=HTTPStatus.CREATED)
async def add_note(request: Visitor, guild: FromPath[str]) -> StoredNote:
    """Mark a moment of a server's recording."""
    caller = await authorize(request, "api_note", "note")
    check_query(request)
    body = await read_body(request, NewNote)
    caller.require_guild(guild)
    note = AddNote(guild_id=guild, text=body.text, ago_s=body.ago_s, author=body.author or caller.claims.sub)
    noted = await _answer(request, asking.add_note(services_of(request).bus, note))
    return StoredNote(noted.session, noted.at_s)


async def _answer(request: Visitor, answering: Awaitable[R]) -> R:
    """Capture's answer; a refusal is a problem with capture's own words."""
    try:
        return await answering
    except UnavailableError as error:
        connected = services_of(request).bus.connected
        raise ProblemError(problems.NO_RECORDER if connected else problems.UNAVAILABLE) from error
    except RefusedError as error:
        refused = error.refused
        known = problems.IMPOSSIBLE if refused.code in {"unknown_guild", "unknown_channel"} else problems.REFUSED
        raise ProblemError(known, detail=f"{refused.code}: {refused.message}") from error
