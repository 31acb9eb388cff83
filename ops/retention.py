"""What becomes of sessions with time: pure, from the directory, sizes, settings and now to steps.

    kept --warned--> going --its time--> deleted --grace--> erased
    kept --archive_after--> archived

By age: older than the installation, or its own server, lets it be. By space: what was not used for longest goes while
all together are larger than the quota; where there is an archive, there. A pin stops both. What runs is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from contracts.directory import SessionEntry
from contracts.keeping import read_age_s
from contracts.settings import Settings

NS: Final = 1_000_000_000
DAY_S: Final = 86_400
HOUR_S: Final = 3600
WARN_SHARE: Final = 0.9  # of the quota: from here on the oldest are told

Why: TypeAlias = Literal["age", "space"]
Crowded: TypeAlias = Literal["now", "soon", ""]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What settings say.

    Attributes
    ----------
    keep_s, archive_s
        Ages, seconds; None = any.
    quota_bytes
        None = no limit.
    guild_keep_s
        Ages by server: the lower of it and `keep_s` counts.
    archives
        Whether there is an archive.
    """

    keep_s: float | None = None
    archive_s: float | None = None
    quota_bytes: int | None = None
    warn_s: float = 0.0
    grace_s: float = 0.0
    guild_keep_s: Mapping[str, float] = {}
    archives: bool = False


class Held(msgspec.Struct, frozen=True):
    """A session, and how many bytes of the server's disk it takes."""

    entry: SessionEntry
    bytes: int = 0


class Warn(msgspec.Struct, frozen=True):
    """Tell that it goes at this time."""

    session: str
    going_unix_ns: int
    why: Why


class Spare(msgspec.Struct, frozen=True):
    """It does not go after all."""

    session: str


class Delete(msgspec.Struct, frozen=True):
    """Take it away, so that it can be brought back."""

    session: str
    why: Why


class Erase(msgspec.Struct, frozen=True):
    """Its grace is over."""

    session: str


class Archive(msgspec.Struct, frozen=True):
    """Move it to the archive."""

    session: str


Step: TypeAlias = Warn | Spare | Delete | Erase | Archive


def read_policy(settings: Settings, guild_days: Mapping[str, int]) -> Policy:
    """The policy of an installation and its servers, whose limits are in days (0 = none)."""
    return Policy(
        keep_s=read_age_s(settings.retention) if settings.retention else None,
        archive_s=read_age_s(settings.archive_after) if settings.archive_after and settings.s3_bucket else None,
        quota_bytes=round(settings.quota_gb * 1e9) if settings.quota_gb else None,
        warn_s=settings.warn_hours * HOUR_S,
        grace_s=settings.grace_hours * HOUR_S,
        guild_keep_s={guild: days * DAY_S for guild, days in guild_days.items() if days},
        archives=bool(settings.s3_bucket),
    )


def judge(held: Sequence[Held], policy: Policy, now_unix_ns: int) -> list[Step]:
    """What to do now, the oldest first."""
    crowded = _by_space(held, policy)
    steps = (
        _step(each.entry, policy, now_unix_ns, crowded.get(each.entry.session, "")) for each in _oldest_first(held)
    )
    return [step for step in steps if step is not None]


def next_moment_ns(held: Sequence[Held], policy: Policy) -> int | None:
    """When the next of those that were told goes, or the next grace is over; None if nothing is set for a time."""
    moments = []
    for each in held:
        keeping = each.entry.keeping
        if keeping.deleted_unix_ns is not None:
            moments.append(keeping.deleted_unix_ns + round(policy.grace_s * NS))
        elif keeping.going_unix_ns is not None and keeping.going_why == "age":
            moments.append(keeping.going_unix_ns)
    return min(moments, default=None)


