"""Every session's panel: posted when it starts, edited while it runs, turned into its card when it ends.

Whoever started a session, however, and whatever restarted since: what is running is asked of capture over the bus,
where a panel stands is in the log. A panel that Discord does not take is tried again; the recording never waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Final

import aiohttp
import discord
import msgspec
import structlog

from capture.commands.buttons import single
from capture.commands.desk import Desk, written_title
from capture.panel import Files, Message, card_view, fingerprint, live_view
from capture.visible import Visible
from capture.words.catalogue import moment
from contracts.artifacts import RenderFailed, RenderStored
from contracts.commands import LiveSession, PlacePanel, RefusedError
from contracts.directory import Keeping, SessionEntry
from contracts.errors import RetoldError
from contracts.guilds import GuildSettings
from contracts.jetstream.asking import ask_status, place_panel
from contracts.jetstream.connection import SessionNotFoundError
from contracts.jetstream.directory import change_keeping, find_entry, list_entries, watch_deletions, watch_entries
from contracts.jetstream.jobs import watch_renders
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.replay import last_sequence
from contracts.recipes import DEFAULT_RECIPES

log = structlog.get_logger()

EDIT_EVERY_S: Final = 5.0
EDITS_PER_S: Final = 20.0  # over all rooms; Discord lets a bot make 50 requests a second
RETRY_S: Final = 30.0  # after Discord did not take a panel
SHOWN_STILL_NS: Final = 3600 * 1_000_000_000  # a status line that stands longer may be somebody's own
LOOK_BACK_NS: Final = 24 * 3600 * 1_000_000_000  # cards of sessions that ended since then are still brought up to date
GONE: Final = {10003, 10008}  # unknown channel, unknown message
POSTABLE = discord.TextChannel | discord.VoiceChannel | discord.StageChannel
TROUBLE: Final = (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError)


class Panel:
    """One session's message."""

    def __init__(self, session: str, guild_id: int) -> None:
        self.session = session
        self.guild_id = guild_id
        self.message: discord.PartialMessage | None = None
        self.gone: set[str] = set()  # messages that somebody deleted
        self.shown: object = None
        self.not_before_s = 0.0
        self.present: dict[str, str] = {}
        self.files: Files = "making"
        self.busy = asyncio.Lock()


