"""Facts of a call: what happened, in the past tense, on `rec.<session>.evt`. JSON, so that a person can read the log.

The tag carries the version (`session_started.1`). A new field has a default; a new meaning is a new tag. Golden files
of every tag ever published are in `tests/data/golden/`. Discord's snowflakes are strings, as in Discord's own API: they
exceed the integers that JSON's other readers keep exactly.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from contracts import wire
from contracts.ids import Snowflake
from contracts.packets import Outcome
from contracts.recipes import Recipe


class Fact(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """What every fact says.

    Attributes
    ----------
    id
        Unique inside the session: the Nats-Msg-Id, so that a retry is harmless.
    session
        The session it belongs to.
    at_ns
        When, on the session clock: nanoseconds since SessionStarted, by the recorder's monotonic clock.
    unix_ns
        When, by the recorder's wall clock: nanoseconds since 1970.
    """

    id: str
    session: str
    at_ns: int
    unix_ns: int


class SessionStarted(Fact, frozen=True, kw_only=True, tag="session_started.1"):
    """Somebody asked for a recording. Zero of the session clock.

    Attributes
    ----------
    boot_id, boottime_ns
        The recorder's boot and CLOCK_BOOTTIME at zero, so that a restarted capture continues the same clock.
    mix
        What to make of it at the end, besides the default mix and tracks.
    """

    guild_id: Snowflake
    guild_name: str
    channel_id: Snowflake
    channel_name: str
    name: str = ""
    started_by: Snowflake | None = None
    boot_id: str = ""
    boottime_ns: int = 0
    recorder: str = ""
    mix: Recipe | None = None


class TakeOpened(Fact, frozen=True, kw_only=True, tag="take_opened.1"):
    """A voice connection stands. `take` counts from 1 inside the session.

    Attributes
    ----------
    cause
        `start`, `reconnect`, `move` or `restart`.
    ssrc
        The recorder's own.
    mode
        Transport encryption mode.
    dave_version
        0 if the call is not end-to-end encrypted.
    """

    take: int
    cause: str
    channel_id: Snowflake
    ssrc: int
    mode: str
    dave_version: int


class TakeClosed(Fact, frozen=True, kw_only=True, tag="take_closed.1"):
    """A voice connection ended; `cause` says why."""

    take: int
    cause: str


class GapRecorded(Fact, frozen=True, kw_only=True, tag="gap_recorded.1"):
    """Nothing was heard between two takes.

    Attributes
    ----------
    take
        The one that follows.
    from_ns, to_ns
        Session clock: when the last connection was lost or last heard anything, and when the next one stood.
    cause
        Why: that of the earlier take's end.
    """

    take: int
    from_ns: int
    to_ns: int
    cause: str


class RecoveryBegun(Fact, frozen=True, kw_only=True, tag="recovery_begun.1"):
    """Something was wrong with the connection, and the recorder did something about it.

    Attributes
    ----------
    action
        `rekey` (asked to be taken into the encrypted group anew), `reconnect` or `revive`.
    cause
        `proposals_refused`, `frames_undecryptable`, `route_silent`, `heartbeat_unanswered`, ...
    """

    take: int
    action: str
    cause: str


class RecorderDeafened(Fact, frozen=True, kw_only=True, tag="recorder_deafened.1"):
    """A moderator deafened the recorder: Discord sends it no audio until it is undeafened."""

    take: int


class RecorderUndeafened(Fact, frozen=True, kw_only=True, tag="recorder_undeafened.1"):
    """The recorder is not deafened any more."""

    take: int


class EncryptionChanged(Fact, frozen=True, kw_only=True, tag="encryption_changed.1"):
    """End-to-end encryption went on or off in mid-call; `dave_version` is the one in force, 0 = off."""

    take: int
    dave_version: int


class EpochChanged(Fact, frozen=True, kw_only=True, tag="epoch_changed.1"):
    """The end-to-end encrypted group moved on: who is in it, and the code its members can compare."""

    take: int
    epoch: int
    dave_version: int
    members: tuple[Snowflake, ...] = ()
    privacy_code: str = ""


class SpeakerJoined(Fact, frozen=True, kw_only=True, tag="speaker_joined.1"):
    """A person is in the channel: at the take's opening, or from now on. `name` is empty if nobody told it."""

    take: int
    user_id: Snowflake
    name: str
    bot: bool = False


class SpeakerLeft(Fact, frozen=True, kw_only=True, tag="speaker_left.1"):
    """A person left the channel."""

    take: int
    user_id: Snowflake


class SpeakerIdentified(Fact, frozen=True, kw_only=True, tag="speaker_identified.1"):
    """An SSRC belongs to a person.

    Attributes
    ----------
    name
        As known at that moment; SpeakerJoined knows it better.
    by
        `gateway` (op 5 or 12), or `key`: only that person's key opened the frame.
    """

    take: int
    ssrc: int
    user_id: Snowflake
    name: str
    by: str


