"""Who may do what in a guild: roles, channel overwrites, and the sum of both, as Discord computes it."""

from enum import IntFlag
from typing import Any

import msgspec

ROLE_OFFSET = 5_000_000  # a guild's roles stand beside its own id, which is @everyone's


class Permission(IntFlag):
    """The bits that matter here (Discord, Permissions)."""

    ADMINISTRATOR = 1 << 3
    MANAGE_CHANNELS = 1 << 4
    MANAGE_GUILD = 1 << 5
    VIEW_CHANNEL = 1 << 10
    SEND_MESSAGES = 1 << 11
    MANAGE_MESSAGES = 1 << 13
    EMBED_LINKS = 1 << 14
    ATTACH_FILES = 1 << 15
    READ_MESSAGE_HISTORY = 1 << 16
    CONNECT = 1 << 20
    SPEAK = 1 << 21
    MOVE_MEMBERS = 1 << 24
    CHANGE_NICKNAME = 1 << 26
    USE_APPLICATION_COMMANDS = 1 << 31
    SET_VOICE_CHANNEL_STATUS = 1 << 48


EVERYONE = (
    Permission.VIEW_CHANNEL
    | Permission.SEND_MESSAGES
    | Permission.READ_MESSAGE_HISTORY
    | Permission.CONNECT
    | Permission.SPEAK
    | Permission.USE_APPLICATION_COMMANDS
)
BOT = (
    EVERYONE
    | Permission.EMBED_LINKS
    | Permission.ATTACH_FILES
    | Permission.CHANGE_NICKNAME
    | Permission.SET_VOICE_CHANNEL_STATUS
)
MANAGER = Permission.MANAGE_GUILD | Permission.MANAGE_CHANNELS | Permission.MANAGE_MESSAGES | Permission.MOVE_MEMBERS
EVERYTHING = Permission((1 << 53) - 1)


class Roles(msgspec.Struct):
    """The roles of one guild, and who has them; change it at will and tell the bot (`LoopbackDiscord.set_roles`).

    Attributes
    ----------
    managers
        People who may manage the server.
    bot
        What the bot's own role allows.
    denied
        By channel id, what the bot may not do there.
    custom
        Further roles: members by name; they allow nothing of themselves.
    """

    guild_id: int
    managers: set[int] = msgspec.field(default_factory=set)
    bot: int = BOT
    denied: dict[int, int] = msgspec.field(default_factory=dict)
    custom: dict[str, set[int]] = msgspec.field(default_factory=dict)

    @property
    def bot_role(self) -> int:
        """Id of the bot's role."""
        return self.guild_id + ROLE_OFFSET

    @property
    def manager_role(self) -> int:
        """Id of the managers' role."""
        return self.guild_id + 2 * ROLE_OFFSET

    def custom_role(self, name: str) -> int:
        """Id of a further role."""
        return self.guild_id + (3 + sorted(self.custom).index(name)) * ROLE_OFFSET

    def of_person(self, user_id: int) -> list[str]:
        """A person's role ids."""
        own = [self.manager_role] if user_id in self.managers else []
        own += [self.custom_role(name) for name, members in sorted(self.custom.items()) if user_id in members]
        return [str(role) for role in own]

    def of_bot(self) -> list[str]:
        """The bot's role ids."""
        return [str(self.bot_role)]

    def bot_may(self, channel_id: int) -> int:
        """What the bot may do in a channel."""
        allowed = EVERYONE | self.bot
        if allowed & Permission.ADMINISTRATOR:
            return int(EVERYTHING)
        return int(allowed & ~self.denied.get(channel_id, 0))

    def person_may(self, user_id: int) -> int:
        """What a person may do."""
        return int(EVERYONE | (MANAGER if user_id in self.managers else 0))

    def overwrites(self, channel_id: int) -> list[dict[str, Any]]:
        """A channel's overwrites: what is denied there is denied to the bot alone."""
        denied = self.denied.get(channel_id, 0)
        return [{"id": str(self.bot_role), "type": 0, "allow": "0", "deny": str(int(denied))}] if denied else []

    def objects(self) -> list[dict[str, Any]]:
        """The guild's role objects."""
        own = [
            _role(self.guild_id, "@everyone", EVERYONE, 0),
            _role(self.bot_role, "Retold", self.bot, 1),
            _role(self.manager_role, "Managers", MANAGER, 2),
        ]
        return own + [_role(self.custom_role(name), name, 0, 3) for name in sorted(self.custom)]


def _role(role_id: int, name: str, permissions: int, position: int) -> dict[str, Any]:
    return {
        "id": str(role_id),
        "name": name,
        "permissions": str(int(permissions)),
        "position": position,
        "color": 0,
        "colors": {"primary_color": 0, "secondary_color": None, "tertiary_color": None},
        "hoist": False,
        "managed": False,
        "mentionable": False,
        "flags": 0,
    }
