"""What a list of sessions says. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from contracts.clock import NS_PER_SECOND
from contracts.directory import SessionEntry
from gateway.pages import words
from gateway.pages.session import length_s, say_title


class RowView(msgspec.Struct, frozen=True, kw_only=True):
    """One session."""

    url: str
    title: str
    where: str
    started: str
    started_iso: str
    duration: str
    live: bool
    people: str


class ListView(msgspec.Struct, frozen=True, kw_only=True):
    """The whole list, newest first."""

    rows: tuple[RowView, ...]
    expires: str
    expires_iso: str


def describe_list(entries: Iterable[SessionEntry], *, base: str, expires_unix_s: int, now_unix_ns: int) -> ListView:
    """The list as somebody sees it; each session's page stands below `base`."""
    newest_first = sorted(entries, key=lambda entry: entry.started_unix_ns, reverse=True)
    return ListView(
        rows=tuple(
            RowView(
                url=f"{base}/{entry.session}",
                title=say_title(entry),
                where=_where(entry),
                started=words.say_moment(entry.started_unix_ns),
                started_iso=words.say_moment_iso(entry.started_unix_ns),
                duration=words.say_seconds(length_s(entry, now_unix_ns)),
                live=entry.ended_unix_ns is None,
                people=", ".join(sorted(entry.people.values(), key=str.casefold)),
            )
            for entry in newest_first
        ),
        expires=words.say_moment(expires_unix_s * NS_PER_SECOND),
        expires_iso=words.say_moment_iso(expires_unix_s * NS_PER_SECOND),
    )


def _where(entry: SessionEntry) -> str:
    parts = (entry.guild_name, f"#{entry.channel_name}" if entry.channel_name else "")
    return ", ".join(part for part in parts if part)
