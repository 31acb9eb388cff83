"""Guilds, members and users as JSON objects of Discord's API, version 10: no more than clients need."""

from collections.abc import Mapping
from typing import Any

from ops.loopback.members import JOINED_AT, member, person_member, user
from ops.loopback.plan import Person
from ops.loopback.room import Room

BOT_USER_ID = 200_000_000_000_000_001
APPLICATION_ID = BOT_USER_ID
OWNER_ID = 300_000_000_000_000_000  # of every guild; never in a call unless planned
TEXT_CHANNEL, VOICE_CHANNEL = 0, 2  # channel types
ATTACHMENT_BYTES = 10 * 2**20
GUILD_NAME = "The Loopback Inn"
CHANNEL_OFFSET = 1_000  # a room's text channel and its second voice channel stand beside its own


def bot_user() -> dict[str, Any]:
    """The bot's own user object."""
    return {**user(BOT_USER_ID, "Retold"), "bot": True, "verified": True, "mfa_enabled": True, "flags": 0}


def channel(room: Room, *, channel_id: int, kind: int, name: str) -> dict[str, Any]:
    """A channel object of a room's guild."""
    common = {
        "id": str(channel_id),
        "guild_id": str(room.spec.guild_id),
        "type": kind,
        "name": name,
        "position": 0,
        "permission_overwrites": room.roles.overwrites(channel_id),
        "parent_id": None,
        "nsfw": False,
        "rate_limit_per_user": 0,
        "last_message_id": None,
        "topic": None,
    }
    return common | ({"bitrate": 64_000, "user_limit": 0, "rtc_region": None} if kind == VOICE_CHANNEL else {})


def channels(room: Room) -> list[dict[str, Any]]:
    """A room's guild has its voice channel, a second one to be moved to, and a text channel."""
    first = room.spec.channel_id
    every = [
        channel(room, channel_id=first, kind=VOICE_CHANNEL, name=room.spec.name),
        channel(room, channel_id=first + CHANNEL_OFFSET, kind=VOICE_CHANNEL, name="Next door"),
        channel(room, channel_id=first + 2 * CHANNEL_OFFSET, kind=TEXT_CHANNEL, name="general"),
    ]
    return [each for each in every if int(each["id"]) not in room.deleted_channels]


def members(room: Room) -> list[dict[str, Any]]:
    """Everybody in a room's guild, the bot included."""
    roles = room.roles
    people = (person_member(person, roles.of_person(person.user_id)) for person in room.spec.plan.people)
    return [bot_member(room), *people]


def bot_member(room: Room) -> dict[str, Any]:
    """The bot as a member of a room's guild."""
    return member(bot_user(), room.roles.of_bot()) | {"nick": room.bot_nick}


def interaction(
    room: Room,
    person: Person,
    *,
    interaction_id: str,
    kind: int,
    data: Mapping[str, Any],
    locale: str = "en-US",
    channel_id: int | None = None,
    message: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The INTERACTION_CREATE payload of what a person does in a channel, the text channel if none is given."""
    known = channels(room)
    where = next((each for each in known if int(each["id"]) == channel_id), known[-1])
    member_object = person_member(person, room.roles.of_person(person.user_id))
    return {
        "id": interaction_id,
        "application_id": str(APPLICATION_ID),
        "type": kind,
        "data": dict(data),
        "guild_id": str(room.spec.guild_id),
        "guild": {"id": str(room.spec.guild_id), "locale": room.locale, "features": []},
        "channel_id": where["id"],
        "channel": where | {"permissions": str(room.roles.person_may(person.user_id))},
        "member": member_object | {"permissions": str(room.roles.person_may(person.user_id))},
        "token": f"interaction-{interaction_id}",
        "version": 1,
        "app_permissions": str(room.roles.bot_may(int(where["id"]))),
        "locale": locale,
        "guild_locale": room.locale,
        "entitlements": [],
        "authorizing_integration_owners": {},
        "context": 0,
        "attachment_size_limit": ATTACHMENT_BYTES,
        **({"message": dict(message)} if message is not None else {}),
    }


def guild(room: Room) -> dict[str, Any]:
    """The GUILD_CREATE payload of a room's guild."""
    everybody = members(room)
    empty = ("emojis", "stickers", "features", "presences", "threads", "stage_instances", "guild_scheduled_events")
    absent = ("icon", "splash", "banner", "description", "afk_channel_id", "system_channel_id", "rules_channel_id")
    numbers = ("verification_level", "default_message_notifications", "explicit_content_filter", "mfa_level")
    return {
        "id": str(room.spec.guild_id),
        "name": GUILD_NAME,
        "owner_id": str(OWNER_ID),
        "roles": room.roles.objects(),
        "channels": channels(room),
        "members": everybody,
        "member_count": len(everybody),
        "voice_states": [
            *(room.voice_state(user_id) for user_id in room.speakers),
            *([room.bot_state] if room.bot_state is not None else []),
        ],
        "joined_at": JOINED_AT,
        "large": False,
        "unavailable": False,
        "preferred_locale": room.locale,
        "afk_timeout": 300,
        "premium_tier": 0,
        "nsfw_level": 0,
        "system_channel_flags": 0,
        **{name: [] for name in empty},
        **dict.fromkeys(absent),
        **dict.fromkeys(numbers, 0),
    }
