"""The desk: what commands and buttons do, in one place, so that both do the same.

Everything that changes a recording goes over the bus, as the command line's requests do; nothing here touches the
packet path. Errors are turned into words by `apology`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import discord
import msgspec
import structlog

from capture.commands.rights import Who, who_asks
from capture.guilds import Guilds
from capture.words.catalogue import Words, words_in
from contracts.commands import LiveSession, RefusedError
from contracts.directory import SessionEntry
from contracts.errors import RetoldError, UnavailableError
from contracts.guilds import GuildSettings
from contracts.jetstream.asking import ask_status
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.directory import get_entry, list_entries
from contracts.keeping import read_age_s
from contracts.keys import load_signing_key
from contracts.linker import Linker
from contracts.presets import load_preset, preset_names
from contracts.recipes import Recipe
from contracts.settings import Settings

log = structlog.get_logger()

NAME_CHARACTERS: Final = 60
SEVERAL: Final = 5  # names in a sentence
DAY_S: Final = 86_400


class Denied(RetoldError):  # noqa: N818  # a word for the person, no fault
    """A person may not do that, or asked for what is not there; `key` is the sentence that says so."""

    def __init__(self, key: str, **fields: object) -> None:
        self.key = key
        self.fields = fields
        super().__init__(key)


class Desk:
    """Serves people.

    Attributes
    ----------
    changed
        Called when a recording may have changed: the panels look at once.
    revised
        Called with past sessions that are not what they were: their cards are written anew.
    """

    def __init__(self, bus: Bus, bot: discord.Client, guilds: Guilds, settings: Settings) -> None:
        self.bus = bus
        self.bot = bot
        self.guilds = guilds
        self.settings = settings
        self.changed: Callable[[], None] = lambda: None
        self.revised: Callable[[Iterable[str], int], None] = lambda _sessions, _guild_id: None
        self._key = load_signing_key(settings.data / "keys")

    def linker(self, user_id: str) -> Linker:
        """Signs links for one person."""
        return Linker(self.settings, subject=user_id, key=self._key, may=("remix",))

    def preset(self, name: str) -> Recipe | None:
        """The recipe of a preset; None without a name, Denied if there is none of that name."""
        try:
            return load_preset(name, self.settings.data) if name else None
        except RetoldError as error:
            raise Denied("preset.none", names=", ".join(preset_names(self.settings.data))) from error

    async def who(self, interaction: discord.Interaction) -> tuple[Who, GuildSettings]:
        """Who asks, and what their server set."""
        settings = await self.guilds.settings(interaction.guild_id or 0)
        return who_asks(interaction, settings), settings

    def room_words(self, guild: discord.Guild | None, settings: GuildSettings) -> Words:
        """The words for what everybody sees."""
        return words_in(settings.language or (str(guild.preferred_locale) if guild else ""))

    def kept_words(self, settings: GuildSettings, words: Words) -> str:
        """How long recordings of a server are kept: the shorter of its own limit and the installation's."""
        limits = [float(settings.keep_days * DAY_S)] if settings.keep_days else []
        limits += [read_age_s(self.settings.retention)] if self.settings.retention else []
        return words("kept.days", count=max(1, round(min(limits) / DAY_S))) if limits else words("kept.forever")

    async def live(self, guild_id: int | None) -> LiveSession | None:
        """The server's running recording."""
        status = await ask_status(self.bus, shard=self.bot.shard_id or 0)
        return next((each for each in status.sessions if each.guild_id == str(guild_id)), None)

    async def running(self, guild_id: int | None, session: str = "") -> LiveSession:
        """The same, or Denied; also if it is not the `session` that is meant: an old panel stops no new recording."""
        live = await self.live(guild_id)
        if live is None or (session and live.session != session):
            raise Denied("refused.over" if session else "refused.not_recording")
        return live

    async def sessions(self, interaction: discord.Interaction) -> list[SessionEntry]:
        """The server's recordings that the person may open, newest first."""
        who, settings = await self.who(interaction)
        return [each for each in await self._of_server(interaction) if who.may_open(each, settings)]

    async def erasable(self, interaction: discord.Interaction) -> list[SessionEntry]:
        """The server's past recordings that the person may delete, newest first; see `deletable`."""
        who, _ = await self.who(interaction)
        every = await self._of_server(interaction)
        return [each for each in every if each.ended_unix_ns is not None and who.may_delete(each)]

    async def _of_server(self, interaction: discord.Interaction) -> list[SessionEntry]:
        """All of the server's recordings, newest first."""
        entries = [each for each in await list_entries(self.bus) if each.guild_id == str(interaction.guild_id)]
        if any(each.ended_unix_ns is None for each in entries):
            live = await self.live(interaction.guild_id)
            entries = [_with_present(each, live) for each in entries]
        return entries[::-1]

    async def session(self, interaction: discord.Interaction, wanted: str) -> SessionEntry:
        """The recording that is meant, the newest if several are, or if nothing is said; Denied if there is none."""
        found = meant(await self.sessions(interaction), wanted)
        if found:
            return found[0]
        exists = await self._entry(wanted)
        raise Denied("rights.open" if exists else "list.none" if not wanted else "refused.gone")

    async def deletable(self, interaction: discord.Interaction, wanted: str) -> SessionEntry:
        """The one recording that is meant, and that the person may delete or keep; Denied if there is none, or several.

        Who may delete need not be let hear: who started it may, where only managers download.
        """
        who, settings = await self.who(interaction)
        found = meant(await self._of_server(interaction), wanted)
        seen = [each for each in found if who.may_open(each, settings) or who.may_delete(each)]
        mine = [each for each in seen if who.may_delete(each)]
        if not mine:
            raise Denied("rights.delete" if seen else "rights.open" if found else "refused.gone")
        if len(mine) > 1:
            names = [discord.utils.escape_markdown(each.name or each.channel_name) for each in mine[:SEVERAL]]
            raise Denied("delete.several", names=", ".join(names))
        return mine[0]

    async def _entry(self, session: str) -> SessionEntry | None:
        try:
            return await get_entry(self.bus, session) if session else None
        except RetoldError:
            return None