class SenderReported(Fact, frozen=True, kw_only=True, tag="sender_report.1"):
    """An RTCP sender report came, about once a second from each sender; `at_ns` is the kernel's arrival stamp.

    Attributes
    ----------
    ssrc
        The sender's.
    raw
        The datagram without transport encryption: the report, and whatever RTCP stood behind it (RFC 3550 §6.4.1).
    """

    take: int
    ssrc: int
    raw: bytes


class NoteAdded(Fact, frozen=True, kw_only=True, tag="note_added.1"):
    """Somebody marked a moment. `at_ns` is the moment meant, not when it was typed."""

    text: str
    author: str = ""
    author_id: Snowflake | None = None


class PanelPosted(Fact, frozen=True, kw_only=True, tag="panel_posted.1"):
    """The message that shows the session stands there; the newest one counts."""

    channel_id: Snowflake
    message_id: Snowflake


class NoticeSpoken(Fact, frozen=True, kw_only=True, tag="notice_spoken.1"):
    """The recorder said into the call, in this language, that it is being recorded; `at_ns` is when it had said so."""

    language: str


class ConsentRuled(Fact, frozen=True, kw_only=True, tag="consent_ruled.1"):
    """The guild's rule from now on: `notice`, `opt-out` or `opt-in`; what a person said outweighs it."""

    mode: str


class SpeakerWithheld(Fact, frozen=True, kw_only=True, tag="speaker_withheld.1"):
    """From now on this person's speech is not written, and what arrived later is not rendered.

    Attributes
    ----------
    why
        `opted_out`, or `not_opted_in`.
    """

    user_id: Snowflake
    why: str


class SpeakerAdmitted(Fact, frozen=True, kw_only=True, tag="speaker_admitted.1"):
    """From now on this person's speech is written again. Who was never withheld needs no admission."""

    user_id: Snowflake


class PersonForgotten(Fact, frozen=True, kw_only=True, tag="person_forgotten.1"):
    """A person was taken out of the session: their packets, and facts about them, were in the log before.

    Attributes
    ----------
    messages, packets
        Batches and packets that were erased.
    kept_sha256
        Digest of every batch that stayed, in order: proof that others' audio is what it was.
    """

    user_id: Snowflake
    messages: int
    packets: int
    kept_sha256: str


class TrackCount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was recorded of one SSRC: proof that nothing is missing.

    Attributes
    ----------
    batches
        How many were published: numbers 0 to batches - 1.
    outcomes
        Packets by `Outcome` name.
    duplicates, lost
        Datagrams that came twice and were dropped; sequence numbers that never came.
    """

    take: int
    ssrc: int
    batches: int
    outcomes: dict[str, int]
    user_id: Snowflake | None = None
    duplicates: int = 0
    lost: int = 0


class SessionEnded(Fact, frozen=True, kw_only=True, tag="session_ended.1"):
    """The recording is over; `cause` says why, `tracks` what it holds.

    Attributes
    ----------
    ignored
        Datagrams that were not audio, by cause (`rtcp`, `video`, `not_rtp`, ...).
    """

    cause: str
    tracks: tuple[TrackCount, ...]
    ended_by: Snowflake | None = None
    ignored: dict[str, int] = {}


SessionFact: TypeAlias = (
    SessionStarted
    | TakeOpened
    | TakeClosed
    | GapRecorded
    | RecoveryBegun
    | RecorderDeafened
    | RecorderUndeafened
    | EncryptionChanged
    | EpochChanged
    | SpeakerJoined
    | SpeakerLeft
    | SpeakerIdentified
    | SenderReported
    | NoteAdded
    | PanelPosted
    | NoticeSpoken
    | ConsentRuled
    | SpeakerWithheld
    | SpeakerAdmitted
    | PersonForgotten
    | SessionEnded
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[SessionFact] = msgspec.json.Decoder(SessionFact)


def encode_fact(fact: SessionFact) -> bytes:
    """The wire form of a fact."""
    return _encoder.encode(fact)


def decode_fact(data: bytes) -> SessionFact:
    """A fact from its wire form.

    Raises
    ------
    MalformedError
        If it is not a fact of a tag we know.
    """
    return wire.decode(_decoder, data, "a fact")


_RECORDED: Final = frozenset(outcome.name for outcome in Outcome if not outcome.undecryptable)


def count_outcomes(tracks: tuple[TrackCount, ...]) -> dict[str, int]:
    """Totals over tracks: `recorded` (voice, silence, padding), `undecryptable`, `lost`, `duplicates`.

    An outcome of a later version counts as undecryptable: we do not get any Opus from it.
    """
    totals = {"recorded": 0, "undecryptable": 0, "lost": 0, "duplicates": 0}
    for track in tracks:
        for name, count in track.outcomes.items():
            totals["recorded" if name in _RECORDED else "undecryptable"] += count
        totals["lost"] += track.lost
        totals["duplicates"] += track.duplicates
    return totals
