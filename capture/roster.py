"""Who is in the channel, and by what name.

The voice gateway tells ids, the main gateway names, in either order. A fact about a newcomer waits a moment for the
name, and says when they came, not when they were named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import discord

NAME_WAIT_NS: Final = 2_000_000_000  # the other gateway's message has come by then; else the name stays unknown


class Newcomer(NamedTuple):
    """Somebody who came, at a moment of the session clock (nanoseconds); `name` is empty if nobody told it."""

    user_id: int
    at_ns: int
    name: str
    bot: bool


class Roster:
    """The people of one take.

    Parameters
    ----------
    guild
        Where their names are looked up.
    joined
        Called once for each, as soon as the name is known or will not come.
    """

    def __init__(self, guild: discord.Guild, joined: Callable[[Newcomer], None]) -> None:
        self._guild = guild
        self._joined = joined
        self._present: set[int] = set()
        self._unnamed: dict[int, int] = {}

    def add(self, user_id: int, *, at_ns: int) -> None:
        """Somebody is there; harmless if known, or if it is the recorder."""
        if user_id in self._present or user_id == self._guild.me.id:
            return
        self._present.add(user_id)
        self._unnamed[user_id] = at_ns
        self.tick(now_ns=at_ns)

    def remove(self, user_id: int) -> bool:
        """Somebody left; whether they were there."""
        self._tell(user_id)
        was_there = user_id in self._present
        self._present.discard(user_id)
        return was_there

    def tick(self, *, now_ns: int) -> None:
        """Tell of those whose name came, or who waited long enough; `now_ns` on the session clock."""
        for user_id, since_ns in list(self._unnamed.items()):
            if self._guild.get_member(user_id) is not None or now_ns - since_ns >= NAME_WAIT_NS:
                self._tell(user_id)

    def flush(self) -> None:
        """Tell of all that wait: the take is over."""
        for user_id in list(self._unnamed):
            self._tell(user_id)

    @property
    def present(self) -> frozenset[int]:
        """Who is there."""
        return frozenset(self._present)

    def name_of(self, user_id: int) -> str:
        """A person's display name in this guild; empty if unknown."""
        member = self._guild.get_member(user_id)
        return member.display_name if member else ""

    def _tell(self, user_id: int) -> None:
        at_ns = self._unnamed.pop(user_id, None)
        if at_ns is not None:
            member = self._guild.get_member(user_id)
            self._joined(Newcomer(user_id, at_ns, self.name_of(user_id), bool(member and member.bot)))