def _with_present(entry: SessionEntry, live: LiveSession | None) -> SessionEntry:
    """A running session's entry with who was there so far: the directory learns of them at the end."""
    if live is None or live.session != entry.session:
        return entry
    present = {each.user_id: each.name for each in live.speakers if each.user_id}
    return msgspec.structs.replace(entry, people={**entry.people, **live.people, **present})


def meant(entries: list[SessionEntry], wanted: str) -> list[SessionEntry]:
    """Those that `wanted` means: the one of that id, else those of that name, else those that `matches` finds."""
    by_id = [each for each in entries if each.session == wanted]
    by_name = [each for each in entries if wanted and each.name.casefold() == wanted.casefold()]
    return by_id or by_name or [each for each in entries if not wanted or matches(each, wanted)]


def matches(entry: SessionEntry, typed: str) -> bool:
    """Whether somebody who types this could mean it: name, channel, or one of the people."""
    return any(typed.lower() in text.lower() for text in (entry.name, entry.channel_name, *entry.people.values()))


def title(entry: SessionEntry, words: Words) -> str:
    """What to call a recording."""
    return entry.name or words("word.unnamed", channel=entry.channel_name)


def written_title(entry: SessionEntry, words: Words) -> str:
    """The same in a message: nothing of it is markup."""
    return discord.utils.escape_markdown(title(entry, words))


def apology(error: BaseException, words: Words) -> str:
    """What to say about an error; one that nobody foresaw is logged."""
    key, fields = _sentence(error)
    return words(key if words.has(key) else "refused.failed", **fields)


def _sentence(error: BaseException) -> tuple[str, dict[str, object]]:
    match error:
        case Denied():
            return error.key, error.fields
        case RefusedError():
            return f"refused.{error.refused.code}", {"message": error.refused.message}
        case SessionNotFoundError():
            return "refused.gone", {}
        case UnavailableError() | TimeoutError():
            return "refused.unavailable", {}
        case discord.HTTPException():
            return "refused.discord", {"code": error.code or error.status}
        case _:
            if not isinstance(error, RetoldError):
                log.error("command_failed", exc_info=error)
            return "refused.failed", {"message": str(error) or type(error).__name__}
