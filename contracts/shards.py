"""Shards: parts that guilds are divided into, as Discord divides them, so that each guild has one capture.

https://discord.com/developers/docs/events/gateway#sharding
"""

from __future__ import annotations

from typing import Final

SNOWFLAKE_TIME_BITS: Final = 22  # an id's lower bits tell worker and number; above them is the time


def shard_of(guild_id: int, shards: int) -> int:
    """Which of so many shards a guild is on: what it does is told there, and only there."""
    return (guild_id >> SNOWFLAKE_TIME_BITS) % shards
