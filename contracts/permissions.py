"""Who may say what to NATS: a user per service, and for each the subjects that it needs.

`retold init` and the embedded server write nats.conf from this table; what is not in it is refused.

How one stays least where JetStream's own subjects cannot say it (a wildcard stands for a whole token, so `REC_*` is
not possible):

- a session's stream is append-only (`deny_delete`, `deny_purge`) and gives no direct gets, whoever asks;
- whoever may read only the facts of sessions makes consumers whose filter stands in the subject: `rec.*.evt`;
- streams that all sessions share are named: who may delete sessions cannot delete those;
- consumers that others work by are named: who may read by consumers of its own cannot read or delete by those.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from contracts import streams, subjects
from contracts.keeping import FETCH
from contracts.subjects import JOBS_RENDER

API: Final = "$JS.API"
SIGN_LINK: Final = "ctl.link.sign"
RENDERS_ALL: Final = "renders.*.*"
SHARED_STREAMS: Final = (
    *(stream.name for stream in streams.SHARED),
    *(f"KV_{bucket}" for bucket in streams.BUCKETS),
)
ENTRIES: Final = f"$KV.{streams.DIRECTORY_BUCKET}.*"
GUILDS: Final = f"$KV.{streams.GUILDS_BUCKET}.*"
LEASES: Final = f"$KV.{streams.LEASES_BUCKET}"
CAPTURES: Final = (f"{LEASES}.shard.*", f"{LEASES}.capture.*")  # which capture has which servers, and who lives
REVOKED: Final = f"$KV.{streams.REVOKED_BUCKET}.*"
USES: Final = f"$KV.{streams.USES_BUCKET}.*"


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may do.

    Attributes
    ----------
    publish, subscribe
        Subjects, which may hold wildcards.
    never
        Subjects that it may not publish on although `publish` has them.
    answers
        Whether it may answer whom it is asked by, wherever that one listens.
    whole
        Whether it may do everything in the account; the rest is empty.
    """

    publish: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    answers: bool = False
    whole: bool = False


def _api(*verbs: str) -> tuple[str, ...]:
    return tuple(f"{API}.{verb}" for verb in verbs)


def _each(verb: str, names: Iterable[str]) -> tuple[str, ...]:
    return _api(*(f"{verb}.{name}" for name in names))


def _acks(stream: str, consumer: str) -> tuple[str, ...]:
    """Acknowledgements of a consumer; the second form has domain and account before the stream."""
    return f"$JS.ACK.{stream}.{consumer}.>", f"$JS.ACK.*.*.{stream}.{consumer}.>"


LOOK: Final = _api("INFO", "STREAM.INFO.*", "STREAM.NAMES")
MAKE_SHARED: Final = (*_each("STREAM.CREATE", SHARED_STREAMS), *_each("STREAM.UPDATE", SHARED_STREAMS))
READ_ALL: Final = _api("CONSUMER.CREATE.>", "CONSUMER.MSG.NEXT.*.*", "CONSUMER.DELETE.*.*", "CONSUMER.INFO.*.*")
GET: Final = (
    *_api("DIRECT.GET.*", "DIRECT.GET.*.>"),  # streams of sessions give none
    *_each("STREAM.MSG.GET", SHARED_STREAMS),  # in a cluster: of the leader, who has the newest
)
WATCH_RENDER: Final = (*_api(f"CONSUMER.CREATE.{streams.RENDERS.name}"), "$JS.FC.>")  # an ordered consumer
# What is overwritten one by one, because it names people (contracts.jetstream.erase).
OVERWRITE: Final = _each(
    "STREAM.MSG.DELETE",
    (
        streams.RENDERS.name,
        streams.LIVE.name,
        f"KV_{streams.DIRECTORY_BUCKET}",
        f"KV_{streams.GUILDS_BUCKET}",
    ),
)
OTHERS_CONSUMERS: Final = (
    *_api(f"CONSUMER.MSG.NEXT.*.{streams.FOLLOW_CONSUMER}", f"CONSUMER.MSG.NEXT.{streams.JOBS.name}.*"),
    *_api(f"CONSUMER.DELETE.*.{streams.FOLLOW_CONSUMER}", f"CONSUMER.DELETE.{streams.JOBS.name}.*"),
    *_api(f"CONSUMER.CREATE.*.{streams.FOLLOW_CONSUMER}", f"CONSUMER.CREATE.*.{streams.FOLLOW_CONSUMER}.>"),
    *_api(f"CONSUMER.CREATE.{streams.JOBS.name}", f"CONSUMER.CREATE.{streams.JOBS.name}.>"),
)
NEVER_DELETED: Final = _each("STREAM.DELETE", SHARED_STREAMS)

