"""Asking capture over the bus: what the command line, Discord's commands and the API share.

Every function raises RefusedError if capture refuses (the message says why), UnavailableError if none runs.
"""

from __future__ import annotations

from typing import Final, TypeAlias, TypeVar

import msgspec

from contracts import subjects
from contracts.commands import (
    AddNote,
    AskStatus,
    ChooseConsent,
    ConsentChosen,
    ForgetPerson,
    Forgotten,
    Noted,
    PanelPlaced,
    PlacePanel,
    Refused,
    RefusedError,
    Reply,
    Started,
    StartRecording,
    Status,
    Stopped,
    StopRecording,
    decode_reply,
)
from contracts.jetstream.connection import Bus

START_TIMEOUT_S: Final = 60.0  # capture itself gives up earlier, and says why
STOP_TIMEOUT_S: Final = 90.0  # everything is durable when the answer comes
FORGET_TIMEOUT_S: Final = 600.0  # whole sessions are written anew
ASK_TIMEOUT_S: Final = 5.0

Request: TypeAlias = StartRecording | StopRecording | AddNote | PlacePanel | ChooseConsent | ForgetPerson | AskStatus
R = TypeVar("R", Started, Stopped, Noted, PanelPlaced, ConsentChosen, Forgotten, Status)


async def start_recording(bus: Bus, request: StartRecording) -> Started:
    """Record a channel."""
    return await _ask(bus, subjects.START_RECORDING, request, Started, START_TIMEOUT_S)


async def stop_recording(bus: Bus, request: StopRecording) -> Stopped:
    """End a guild's recording."""
    return await _ask(bus, subjects.STOP_RECORDING, request, Stopped, STOP_TIMEOUT_S)


async def add_note(bus: Bus, request: AddNote) -> Noted:
    """Mark a moment."""
    return await _ask(bus, subjects.ADD_NOTE, request, Noted, ASK_TIMEOUT_S)


async def place_panel(bus: Bus, request: PlacePanel) -> PanelPlaced:
    """Note where a session's panel stands."""
    return await _ask(bus, subjects.PLACE_PANEL, request, PanelPlaced, ASK_TIMEOUT_S)


async def choose_consent(bus: Bus, request: ChooseConsent) -> ConsentChosen:
    """A person is recorded from now on, or is not."""
    return await _ask(bus, subjects.CHOOSE_CONSENT, request, ConsentChosen, ASK_TIMEOUT_S)


async def forget_person(bus: Bus, request: ForgetPerson) -> Forgotten:
    """Erase a person from past sessions."""
    return await _ask(bus, subjects.FORGET_PERSON, request, Forgotten, FORGET_TIMEOUT_S)


async def ask_status(bus: Bus, *, shard: int | None = None) -> Status:
    """What is being recorded, by all captures, or on one shard."""
    subject = subjects.STATUS if shard is None else subjects.to_shard(subjects.STATUS, shard)
    return await _ask(bus, subject, AskStatus(), Status, ASK_TIMEOUT_S)


async def _ask(bus: Bus, subject: str, request: Request, kind: type[R], timeout_s: float) -> R:
    reply: Reply = decode_reply(await bus.request(subject, msgspec.json.encode(request), timeout_s=timeout_s))
    if isinstance(reply, Refused):
        raise RefusedError(reply)
    if not isinstance(reply, kind):
        raise TypeError(f"capture answered {type(reply).__name__}, not {kind.__name__}")
    return reply
