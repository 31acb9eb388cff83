"""What the API takes and gives, beside the contracts that it passes on as they are."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from contracts.artifacts import Artifact
from contracts.commands import LiveSession
from contracts.directory import SessionEntry
from contracts.jetstream.objects import StoredArtifact
from contracts.links import Action, Permission
from contracts.recipes import Recipe
from gateway.mixes import Mix
from gateway.story import Gap, Note, Received, Story

State = Literal["live", "rendering", "empty", "ready", "archived"]
Id = Annotated[str, Meta(pattern="^[1-9][0-9]{0,19}$", description="A Discord snowflake.")]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session as a list shows it."""

    id: str
    state: State
    name: str
    guild_id: str
    guild_name: str
    channel_id: str
    channel_name: str
    started_unix_ns: int
    ended_unix_ns: int | None
    duration_s: float
    people: dict[str, str]


class SessionDetails(Session, frozen=True, kw_only=True):
    """A session with its story; `received` counts packets by user id."""

    notes: tuple[Note, ...]
    gaps: tuple[Gap, ...]
    received: dict[str, Received]


class SessionPage(msgspec.Struct, frozen=True):
    """Sessions, newest first; `next` goes into `before` for those that follow, and is null at the end."""

    sessions: tuple[Session, ...]
    next: str | None


class EventPage(msgspec.Struct, frozen=True):
    """Facts of a session, oldest first; `next` goes into `first` for those that follow, and is null at the end."""

    events: tuple[dict[str, Any], ...]
    next: int | None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a session."""

    name: str
    filename: str
    media_type: str
    bytes: int
    sha256: str
    duration_s: float
    user_id: str | None
    recipe: Recipe
    engine: str
    rendered_unix_ns: int


class FileList(msgspec.Struct, frozen=True):
    """Every file of a session."""

    artifacts: tuple[File, ...]


class Render(msgspec.Struct, frozen=True, kw_only=True):
    """A job: `fraction` of it done, `eta_s` seconds to go if that is known, `files` that it made."""

    id: str
    session: str
    state: Literal["queued", "running", "stored", "failed", "cancelled"]
    fraction: float
    eta_s: float | None
    reason: str
    recipe: Recipe
    files: tuple[str, ...]


class RenderList(msgspec.Struct, frozen=True):
    """The jobs of a session that this gateway knows of, oldest first."""

    renders: tuple[Render, ...]


class NewRecording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Join a voice channel and record it; `mix` is made at the end, besides the default mix and tracks."""

    guild_id: Id
    channel_id: Id
    name: Annotated[str, Meta(max_length=100)] = ""
    mix: Recipe | None = None


class StartedRecording(msgspec.Struct, frozen=True):
    """Recording, as this session."""

    session: str


class StoppedRecording(msgspec.Struct, frozen=True):
    """Ended; every packet is in the log."""

    session: str
    duration_s: float
    recorded: int
    undecryptable: int
    lost: int


class Recordings(msgspec.Struct, frozen=True):
    """What is being recorded; `ready` tells whether the recorder is connected to Discord."""

    ready: bool
    recordings: tuple[LiveSession, ...]


class NewNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Mark the moment `ago_s` seconds before now."""

    text: Annotated[str, Meta(min_length=1, max_length=1000)]
    ago_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    author: Annotated[str, Meta(max_length=100)] = ""


class StoredNote(msgspec.Struct, frozen=True):
    """Marked, at so many seconds of the session."""

    session: str
    at_s: float


class NewLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A link to the session's page, or with `artifact` to one file of it; `who`: the only account it opens for."""

    artifact: Annotated[str, Meta(max_length=200)] = ""
    hours: Annotated[float, Meta(gt=0, le=744)] = 24.0
    may: tuple[Permission, ...] = ()
    uses: Annotated[int, Meta(ge=1, le=1000)] | None = None
    who: Annotated[str, Meta(pattern=r"^([0-9]{1,20})?$")] = ""


class SignedLink(msgspec.Struct, frozen=True):
    """The link; its id (`jti`) withdraws it."""

    url: str
    jti: str
    action: Action
    expires_unix_s: int


def show_session(entry: SessionEntry, state: str, duration_s: float) -> Session:
    """A session of the directory."""
    return msgspec.convert(_common(entry, state, duration_s), Session)


def show_details(entry: SessionEntry, state: str, duration_s: float, story: Story) -> SessionDetails:
    """A session with its story."""
    common = _common(entry, state, duration_s)
    common["people"] = {**story.names, **entry.people}
    return SessionDetails(**common, notes=story.notes, gaps=story.gaps, received=story.received())


def show_file(stored: StoredArtifact) -> File:
    """A file of the store."""
    artifact: Artifact = stored.artifact
    return File(
        name=artifact.name,
        filename=artifact.filename,
        media_type=artifact.media_type,
        bytes=stored.size,
        sha256=stored.sha256,
        duration_s=artifact.duration_ticks / 48_000,
        user_id=artifact.user_id,
        recipe=artifact.recipe,
        engine=artifact.engine,
        rendered_unix_ns=artifact.rendered_unix_ns,
    )


def show_render(mix: Mix) -> Render:
    """A job as it stands."""
    return msgspec.convert(
        {
            "id": mix.job,
            "session": mix.session,
            "state": mix.state,
            "fraction": round(mix.fraction, 4),
            "eta_s": mix.eta_s,
            "reason": mix.reason,
            "recipe": msgspec.to_builtins(mix.recipe),
            "files": mix.files,
        },
        Render,
    )


def _common(entry: SessionEntry, state: str, duration_s: float) -> dict[str, Any]:
    return {
        "id": entry.session,
        "state": state,
        "name": entry.name,
        "guild_id": entry.guild_id,
        "guild_name": entry.guild_name,
        "channel_id": entry.channel_id,
        "channel_name": entry.channel_name,
        "started_unix_ns": entry.started_unix_ns,
        "ended_unix_ns": entry.ended_unix_ns,
        "duration_s": duration_s,
        "people": entry.people,
    }
