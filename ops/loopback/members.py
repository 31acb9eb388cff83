"""Users and guild members as JSON objects of Discord's API, version 10."""

from typing import Any

from ops.loopback.plan import Person

JOINED_AT = "2024-01-01T00:00:00.000000+00:00"


def user(user_id: int, name: str) -> dict[str, Any]:
    """A user object."""
    username = name.lower().replace(" ", "_")
    return {
        "id": str(user_id),
        "username": username,
        "global_name": name,
        "discriminator": "0",
        "avatar": None,
        "bot": False,
        "public_flags": 0,
    }


def member(user_object: dict[str, Any], roles: list[str] | None = None) -> dict[str, Any]:
    """A guild member object."""
    return {
        "user": user_object,
        "nick": None,
        "avatar": None,
        "roles": roles or [],
        "joined_at": JOINED_AT,
        "deaf": False,
        "mute": False,
        "flags": 0,
        "pending": False,
    }


def person_member(person: Person, roles: list[str] | None = None) -> dict[str, Any]:
    """The member object of somebody in a plan."""
    return member(user(person.user_id, person.name), roles)
