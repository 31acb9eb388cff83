r"""Every subject, built and parsed in one place.

rec.<session>.pkt.<take>.<ssrc>   packet batches      \ stream REC_<session>
rec.<session>.evt                 facts of the call   /
jobs.render                       render jobs           stream JOBS
renders.<session>.<job>           progress and results  stream RENDERS
live.<session>                    MP3 of what is said   stream LIVE
ctl.record.<verb>                 requests to capture   no stream
ctl.shard.<shard>.<verb>          the same, to the capture that has the guild's shard
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

import msgspec

from contracts.errors import MalformedError

JOBS_RENDER: Final = "jobs.render"
LIVE_ALL: Final = "live.>"
START_RECORDING: Final = "ctl.record.start"
STOP_RECORDING: Final = "ctl.record.stop"
ADD_NOTE: Final = "ctl.record.note"
STATUS: Final = "ctl.record.status"
PLACE_PANEL: Final = "ctl.record.panel"
CHOOSE_CONSENT: Final = "ctl.record.consent"
FORGET_PERSON: Final = "ctl.record.forget"
SHARD_ALL: Final = "ctl.shard.*.*"
NAME: Final = re.compile(r"[A-Za-z0-9_-]+")  # no wildcard, no separator
NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}")


class PacketSubject(msgspec.Struct, frozen=True):
    """`rec.<session>.pkt.<take>.<ssrc>`."""

    session: str
    take: int
    ssrc: int


class FactSubject(msgspec.Struct, frozen=True):
    """`rec.<session>.evt`."""

    session: str


class RenderSubject(msgspec.Struct, frozen=True):
    """`renders.<session>.<job>`."""

    session: str
    job: str


Subject: TypeAlias = PacketSubject | FactSubject | RenderSubject


def packets(session: str, take: int, ssrc: int) -> str:
    """Where one SSRC's batches go."""
    return f"rec.{session}.pkt.{take}.{ssrc}"


def packets_all(session: str) -> str:
    """Every SSRC's batches."""
    return f"rec.{session}.pkt.>"


def facts(session: str) -> str:
    """Where a session's facts go."""
    return f"rec.{session}.evt"


def session_all(session: str) -> str:
    """All of a session: the one subject of its stream."""
    return f"rec.{session}.>"


def render(session: str, job: str) -> str:
    """Where a job's progress and result go."""
    return f"renders.{session}.{job}"


def live(session: str) -> str:
    """Where a running session's sound goes: MP3 frames, a second or so in a message."""
    return f"live.{session}"


def to_shard(subject: str, shard: int) -> str:
    """Where the capture that has a shard listens for requests that others make on `ctl.record.<verb>`."""
    return f"ctl.shard.{shard}.{subject.rpartition('.')[2]}"


def parse(subject: str) -> Subject:
    """What a subject says.

    Raises
    ------
    MalformedError
        If it is none of ours.
    """
    match subject.split("."):
        case ["rec", session, "pkt", take, ssrc] if _are_names(session) and _are_numbers(take, ssrc):
            return PacketSubject(session, int(take), int(ssrc))
        case ["rec", session, "evt"] if _are_names(session):
            return FactSubject(session)
        case ["renders", session, job] if _are_names(session, job):
            return RenderSubject(session, job)
        case _:
            raise MalformedError(f"not a subject of ours: {subject[:80]!r}")


def _are_names(*tokens: str) -> bool:
    return all(NAME.fullmatch(token) for token in tokens)


def _are_numbers(*tokens: str) -> bool:
    """In their one spelling, so that `parse` has an inverse, and no longer than 32 bits are."""
    return all(NUMBER.fullmatch(token) for token in tokens)
