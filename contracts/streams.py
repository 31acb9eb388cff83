"""Streams, buckets and consumers as data; `contracts.jetstream.streams` puts them on a server.

One stream per session: replay touches only its own blocks, lag and size come for free, and deleting the stream really
erases the voice. Purging by subject would leave it readable on disk.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from contracts.ids import check_id
from contracts.subjects import JOBS_RENDER, LIVE_ALL, session_all

DEDUPE_WINDOW_S: Final = 600  # a retry or a re-send after a restart comes within ten minutes
ACK_WAIT_S: Final = 30  # a job not beaten for this long is given to another mixer
MAX_DELIVER: Final = 5
SESSION_PREFIX: Final = "REC_"
OBJECT_PREFIX: Final = "OBJ_"
OBJECT_CHUNK_BYTES: Final = 128 * 1024  # small chunks win for ranges: less is read beside the point
DIRECTORY_BUCKET: Final = "sessions"
GUILDS_BUCKET: Final = "guilds"
REVOKED_BUCKET: Final = "revoked"
USES_BUCKET: Final = "uses"
VAULTS_BUCKET: Final = "vaults"
USES_KEPT_S: Final = 32 * 86_400  # a day longer than any link lives
LEASES_BUCKET: Final = "leases"
BUCKETS: Final = (
    DIRECTORY_BUCKET,
    GUILDS_BUCKET,
    REVOKED_BUCKET,
    USES_BUCKET,
    LEASES_BUCKET,
    VAULTS_BUCKET,
)
LEASE_S: Final = 6  # a capture that does not renew for so long has lost its shards and sessions
RENDER_CONSUMER: Final = "mixers"
FOLLOW_CONSUMER: Final = "follow"  # durable, on the stream of each session that a mixer follows
WEBHOOKS_CONSUMER: Final = "webhooks"  # durable, where the news stands that gateways tell
LIVE_AGE_S: Final = 120  # what a listener who joins can go back


class StreamDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What the server is asked for.

    Attributes
    ----------
    append_only
        Nothing can be taken out of it but by deleting it, and it is read by consumers alone: a direct get would show
        any message of any session to whoever may do direct gets at all.
    max_age_s, duplicate_window_s
        Seconds; 0 = for ever / the server's default.
    per_subject
        Messages kept per subject; -1 = all.
    """

    name: str
    subjects: tuple[str, ...]
    retention: Literal["limits", "workqueue"] = "limits"
    storage: Literal["file", "memory"] = "file"
    max_age_s: float = 0
    duplicate_window_s: float = 0
    per_subject: int = -1
    append_only: bool = False
    description: str = ""


JOBS: Final = StreamDefinition(
    name="JOBS",
    subjects=(JOBS_RENDER,),
    retention="workqueue",
    duplicate_window_s=60,
    description="render jobs, each taken by one mixer",
)
RENDERS: Final = StreamDefinition(
    name="RENDERS",
    subjects=("renders.>",),
    max_age_s=86_400,
    per_subject=4,
    description="progress and results of renders",
)
ADVISORIES: Final = StreamDefinition(
    name="ADVISORIES",
    subjects=("$JS.EVENT.ADVISORY.*.>",),  # not `...ADVISORY.API`: the audit of every request
    max_age_s=7 * 86_400,
    description="what the server had to say",
)
LIVE: Final = StreamDefinition(
    name="LIVE",
    subjects=(LIVE_ALL,),
    storage="memory",
    max_age_s=LIVE_AGE_S,
    duplicate_window_s=LIVE_AGE_S,
    description="sound of running sessions, encoded, for listeners",
)
SHARED: Final = (JOBS, RENDERS, ADVISORIES, LIVE)


def session_stream(session: str) -> StreamDefinition:
    """The stream that holds one session: facts and audio in total order."""
    return StreamDefinition(
        name=session_stream_name(session),
        subjects=(session_all(session),),
        duplicate_window_s=DEDUPE_WINDOW_S,
        append_only=True,
        description=f"session {session}",
    )


def session_stream_name(session: str) -> str:
    """`REC_<session>`; MalformedError if that is no session id: a wildcard would reach every session."""
    return SESSION_PREFIX + check_id(session)


def object_stream_name(session: str) -> str:
    """`OBJ_<session>`: the stream behind the session's object bucket."""
    return OBJECT_PREFIX + check_id(session)