def _step(entry: SessionEntry, policy: Policy, now_ns: int, crowded: Crowded) -> Step | None:
    """What to do with one."""
    keeping = entry.keeping
    if keeping.deleted_unix_ns is not None:
        over = now_ns - keeping.deleted_unix_ns >= policy.grace_s * NS
        return Erase(entry.session) if over else None
    if entry.ended_unix_ns is None:
        return None
    if keeping.pinned:
        return Spare(entry.session) if keeping.going_unix_ns is not None else None
    if crowded == "now" and policy.archives:
        return Archive(entry.session)
    if crowded == "now":
        return Delete(entry.session, "space")
    return (
        _by_age(entry, policy, now_ns)
        or _soon_by_space(entry, policy, now_ns, soon=crowded == "soon" and not policy.archives)
        or _to_archive(entry, policy, now_ns)
    )


def _by_age(entry: SessionEntry, policy: Policy, now_ns: int) -> Step | None:
    limits = [limit for limit in (policy.keep_s, policy.guild_keep_s.get(entry.guild_id)) if limit is not None]
    if not limits:
        return None
    due_ns = _ended_ns(entry) + round(min(limits) * NS)
    keeping = entry.keeping
    going_ns = keeping.going_unix_ns if keeping.going_why == "age" else None
    if going_ns is not None and due_ns <= going_ns:
        return Delete(entry.session, "age") if now_ns >= going_ns else None
    if now_ns < due_ns - policy.warn_s * NS:
        return None
    if policy.warn_s <= 0:
        return Delete(entry.session, "age")
    return Warn(entry.session, max(due_ns, now_ns + round(policy.warn_s * NS)), "age")


def _soon_by_space(entry: SessionEntry, policy: Policy, now_ns: int, *, soon: bool) -> Step | None:
    """Nearly full: told once; and told no more when there is room again, or it may become older again."""
    keeping = entry.keeping
    if soon:
        if keeping.going_unix_ns is None and policy.warn_s > 0:
            return Warn(entry.session, now_ns + round(policy.warn_s * NS), "space")
        return None
    by_age = keeping.going_why == "age" and _age_goes(entry, policy)
    return Spare(entry.session) if keeping.going_unix_ns is not None and not by_age else None


def _age_goes(entry: SessionEntry, policy: Policy) -> bool:
    """Whether what was told of its age still holds."""
    limits = [limit for limit in (policy.keep_s, policy.guild_keep_s.get(entry.guild_id)) if limit is not None]
    going_ns = entry.keeping.going_unix_ns
    return bool(limits) and going_ns is not None and _ended_ns(entry) + round(min(limits) * NS) <= going_ns


def _to_archive(entry: SessionEntry, policy: Policy, now_ns: int) -> Step | None:
    if policy.archive_s is None or entry.keeping.archived is not None:
        return None
    return Archive(entry.session) if now_ns - _used_ns(entry) >= policy.archive_s * NS else None


def _by_space(held: Sequence[Held], policy: Policy) -> dict[str, Crowded]:
    """Sessions that have to go for want of space, now or soon."""
    if policy.quota_bytes is None:
        return {}
    used = sum(each.bytes for each in held if not each.entry.deleted)
    wanted: dict[str, Crowded] = {}
    for each in _oldest_first(held):
        entry = each.entry
        fixed = entry.deleted or entry.keeping.pinned or entry.keeping.archived is not None
        if fixed or entry.ended_unix_ns is None or not each.bytes:
            continue
        if used <= policy.quota_bytes * WARN_SHARE:
            break
        wanted[entry.session] = "now" if used > policy.quota_bytes else "soon"
        used -= each.bytes
    return wanted


def _oldest_first(held: Sequence[Held]) -> list[Held]:
    return sorted(held, key=lambda each: (_used_ns(each.entry), each.entry.session))


def _used_ns(entry: SessionEntry) -> int:
    """When it was made, or last brought back from the archive."""
    return max(_ended_ns(entry), entry.keeping.fetched_unix_ns or 0)


def _ended_ns(entry: SessionEntry) -> int:
    return entry.ended_unix_ns or entry.started_unix_ns
