"""Settings of guilds on the server: KV bucket `guilds`, one entry per guild, changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from contracts.errors import MalformedError, UnavailableError
from contracts.guilds import GuildSettings, decode_guild, encode_guild
from contracts.jetstream.cas import put_if
from contracts.jetstream.connection import Bus
from contracts.jetstream.erase import erase_message
from contracts.jetstream.pull import read_newest, read_stream
from contracts.streams import GUILDS_BUCKET

TRIES: Final = 20
_STREAM: Final = f"KV_{GUILDS_BUCKET}"


async def get_guild(bus: Bus, guild_id: str) -> GuildSettings:
    """A guild's settings; the defaults if nobody set any.

    Raises
    ------
    UnavailableError
        If the server did not answer: never taken for the defaults.
    """
    return (await _read(bus, guild_id))[0]


async def change_guild(bus: Bus, guild_id: str, edit: Callable[[GuildSettings], GuildSettings]) -> GuildSettings:
    """Apply `edit` to what is there, whoever else changes it at the same time; durable when it returns.

    `edit` may be called more than once. What was replaced is overwritten: it says who did not want to be recorded.

    Raises
    ------
    UnavailableError
        If the server did not take it.
    """
    return await bus.insist(lambda: _change(bus, guild_id, edit))


async def _change(bus: Bus, guild_id: str, edit: Callable[[GuildSettings], GuildSettings]) -> GuildSettings:
    for _ in range(TRIES):
        before, sequence = await _read(bus, guild_id)
        after = edit(before)
        if after == before:
            return after
        if await put_if(bus, _key(guild_id), encode_guild(after), sequence) is not None:
            if sequence:
                await erase_message(bus, _STREAM, sequence)
            return after
    raise UnavailableError(f"the settings of guild {guild_id} are being changed by many at once; try again")


async def watch_guilds(bus: Bus, handler: Callable[[GuildSettings], Awaitable[None]]) -> None:
    """Hand every guild's settings that are changed from now on, as they pass, to `handler`."""

    async def receive(_subject: str, data: bytes) -> None:
        if data:
            await handler(decode_guild(data))

    await bus.subscribe(f"$KV.{GUILDS_BUCKET}.*", receive)


async def list_guilds(bus: Bus) -> list[GuildSettings]:
    """Every guild that set anything."""
    subject = f"$KV.{GUILDS_BUCKET}.*"
    found: dict[str, GuildSettings] = {}
    async for message in read_stream(bus, _STREAM, filter_subject=subject, last_per_subject=True):
        if message.data:
            found[message.subject] = decode_guild(message.data)
    return list(found.values())


async def _read(bus: Bus, guild_id: str) -> tuple[GuildSettings, int]:
    message = await read_newest(bus, _STREAM, _key(guild_id))
    if message is None or not message.data:
        return GuildSettings(guild_id=guild_id), message.sequence if message else 0
    return decode_guild(message.data), message.sequence


def _key(guild_id: str) -> str:
    if not (guild_id.isascii() and guild_id.isdigit()):
        raise MalformedError(f"{guild_id[:40]!r} is not a Discord id")
    return f"$KV.{GUILDS_BUCKET}.{guild_id}"
