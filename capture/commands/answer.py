"""Answering one person: acknowledged at once, said when it is known, whatever Discord makes of it.

Discord takes a first answer within 3 s and further ones within 15 min. An answer that it does not take is logged and
done without: what was asked for is done all the same, and the panel shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import aiohttp
import discord
import structlog
from discord.utils import MISSING

from capture.words.catalogue import Words, words_in

log = structlog.get_logger()

MESSAGE_CHARACTERS: Final = 2000
REFUSALS: Final = (discord.HTTPException, discord.InteractionResponded, aiohttp.ClientError, OSError)


class Answer:
    """The answer to one interaction, seen by the person alone."""

    def __init__(self, interaction: discord.Interaction) -> None:
        self.interaction = interaction
        self.words: Words = words_in(str(interaction.locale))

    async def promise(self) -> None:
        """Acknowledge: an answer will come."""
        if self.interaction.response.is_done():
            return
        try:
            await self.interaction.response.defer(ephemeral=True, thinking=True)
        except REFUSALS as error:
            self._lost("acknowledge", error)

    async def turn(self) -> None:
        """Acknowledge a button: what it stands on will say something else."""
        try:
            await self.interaction.response.defer()
        except REFUSALS as error:
            self._lost("acknowledge", error)

    async def say(self, text: str, *, files: Sequence[discord.File] = (), view: discord.ui.View | None = None) -> bool:
        """Say it, in place of what was said before, with the buttons of `view`; whether Discord took it."""
        text = text if len(text) <= MESSAGE_CHARACTERS else text[: MESSAGE_CHARACTERS - 1] + "…"
        try:
            if self.interaction.response.is_done():
                await self.interaction.edit_original_response(content=text, attachments=files, view=view)
            else:
                await self.interaction.response.send_message(text, ephemeral=True, files=files, view=view or MISSING)
        except REFUSALS as error:
            self._lost("say", error)
            return False
        return True

    async def ask(self, modal: discord.ui.Modal) -> None:
        """Open a form; it has to be the first answer."""
        try:
            await self.interaction.response.send_modal(modal)
        except REFUSALS as error:
            self._lost("ask", error)

    def _lost(self, step: str, error: BaseException) -> None:
        log.warning("answer_not_taken", step=step, code=getattr(error, "code", 0), error=str(error)[:200])
