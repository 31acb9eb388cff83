"""The front of the bot: the command tree, what buttons and forms do, and the panels; wired to one desk.

All of it runs beside the packet path and speaks to the recordings over the bus alone. What goes wrong here is told to
who asked, or logged, and ends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import discord
import structlog
from discord import app_commands

from capture.auto import AutoRecord
from capture.commands import clips, deeds, downloads, erasing, forms
from capture.commands.answer import Answer
from capture.commands.buttons import PageButton, SessionButton
from capture.commands.desk import Desk, apology
from capture.commands.group import Record, moment_menu
from capture.commands.names import Names
from capture.guilds import Guilds
from capture.panels import Panels
from capture.visible import Visible
from contracts.jetstream.connection import Bus
from contracts.settings import Settings

log = structlog.get_logger()

SYNC_RETRY_S: Final = 30.0
SHOW_RETRY_S: Final = 5.0
READY_POLL_S: Final = 0.1
FORMS: Final = {"note", "clip", "remix", "delete"}  # buttons that open one

Deed = Callable[[Answer], Awaitable[Any]]


class Front:
    """What people touch."""

    def __init__(self, bus: Bus, bot: discord.Client, guilds: Guilds, settings: Settings) -> None:
        self._bot = bot
        self._desk = Desk(bus, bot, guilds, settings)
        self._visible = Visible()
        self._panels = Panels(self._desk, self._visible)
        self._desk.changed = self._panels.look
        self._desk.revised = self._panels.revise
        self._auto = AutoRecord(bus, bot, guilds)
        self._tree = app_commands.CommandTree(bot)
        self._tree.add_command(Record(self._desk))
        menu = moment_menu(self._desk)
        menu.guild_only = True
        self._tree.add_command(menu)
        SessionButton.press = self._press
        PageButton.turn = self._turn
        bot.add_dynamic_items(SessionButton, PageButton)
        bot.event(_named("on_interaction", self._on_interaction))
        bot.event(_named("on_voice_state_update", self._on_voice_state))

    async def run(self) -> None:
        """Offer the commands and show the panels, until cancelled."""
        while not self._bot.is_ready():  # noqa: ASYNC110  # wait_until_ready raises before the login
            await asyncio.sleep(READY_POLL_S)
        await asyncio.gather(self._offer(), self._keep("panels", self._panels.run), self._keep("auto", self._auto.run))

    async def end(self) -> None:
        """Every recording ends: nothing shows any more that it runs."""
        await self._visible.end()

    async def _keep(self, what: str, run: Callable[[], Awaitable[None]]) -> None:
        """Begin anew whatever happens: recording does not depend on it."""
        while True:
            try:
                await run()
            except Exception:  # its top
                if self._bot.is_closed():  # the end: whatever was asked of Discord just then failed
                    return
                log.exception("front_failed", what=what)
                await asyncio.sleep(SHOW_RETRY_S)

    async def _offer(self) -> None:
        """Tell Discord the commands; tried again until it takes them. One shard tells it for all."""
        if self._bot.shard_id:
            return
        await self._tree.set_translator(Names())
        while True:
            try:
                commands = await self._tree.sync()
            except (discord.DiscordException, OSError, TimeoutError) as error:
                log.warning("commands_not_offered", error=str(error)[:300])
                await asyncio.sleep(SYNC_RETRY_S)
            else:
                log.info("commands_offered", commands=len(commands))
                return

    async def _press(self, interaction: discord.Interaction, session: str, action: str) -> None:
        answer, desk = Answer(interaction), self._desk
        if action == "note":
            await answer.ask(forms.note_form(session, answer.words))
        elif action == "clip":
            await answer.ask(forms.clip_form(session, answer.words, most="15m"))
        elif action == "delete":
            await self._do(answer, lambda each: erasing.ask_delete(desk, each, session))
        elif action == "remix":
            await answer.ask(forms.remix_form(session, answer.words))
        else:
            await answer.promise()
            await self._do(answer, lambda each: self._simple(each, session, action))

    async def _turn(self, interaction: discord.Interaction, page: int) -> None:
        answer = Answer(interaction)
        await answer.turn()
        await self._do(answer, lambda each: deeds.list_sessions(self._desk, each, page))

    async def _simple(self, answer: Answer, session: str, action: str) -> None:
        match action:
            case "stop":
                await deeds.stop(self._desk, answer, session)
            case "refuse":
                await deeds.choose(self._desk, answer, "out")
            case "allow":
                await deeds.choose(self._desk, answer, "in")
            case "link" | "listen" | "download":
                await deeds.page(self._desk, answer, session)
            case "undo":
                await erasing.undo(self._desk, answer, session)
            case "keep":
                await erasing.keep(self._desk, answer, session)
            case _:
                log.warning("button_unknown", action=action)

    async def _on_voice_state(self, *_: Any) -> None:
        self._auto.moved()
        self._panels.look()

    async def _on_interaction(self, interaction: discord.Interaction) -> None:
        if interaction.type is not discord.InteractionType.modal_submit:
            return
        form = forms.read_form(interaction.data or {})
        if form is None:
            return
        name, session, text = form
        answer, desk = Answer(interaction), self._desk
        await answer.promise()
        match name:
            case "note":
                await self._do(answer, lambda each: deeds.note(desk, each, text, session=session))
            case "clip":
                await self._do(answer, lambda each: clips.clip(desk, each, text, session=session))
            case "remix":
                wish = downloads.Wish(format="mp3", gain=text)
                await self._do(answer, lambda each: downloads.remix(desk, each, session, wish))
            case "forget":
                await self._do(answer, lambda each: deeds.forget(desk, each, text))
            case "delete":
                await self._do(answer, lambda each: erasing.delete(desk, each, session, text))
                self._panels.look()
            case _:
                log.warning("form_unknown", name=name)

    @staticmethod
    async def _do(answer: Answer, deed: Deed) -> None:
        try:
            await deed(answer)
        except Exception as error:  # noqa: BLE001  # the top of a press: `apology` logs what nobody foresaw
            await answer.say(apology(error, answer.words))


def _named(name: str, function: Callable[..., Awaitable[None]]) -> Any:
    """A coroutine function under the name that discord.py dispatches to."""

    async def handler(*arguments: Any) -> None:
        await function(*arguments)

    handler.__name__ = name
    return handler
