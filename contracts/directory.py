"""The directory of sessions: one entry each in the KV bucket `sessions`.

A projection that the streams can rebuild, but for `keeping`: what was decided about a session, not what happened in it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from contracts import wire
from contracts.events import (
    NoteAdded,
    PanelPosted,
    PersonForgotten,
    SessionEnded,
    SessionFact,
    SessionStarted,
    SpeakerJoined,
    count_outcomes,
)
from contracts.ids import Snowflake
from contracts.recipes import Recipe


class Archived(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session that is not on the server, but in the archive: since when, and what it holds there."""

    unix_ns: int
    messages: int = 0
    files: int = 0
    bytes: int = 0


class Keeping(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How long a session is kept, and where: what people and settings decided, and no log tells.

    Attributes
    ----------
    pinned
        It stays, whatever age and space say.
    going_unix_ns, going_why
        When it will be deleted unless somebody pins it, and why: `age` or `space`. None: nobody means to.
    told
        Whether its people were told that it is going.
    deleted_unix_ns, deleted_by
        When it was deleted, by whom: from then on nobody sees it, and until it is erased it can be brought back.
    archived
        Where it is, if it is not on the server.
    fetched_unix_ns
        When it was last brought back from the archive.
    """

    pinned: bool = False
    going_unix_ns: int | None = None
    going_why: str = ""
    told: bool = False
    deleted_unix_ns: int | None = None
    deleted_by: str = ""
    archived: Archived | None = None
    fetched_unix_ns: int | None = None


class SessionEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a list of sessions shows.

    Attributes
    ----------
    ended_unix_ns
        None while it is being recorded.
    people
        Names by user id, of everybody who was there.
    notes
        Their ids, in the order they were added.
    panel_channel_id, panel_message_id
        Where the message that shows the session stands, if it does.
    forgotten
        Who was erased from it.
    mix
        What to make of it at the end, besides the default mix and tracks.
    keeping
        How long it is kept; the only thing here that the log does not tell.
    """

    session: str
    guild_id: Snowflake
    guild_name: str
    channel_id: Snowflake
    channel_name: str
    started_unix_ns: int
    name: str = ""
    ended_unix_ns: int | None = None
    duration_ns: int | None = None
    cause: str = ""
    people: dict[Snowflake, str] = {}
    recorded: int = 0
    undecryptable: int = 0
    lost: int = 0
    started_by: Snowflake | None = None
    notes: tuple[str, ...] = ()
    panel_channel_id: Snowflake | None = None
    panel_message_id: Snowflake | None = None
    forgotten: tuple[Snowflake, ...] = ()
    mix: Recipe | None = None
    keeping: Keeping = Keeping()

    @property
    def deleted(self) -> bool:
        """Whether somebody deleted it: nobody sees it any more, though it can be brought back."""
        return self.keeping.deleted_unix_ns is not None


def fold_entry(entry: SessionEntry | None, fact: SessionFact) -> SessionEntry | None:
    """The entry after one more fact; the same fact twice changes nothing. None before SessionStarted."""
    if isinstance(fact, SessionStarted):
        return entry or SessionEntry(
            session=fact.session,
            guild_id=fact.guild_id,
            guild_name=fact.guild_name,
            channel_id=fact.channel_id,
            channel_name=fact.channel_name,
            started_unix_ns=fact.unix_ns,
            name=fact.name,
            started_by=fact.started_by,
            mix=fact.mix,
        )
    return None if entry is None else msgspec.structs.replace(entry, **_changes(entry, fact))


def _changes(entry: SessionEntry, fact: SessionFact) -> dict[str, Any]:
    """What a fact changes in an entry, by field."""
    match fact:
        case SpeakerJoined() if not fact.bot and fact.user_id not in entry.forgotten:
            name = fact.name or entry.people.get(fact.user_id, fact.user_id)
            return {"people": {**entry.people, fact.user_id: name}}
        case NoteAdded():
            return {"notes": tuple(dict.fromkeys((*entry.notes, fact.id)))}
        case PanelPosted():
            return {"panel_channel_id": fact.channel_id, "panel_message_id": fact.message_id}
        case PersonForgotten():
            people = {user_id: name for user_id, name in entry.people.items() if user_id != fact.user_id}
            return {"people": people, "forgotten": tuple(sorted({*entry.forgotten, fact.user_id}))}
        case SessionEnded():
            totals = count_outcomes(fact.tracks)
            del totals["duplicates"]
            return {"ended_unix_ns": fact.unix_ns, "duration_ns": fact.at_ns, "cause": fact.cause, **totals}
        case _:
            return {}


_entries = msgspec.json.Decoder(SessionEntry)


def encode_entry(entry: SessionEntry) -> bytes:
    """The wire form: JSON."""
    return msgspec.json.encode(entry)


def decode_entry(data: bytes) -> SessionEntry:
    """An entry; MalformedError if it is none."""
    return wire.decode(_entries, data, "a session entry")
