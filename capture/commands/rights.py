"""Who may do what: decided here, by facts, whatever Discord's own defaults or a server's overrides let through."""

from __future__ import annotations

import discord
import msgspec

from contracts.directory import SessionEntry
from contracts.guilds import GuildSettings


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """A person who asks.

    Attributes
    ----------
    manager
        May manage the server.
    recorder
        Has the role that the server set for recording.
    channel_id
        The voice channel they are in, if any.
    """

    user_id: str
    manager: bool
    recorder: bool
    channel_id: str | None

    @property
    def trusted(self) -> bool:
        """Manager or recorder."""
        return self.manager or self.recorder

    def may_start(self, channel_id: str) -> bool:
        """In the channel, or trusted."""
        return self.trusted or self.channel_id == channel_id

    def may_stop(self, channel_id: str, started_by: str | None) -> bool:
        """In the channel, who started it, or trusted."""
        return self.trusted or self.channel_id == channel_id or self.user_id == started_by

    def may_mark(self, channel_id: str) -> bool:
        """Write a note, cut a clip: in the channel, or trusted."""
        return self.trusted or self.channel_id == channel_id

    def may_open(self, entry: SessionEntry, settings: GuildSettings) -> bool:
        """List, hear and download: who was there, if the server does not keep it to its managers."""
        there = self.user_id in entry.people or self.user_id == entry.started_by
        return self.manager or (there and settings.downloads == "present")

    def may_delete(self, entry: SessionEntry) -> bool:
        """Who started it, or trusted."""
        return self.trusted or self.user_id == entry.started_by


def who_asks(interaction: discord.Interaction, settings: GuildSettings) -> Who:
    """The person behind an interaction."""
    user = interaction.user
    member = user if isinstance(user, discord.Member) else None
    roles = {str(role.id) for role in member.roles} if member else set()
    voice = member.voice if member else None
    return Who(
        user_id=str(user.id),
        manager=interaction.permissions.manage_guild or interaction.permissions.administrator,
        recorder=settings.recorder_role is not None and settings.recorder_role in roles,
        channel_id=str(voice.channel.id) if voice and voice.channel else None,
    )