class Panels:
    """Shows every session of this capture."""

    def __init__(self, desk: Desk, visible: Visible) -> None:
        self._desk = desk
        self._visible = visible
        self._panels: dict[str, Panel] = {}
        self._look = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def look(self) -> None:
        """Something may have changed: look at once."""
        self._look.set()

    def revise(self, sessions: Iterable[str], guild_id: int) -> None:
        """Past sessions are not what they were: their cards are written anew."""
        for session in sessions:
            self._panels.setdefault(session, Panel(session, guild_id))
        self.look()

    async def run(self) -> None:
        """Show until cancelled."""
        await watch_renders(self._desk.bus, self._on_render)
        await watch_entries(self._desk.bus, self._on_kept)
        await watch_deletions(self._desk.bus, self._on_kept)
        await self._find_cards()
        while True:
            self._look.clear()
            try:
                await self._look_around()
            except RetoldError as error:
                log.info("panels_wait", reason=str(error))
            try:
                async with asyncio.timeout(EDIT_EVERY_S):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _look_around(self) -> None:
        status = await ask_status(self._desk.bus, shard=self._desk.bot.shard_id or 0)
        running = {live.session for live in status.sessions}
        for live in status.sessions:
            guild_id = int(live.guild_id)
            if self._desk.bot.get_guild(guild_id) is not None:
                panel = self._panels.setdefault(live.session, Panel(live.session, guild_id))
                self._spawn(panel, self._show(panel, live))
        for panel in [each for each in self._panels.values() if each.session not in running]:
            self._spawn(panel, self._close(panel))

    def _spawn(self, panel: Panel, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else, once at a time for each panel."""
        if panel.busy.locked() or time.monotonic() < panel.not_before_s:
            work.close()
            return

        async def guarded() -> None:
            async with panel.busy:
                try:
                    await work
                except TROUBLE as error:
                    panel.not_before_s = time.monotonic() + RETRY_S
                    log.warning("panel_not_shown", session=panel.session, error=str(error)[:200])
                except RetoldError as error:
                    log.info("panel_waits", session=panel.session, reason=str(error))

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- a session that runs

    async def _show(self, panel: Panel, live: LiveSession) -> None:
        settings = self._desk.guilds.known(panel.guild_id) or await self._desk.guilds.settings(panel.guild_id)
        guild = self._desk.bot.get_guild(panel.guild_id)
        if guild is None:
            return
        words = self._desk.room_words(guild, settings)
        unheard = self._visible.unheard(guild, live)
        news = fingerprint(live, settings, unheard)
        if panel.message is None:
            panel.message = _message_at(guild, panel, live.panel_channel_id, live.panel_message_id)
        self._visible.running(guild, live, settings, words)
        if panel.message is None:
            await self._post(panel, guild, live, live_view(live, settings, words, unheard=unheard))
            panel.shown, panel.present = news, _present(live)
        elif news != panel.shown:
            await self._edit(panel, live_view(live, settings, words, unheard=unheard))
            panel.shown = news
        await self._greet(panel, guild, live, settings)
        panel.not_before_s = time.monotonic() + max(EDIT_EVERY_S, len(self._panels) / EDITS_PER_S)

    async def _post(self, panel: Panel, guild: discord.Guild, live: LiveSession, view: Message) -> None:
        """Where it is wanted, or else in the voice channel's own chat."""
        wanted = [live.panel_channel_id, live.channel_id]
        for channel_id in dict.fromkeys(int(each) for each in wanted if each):
            channel = guild.get_channel(channel_id)
            if not isinstance(channel, discord.abc.Messageable) or not _may_post(guild, channel):
                continue
            try:
                sent = await channel.send(view=view)
            except (discord.Forbidden, discord.NotFound) as error:
                log.warning("panel_refused", session=panel.session, channel=str(channel_id), code=error.code)
                continue
            panel.message = sent.channel.get_partial_message(sent.id)  # type: ignore[union-attr]  # a guild's channel
            request = PlacePanel(guild_id=live.guild_id, channel_id=str(sent.channel.id), message_id=str(sent.id))
            try:
                await place_panel(self._desk.bus, request)
            except RefusedError:  # it has just ended: its card is found by what we remember
                return
            return
        log.warning("panel_nowhere", session=panel.session)
        panel.not_before_s = time.monotonic() + RETRY_S

    async def _edit(self, panel: Panel, view: Message) -> None:
        if panel.message is None:
            return
        try:
            await panel.message.edit(view=view)
        except discord.NotFound as error:
            if error.code not in GONE:
                raise
            log.info("panel_gone", session=panel.session)
            panel.gone.add(str(panel.message.id))
            panel.message = panel.shown = None  # somebody deleted it: a recording is shown all the same
            panel.not_before_s = 0.0

    async def _greet(self, panel: Panel, guild: discord.Guild, live: LiveSession, settings: GuildSettings) -> None:
        """Tell those who came later."""
        now = _present(live)
        newcomers = [user_id for user_id in now if user_id not in panel.present]
        panel.present |= now
        if newcomers:
            await self._visible.greet(guild, live, settings, newcomers)

    # --- a session that is over

    async def _close(self, panel: Panel) -> None:
        entry = await find_entry(self._desk.bus, panel.session)
        guild = self._desk.bot.get_guild(panel.guild_id)
        if guild is None:
            self._panels.pop(panel.session, None)
            return
        settings = await self._desk.guilds.settings(panel.guild_id)
        lately = entry is not None and time.time_ns() - (entry.ended_unix_ns or 0) < SHOWN_STILL_NS
        channel_id = int(entry.channel_id) if entry is not None and lately and settings.status_line else 0
        self._visible.over(guild, panel.session, channel_id=channel_id)
        if entry is not None and entry.ended_unix_ns is None:
            return  # being saved
        await self._show_card(panel, guild, settings, entry)
        if entry is not None and not entry.deleted:
            await self._warn(guild, settings, entry)

    async def _show_card(
        self, panel: Panel, guild: discord.Guild, settings: GuildSettings, entry: SessionEntry | None
    ) -> None:
        if entry is None or entry.deleted:
            panel.files = "deleted"
        elif panel.files != "failed":
            panel.files = await self._files(entry)
        if panel.message is None and entry is not None:
            panel.message = _message_at(guild, panel, entry.panel_channel_id, entry.panel_message_id)
        wanted = (panel.files, entry)
        if panel.message is not None and panel.shown != wanted:
            words = self._desk.room_words(guild, settings)
            blank = SessionEntry(
                session=panel.session, guild_id="", guild_name="", channel_id="", channel_name="", started_unix_ns=0
            )
            await self._edit(panel, card_view(entry or blank, words, panel.files))
            panel.shown = wanted
        if (
            panel.message is None
            or panel.files == "deleted"
            or (
                panel.files == "ready"
                and entry is not None
                and time.time_ns() - (entry.ended_unix_ns or 0) > LOOK_BACK_NS
            )
        ):
            self._panels.pop(panel.session, None)

    async def _warn(self, guild: discord.Guild, settings: GuildSettings, entry: SessionEntry) -> None:
        """A recording is about to go: said once, where its card stands, by whoever claims to say it first."""
        going_ns, channel = entry.keeping.going_unix_ns, guild.get_channel(int(entry.panel_channel_id or 0))
        if going_ns is None or entry.keeping.told or not isinstance(channel, POSTABLE) or not _may_post(guild, channel):
            return
        mine = False

        def claim(keeping: Keeping) -> Keeping:
            nonlocal mine
            mine = keeping.going_unix_ns == going_ns and not keeping.told
            return msgspec.structs.replace(keeping, told=True) if mine else keeping

        await change_keeping(self._desk.bus, entry.session, claim)
        if mine:
            words = self._desk.room_words(guild, settings)
            text = words(
                f"going.{entry.keeping.going_why}",
                name=written_title(entry, words),
                date=moment(entry.started_unix_ns / 1e9, "D"),
                when=moment(going_ns / 1e9, "R"),
            )
            await channel.send(text, view=single(entry.session, "card", "keep", words))

    async def _on_kept(self, entry: SessionEntry) -> None:
        """Somebody decided about a past session: its card says so."""
        if entry.panel_message_id and entry.ended_unix_ns and entry.keeping != Keeping():
            self.revise([entry.session], int(entry.guild_id))

    async def _files(self, entry: SessionEntry) -> Files:
        """Whether the default renders of the whole log are there; what is in the archive was complete."""
        if entry.keeping.archived is not None:
            return "ready"
        try:
            log_end = await last_sequence(self._desk.bus, entry.session)
        except SessionNotFoundError:
            return "deleted"
        stored = [each.artifact for each in await list_artifacts(self._desk.bus, entry.session)]
        made = [each.recipe for each in stored if each.log_end == log_end]
        return "ready" if DEFAULT_RECIPES[0].canonical() in made else "making"

    async def _find_cards(self) -> None:
        """After a restart: sessions that ended lately may have become ready meanwhile."""
        since_ns = time.time_ns() - LOOK_BACK_NS
        for entry in await list_entries(self._desk.bus):
            if entry.panel_message_id and entry.ended_unix_ns and entry.ended_unix_ns > since_ns:
                self._panels.setdefault(entry.session, Panel(entry.session, int(entry.guild_id)))

    async def _on_render(self, fact: RenderStored | RenderFailed) -> None:
        panel = self._panels.get(fact.session)
        if panel is None:
            return
        if isinstance(fact, RenderStored) and panel.files == "failed":
            panel.files = "making"
        if isinstance(fact, RenderFailed) and not fact.retrying and panel.files == "making":
            panel.files = "failed"
        panel.not_before_s = 0.0
        self.look()


def _present(live: LiveSession) -> dict[str, str]:
    return {each.user_id: each.name for each in live.speakers if each.user_id}


def _may_post(guild: discord.Guild, channel: Any) -> bool:
    allowed = channel.permissions_for(guild.me)
    return bool(allowed.view_channel and allowed.send_messages)


def _message_at(
    guild: discord.Guild, panel: Panel, channel_id: str | None, message_id: str | None
) -> discord.PartialMessage | None:
    """The message that stands there, unless nobody knows of one, or somebody deleted it."""
    channel = guild.get_channel(int(channel_id or 0))
    if message_id is None or message_id in panel.gone or not isinstance(channel, POSTABLE):
        return None
    return channel.get_partial_message(int(message_id))