CAPTURE: Final = Permissions(
    publish=(
        "rec.*.evt",
        "rec.*.pkt.*.*",
        ENTRIES,
        GUILDS,
        f"{LEASES}.*",
        *CAPTURES,
        f"{LEASES}.follow.*",  # nobody follows while somebody is taken out
        JOBS_RENDER,
        RENDERS_ALL,  # cancels
        FETCH,
        "ctl.record.*",  # its commands in Discord ask it as everybody does
        subjects.SHARD_ALL,  # what another capture has to answer
        *LOOK,
        *MAKE_SHARED,
        *_api("STREAM.CREATE.*", "STREAM.UPDATE.*", "STREAM.DELETE.*"),  # of sessions: forgetting writes them anew
        *READ_ALL,  # to go on after a death
        *GET,
        *WATCH_RENDER,
        *OVERWRITE,
    ),
    never=(*NEVER_DELETED, *OTHERS_CONSUMERS),
    subscribe=("ctl.record.*", subjects.SHARD_ALL, *CAPTURES, SIGN_LINK, ENTRIES, GUILDS, RENDERS_ALL),
    answers=True,
)
MIXER: Final = Permissions(
    publish=(
        JOBS_RENDER,
        RENDERS_ALL,
        "live.*",
        "$O.*.C.*",
        "$O.*.M.*",
        f"{LEASES}.follow.*",
        FETCH,
        *LOOK,
        *MAKE_SHARED,
        *READ_ALL,
        *GET,
        *WATCH_RENDER,
        *_api("STREAM.MSG.GET.*"),  # where in a session's log a moment is
        *_api("STREAM.MSG.DELETE.*", "STREAM.PURGE.*"),  # of a session's files: its log refuses
        *_acks("*", streams.FOLLOW_CONSUMER),
        *_acks(streams.JOBS.name, streams.RENDER_CONSUMER),
    ),
    never=(*_each("STREAM.MSG.DELETE", SHARED_STREAMS), *_each("STREAM.PURGE", SHARED_STREAMS)),
    subscribe=(ENTRIES, RENDERS_ALL),
)
GATEWAY: Final = Permissions(
    publish=(
        JOBS_RENDER,
        RENDERS_ALL,  # cancels
        REVOKED,
        USES,
        ENTRIES,  # deleted, brought back; the keeper erases
        FETCH,
        subjects.START_RECORDING,
        subjects.STOP_RECORDING,
        subjects.ADD_NOTE,
        subjects.STATUS,
        SIGN_LINK,
        *LOOK,
        *_api(f"STREAM.MSG.DELETE.KV_{streams.DIRECTORY_BUCKET}"),  # an entry that is replaced names people
        *GET,
        *WATCH_RENDER,
        *_api(
            "CONSUMER.CREATE.*.*.rec.*.evt",  # the facts of sessions, and none of their audio
            "CONSUMER.CREATE.*.*.$O.*.M.>",
            f"CONSUMER.CREATE.{streams.RENDERS.name}.*.renders.>",
            f"CONSUMER.CREATE.KV_{streams.DIRECTORY_BUCKET}.*.$KV.{streams.DIRECTORY_BUCKET}.*",
            "CONSUMER.MSG.NEXT.*.*",
            "CONSUMER.DELETE.*.*",
            "CONSUMER.INFO.*.*",
        ),
        *_acks(f"KV_{streams.DIRECTORY_BUCKET}", streams.WEBHOOKS_CONSUMER),
        *_acks(streams.RENDERS.name, streams.WEBHOOKS_CONSUMER),
    ),
    never=OTHERS_CONSUMERS,
    subscribe=(ENTRIES, REVOKED, RENDERS_ALL, "live.*"),
)
# What watches: `retold lag`, metrics, doctor. It sees how much there is of everything, and nothing of what was said.
WATCHED: Final = (
    streams.ADVISORIES.name,
    streams.RENDERS.name,
    f"KV_{streams.DIRECTORY_BUCKET}",
    f"KV_{streams.LEASES_BUCKET}",
)
MONITOR: Final = Permissions(
    publish=(
        subjects.STATUS,
        *LOOK,
        *_api("STREAM.LIST", "CONSUMER.LIST.*", "CONSUMER.NAMES.*", "CONSUMER.INFO.*.*"),
        *_each("DIRECT.GET", WATCHED),
        *_each("DIRECT.GET", (f"{name}.>" for name in WATCHED)),
        *_each("CONSUMER.CREATE", (f"{name}.>" for name in WATCHED)),
        *_each("CONSUMER.MSG.NEXT", (f"{name}.*" for name in WATCHED)),
        *_each("CONSUMER.DELETE", (f"{name}.*" for name in WATCHED)),
    ),
    never=(
        *_api(f"CONSUMER.MSG.NEXT.*.{streams.WEBHOOKS_CONSUMER}", f"CONSUMER.DELETE.*.{streams.WEBHOOKS_CONSUMER}"),
        *_api(f"CONSUMER.CREATE.*.{streams.WEBHOOKS_CONSUMER}", f"CONSUMER.CREATE.*.{streams.WEBHOOKS_CONSUMER}.>"),
    ),
    subscribe=("$JS.EVENT.ADVISORY.>",),
)
# What keeps: retention, backups, archive, erasure. It has to reach every stream, and is asked for nothing else.
KEEPER: Final = Permissions(
    publish=(
        "rec.>",
        "$O.>",
        "$KV.>",
        JOBS_RENDER,
        "renders.>",
        subjects.STATUS,
        f"{API}.>",
        "$JS.SNAPSHOT.>",
        "$JS.ACK.>",
        "$JS.FC.>",
    ),
    never=_each("STREAM.DELETE", SHARED_STREAMS),
    subscribe=("$KV.>", "renders.>", "$JS.EVENT.ADVISORY.>", "$JS.SNAPSHOT.>", "ctl.keep.*"),
    answers=True,
)
OPERATOR: Final = Permissions(whole=True)  # the command line

USERS: Final[dict[str, Permissions]] = {
    "capture": CAPTURE,
    "mixer": MIXER,
    "gateway": GATEWAY,
    "monitor": MONITOR,
    "keeper": KEEPER,
    "operator": OPERATOR,
}
SYSTEM_USER: Final = "system"  # of the server's own account: connections, cluster, shutdown; no recordings
