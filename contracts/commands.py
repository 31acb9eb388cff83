"""Requests on the bus: what the command line, the bot's commands and the API ask of capture. JSON, one reply each."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from contracts import wire
from contracts.errors import RetoldError
from contracts.guilds import Choice, ConsentMode
from contracts.ids import Snowflake
from contracts.recipes import Recipe


class StartRecording(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `ctl.record.start`: join and record; `mix` is made at the end, besides the default mix and tracks."""

    guild_id: Snowflake
    channel_id: Snowflake
    name: str = ""
    requested_by: Snowflake | None = None
    panel_channel_id: Snowflake | None = None
    mix: Recipe | None = None


class StopRecording(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `ctl.record.stop`: end the guild's recording and leave; the cause stands in the log."""

    guild_id: Snowflake
    requested_by: Snowflake | None = None
    cause: Literal["stopped", "alone", "limit"] = "stopped"


class AddNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `ctl.record.note`: mark the moment `ago_s` seconds before now."""

    guild_id: Snowflake
    text: str
    ago_s: float = 0.0
    author: str = ""
    author_id: Snowflake | None = None


class PlacePanel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `ctl.record.panel`: note where the running session's panel stands."""

    guild_id: Snowflake
    channel_id: Snowflake
    message_id: Snowflake


class ChooseConsent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `ctl.record.consent`: from now on, a person is recorded in this guild (`in`), or is not (`out`)."""

    guild_id: Snowflake
    user_id: Snowflake
    choice: Choice


class ForgetPerson(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `ctl.record.forget`: erase a person from the guild's past sessions, or from the one that is named."""

    guild_id: Snowflake
    user_id: Snowflake
    session: str = ""


class AskStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """On `ctl.record.status`: what is being recorded."""


class Started(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="started"):
    """Recording, as this session."""

    session: str


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stopped"):
    """Ended, and every packet of it is in the log."""

    session: str
    duration_s: float
    recorded: int
    undecryptable: int
    lost: int


class Noted(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="noted"):
    """The moment is marked, `at_s` seconds on the session clock."""

    session: str
    at_s: float


class PanelPlaced(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="panel_placed"):
    """It is in the log."""

    session: str


class ConsentChosen(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="consent_chosen"):
    """It holds from now on.

    Attributes
    ----------
    live_session
        The running session that it changed, if one runs here.
    earlier
        Past sessions of the guild in which this person is heard.
    """

    live_session: str = ""
    earlier: int = 0


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="forgotten"):
    """A person was erased.

    Attributes
    ----------
    sessions
        Where from.
    packets
        How many.
    later
        A session that still runs, or is being saved: the person is erased from it when it has ended.
    """

    sessions: tuple[str, ...] = ()
    packets: int = 0
    later: tuple[str, ...] = ()


class LiveSpeaker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How somebody in the call is heard just now.

    Attributes
    ----------
    user_id
        None if nobody knows whose voice it is.
    state
        `heard` in the last second, `quiet`, `undecryptable`: there is a voice, but no key opens it; `opted_out` or
        `not_opted_in`: what they say is not written.
    packets, lost
        Recorded and lost so far, in this take.
    level_dbov
        Loudest in the last half second, -dBov (0 is full scale, 127 silence); None if nobody told.
    """

    state: str
    name: str = ""
    user_id: Snowflake | None = None
    packets: int = 0
    lost: int = 0
    level_dbov: int | None = None


class LiveSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One running recording, as capture sees it.

    Attributes
    ----------
    elapsed_s, saved_up_to_s
        Session clock now, and up to which everything heard is in the log.
    last_packet_age_s
        Seconds since the last packet of audio; None before the first of this take.
    unheard_s
        Seconds since anything came while Discord says that somebody speaks; None while nobody does.
    people
        Names by user id, of everybody who was there so far.
    spool_failures, dropped_batches
        Messages that the disk did not take; messages that neither disk nor server took until memory was full.
    ack_p50_s, ack_p99_s
        How long the last few hundred messages took to be acknowledged, from their first sending.
    resent
        Messages that were sent more than once.
    dave_ready, dave_epoch
        Whether the keys of the encrypted call are there, or none are needed; the group's epoch.
    room, guild_name
        The channel's name, and its server's.
    bytes
        Audio recorded so far.
    panel_channel_id, panel_message_id
        Where its panel is wanted; where it stands, if it does.
    """

    session: str
    guild_id: Snowflake
    channel_id: Snowflake
    elapsed_s: float
    take: int
    packets: dict[str, int]
    unacked_batches: int
    held_packets: int
    dave_version: int
    last_packet_age_s: float | None = None
    speakers: tuple[LiveSpeaker, ...] = ()
    deafened: bool = False
    saved_up_to_s: float = 0.0
    spool_bytes: int = 0
    spool_failures: int = 0
    dropped_batches: int = 0
    ack_latency_s: float = 0.0
    name: str = ""
    started_by: Snowflake | None = None
    started_unix_ns: int = 0
    consent: ConsentMode = "notice"
    privacy_code: str = ""
    notes: int = 0
    last_note: str = ""
    bytes: int = 0
    panel_channel_id: Snowflake | None = None
    panel_message_id: Snowflake | None = None
    unheard_s: float | None = None
    ack_p50_s: float = 0.0
    ack_p99_s: float = 0.0
    people: dict[Snowflake, str] = {}
    resent: int = 0
    dave_ready: bool = True
    dave_epoch: int = 0
    room: str = ""
    guild_name: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="status"):
    """Every running recording of one capture process."""

    ready: bool
    sessions: tuple[LiveSession, ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="refused"):
    """It was not done; the message says why and what helps.

    Attributes
    ----------
    code
        Stable: `already_recording`, `not_recording`, `unknown_guild`, `unknown_channel`, `missing_permission`,
        `connect_failed`, `not_ready`, `malformed`, `failed`.
    """

    code: str
    message: str


Reply: TypeAlias = Started | Stopped | Noted | PanelPlaced | ConsentChosen | Forgotten | Status | Refused


class RefusedError(RetoldError):
    """Capture refused."""

    def __init__(self, refused: Refused) -> None:
        self.refused = refused
        super().__init__(refused.message)


_replies: msgspec.json.Decoder[Reply] = msgspec.json.Decoder(Reply)


def encode_reply(reply: Reply) -> bytes:
    """The wire form: JSON."""
    return msgspec.json.encode(reply)


def decode_reply(data: bytes) -> Reply:
    """A reply; MalformedError if it is none."""
    return wire.decode(_replies, data, "a reply")
