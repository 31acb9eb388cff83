"""What guilds set, kept up to date from the bucket `guilds`: for each guild one `Consent` that its recordings share.

A person's choice holds in this process at once, whatever the server does; it is stored as soon as the server takes it.
Reading and writing are one after the other per guild, so what was read last is the newest.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

import structlog

from capture.consent import Consent
from contracts.errors import RetoldError
from contracts.guilds import Choice, GuildSettings
from contracts.jetstream.connection import Bus
from contracts.jetstream.guilds import change_guild, get_guild, watch_guilds

log = structlog.get_logger()


class Guilds:
    """The settings of guilds that are in use here.

    Parameters
    ----------
    changed
        Called with a guild's id after its rule or somebody's choice changed.
    """

    def __init__(self, bus: Bus, changed: Callable[[int], None]) -> None:
        self._bus = bus
        self._changed = changed
        self._consents: dict[int, Consent] = {}
        self._settings: dict[int, GuildSettings] = {}
        self._unsaved: dict[int, dict[str, Choice]] = defaultdict(dict)
        self._locks: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refreshing: set[asyncio.Task[None]] = set()

    async def watch(self) -> None:
        """Follow every change from now on."""
        await watch_guilds(self._bus, self._notice)
        self._bus.on_reconnect.add(self._refresh_all)

    async def consent(self, guild_id: int) -> Consent:
        """A guild's rule and choices, up to date as long as this process lives.

        Raises
        ------
        UnavailableError
            If the server does not say what they are.
        """
        await self._refresh(guild_id)
        return self._consents[guild_id]

    def known(self, guild_id: int) -> GuildSettings | None:
        """A guild's settings as they were read last and are being followed since; None if they never were."""
        return self._settings.get(guild_id)

    async def settings(self, guild_id: int) -> GuildSettings:
        """A guild's settings now; raises as `consent` does."""
        await self._refresh(guild_id)
        return self._settings[guild_id]

    async def choose(self, guild_id: int, user_id: str, choice: Choice) -> None:
        """A person chose: it holds here when this is called, and everywhere when it returns.

        Raises
        ------
        UnavailableError
            If the server did not store it; it holds here all the same, and is stored when the server is back.
        """
        self.hold(guild_id, user_id, choice)
        await self._refresh(guild_id)

    def hold(self, guild_id: int, user_id: str, choice: Choice) -> None:
        """A person chose: it holds here from now on, and is stored with the next thing that is."""
        self._unsaved[guild_id][user_id] = choice
        known = self._settings.get(guild_id)
        if known is not None:
            self._apply(guild_id, known)

    async def _notice(self, settings: GuildSettings) -> None:
        if int(settings.guild_id) in self._settings or settings.auto:
            self._refresh_later(int(settings.guild_id))

    def _refresh_all(self) -> None:
        for guild_id in self._settings:
            self._refresh_later(guild_id)

    def _refresh_later(self, guild_id: int) -> None:
        task = asyncio.create_task(self._try_refresh(guild_id))
        self._refreshing.add(task)
        task.add_done_callback(self._refreshing.discard)

    async def _try_refresh(self, guild_id: int) -> None:
        try:
            await self._refresh(guild_id)
        except RetoldError as error:
            log.warning("guild_settings_not_read", guild=str(guild_id), reason=str(error))

    async def _refresh(self, guild_id: int) -> None:
        """Store what is not stored, and read what is there."""
        async with self._locks[guild_id]:
            unsaved = dict(self._unsaved[guild_id])
            if unsaved:
                settings = await change_guild(self._bus, str(guild_id), lambda old: _with_choices(old, unsaved))
            else:
                settings = await get_guild(self._bus, str(guild_id))
            for user_id, choice in unsaved.items():
                if self._unsaved[guild_id].get(user_id) == choice:
                    del self._unsaved[guild_id][user_id]
            self._apply(guild_id, settings)

    def _apply(self, guild_id: int, settings: GuildSettings) -> None:
        effective = _with_choices(settings, self._unsaved[guild_id])
        before = self._settings.get(guild_id)
        self._settings[guild_id] = effective
        if guild_id not in self._consents:
            self._consents[guild_id] = Consent(effective)
        elif effective != before:
            self._consents[guild_id].update(effective)
            self._changed(guild_id)


def _with_choices(settings: GuildSettings, choices: dict[str, Choice]) -> GuildSettings:
    for user_id, choice in choices.items():
        settings = settings.with_choice(user_id, choice)
    return settings
