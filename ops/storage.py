"""How much is stored, how much more may be, and for how many days that lasts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from contracts.errors import MalformedError
from contracts.ids import id_unix_ms
from contracts.jetstream.lag import StreamLag
from contracts.streams import OBJECT_PREFIX, SESSION_PREFIX
from ops.monitor import ServerState

DAY_S: Final = 86_400.0
PACE_S: Final = 7 * DAY_S
NO_LIMIT_BYTES: Final = 1e15  # as ops.setup.nats_conf has it
LEAST_PACE_S: Final = DAY_S  # what was recorded in the first hours is no pace yet


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """The disk, as JetStream uses it.

    Attributes
    ----------
    log_bytes, file_bytes, other_bytes
        What sessions, their files and everything else take.
    sessions
        How many have a log.
    per_day_bytes
        What the sessions of the last week came to, a day.
    room_bytes, days_left
        What fits still, by JetStream's limit and, if it is this machine's, by the disk; None if nobody told.
    """

    log_bytes: int
    file_bytes: int
    other_bytes: int
    sessions: int
    per_day_bytes: float
    room_bytes: float | None = None
    days_left: float | None = None


def storage_of(streams: Sequence[StreamLag], server: ServerState | None, *, unix_s: float | None = None) -> Storage:
    """What the streams come to."""
    now_s = time.time() if unix_s is None else unix_s
    logs = [stream for stream in streams if stream.stream.startswith(SESSION_PREFIX)]
    files = [stream for stream in streams if stream.stream.startswith(OBJECT_PREFIX)]
    log_bytes, file_bytes = (sum(stream.bytes for stream in some) for some in (logs, files))
    per_day = _per_day([*logs, *files], now_s)
    room = _room_bytes(server)
    return Storage(
        log_bytes=log_bytes,
        file_bytes=file_bytes,
        other_bytes=sum(stream.bytes for stream in streams) - log_bytes - file_bytes,
        sessions=len(logs),
        per_day_bytes=per_day,
        room_bytes=room,
        days_left=None if room is None or not per_day else room / per_day,
    )


def _per_day(streams: Sequence[StreamLag], now_s: float) -> float:
    """Bytes a day of the sessions that began in the last week; their ids tell when."""
    young = [(now_s - began, stream.bytes) for stream in streams if (began := _began_s(stream.stream)) is not None]
    young = [(age_s, size) for age_s, size in young if age_s <= PACE_S]
    if not young:
        return 0.0
    span_s = max(LEAST_PACE_S, *(age_s for age_s, _ in young))
    return sum(size for _, size in young) / span_s * DAY_S


def _began_s(stream: str) -> float | None:
    try:
        return id_unix_ms(stream.removeprefix(SESSION_PREFIX).removeprefix(OBJECT_PREFIX)) / 1e3
    except MalformedError:
        return None


def free_bytes(store_dir: str) -> float | None:
    """What the disk has on which JetStream's store lies; None if it is another machine's."""
    for path in (Path(store_dir), *Path(store_dir).parents[:2]):  # who may not look inside sees where it begins
        try:
            return float(shutil.disk_usage(path).free)
        except PermissionError:
            continue
        except OSError:
            return None
    return None


def _room_bytes(server: ServerState | None) -> float | None:
    """The least of what JetStream may still store and what its disk has; None if neither says anything."""
    if server is None or "config_max_storage" not in server.numbers:
        return None
    limit, free = server.numbers["config_max_storage"], free_bytes(server.store_dir)
    if free is None and limit >= NO_LIMIT_BYTES:
        return None
    room = limit - server.numbers.get("stats_storage", 0.0)
    return max(0.0, room if free is None else min(room, free))
