"""The buttons of panels, cards and lists: known by their custom id, so that they work after a restart of the bot."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, Self

import discord
from discord import ui

from capture.words.catalogue import Words

TEMPLATE: Final = r"r:(?P<session>[0-9a-z]{16}):(?P<action>[a-z]+)"
STYLES: Final = {"stop": discord.ButtonStyle.danger, "delete": discord.ButtonStyle.danger}

PAGE: Final = r"l:(?P<page>[0-9]{1,4})"

Press = Callable[[discord.Interaction, str, str], Awaitable[None]]
Turn = Callable[[discord.Interaction, int], Awaitable[None]]


class SessionButton(ui.DynamicItem[ui.Button[Any]], template=TEMPLATE):
    """A button of a session; `press(interaction, session, action)` is set once, at the start."""

    press: ClassVar[Press]

    def __init__(self, session: str, action: str, label: str) -> None:
        self.session = session
        self.action = action
        style = STYLES.get(action, discord.ButtonStyle.secondary)
        super().__init__(ui.Button(label=label, style=style, custom_id=f"r:{session}:{action}"))

    @classmethod
    async def from_custom_id(
        cls,
        interaction: discord.Interaction,  # noqa: ARG003  # discord.py's signature
        item: ui.Item[Any],
        match: re.Match[str],
        /,
    ) -> Self:
        """The button that was pressed, made anew from its id."""
        label = item.label if isinstance(item, ui.Button) else None
        return cls(match["session"], match["action"], label or match["action"])

    async def callback(self, interaction: discord.Interaction) -> None:
        """Do it."""
        await type(self).press(interaction, self.session, self.action)


class PageButton(ui.DynamicItem[ui.Button[Any]], template=PAGE):
    """A button that shows another page of the list; `turn(interaction, page)` is set once, at the start."""

    turn: ClassVar[Turn]

    def __init__(self, page: int, label: str) -> None:
        self.page = page
        super().__init__(ui.Button(label=label, custom_id=f"l:{page}"))

    @classmethod
    async def from_custom_id(
        cls,
        interaction: discord.Interaction,  # noqa: ARG003  # discord.py's signature
        item: ui.Item[Any],
        match: re.Match[str],
        /,
    ) -> Self:
        """The button that was pressed, made anew from its id."""
        return cls(int(match["page"]), (item.label if isinstance(item, ui.Button) else None) or match["page"])

    async def callback(self, interaction: discord.Interaction) -> None:
        """Turn to it."""
        await type(self).turn(interaction, self.page)


def page_view(page: int, pages: int, words: Words) -> ui.View | None:
    """Buttons to the pages beside this one, counted from 0; None if there is but one."""
    view = ui.View(timeout=None)
    if page > 0:
        view.add_item(PageButton(page - 1, words("list.newer")))
    if page + 1 < pages:
        view.add_item(PageButton(page + 1, words("list.older")))
    return view if view.children else None


def row(session: str, section: str, actions: tuple[str, ...], words: Words) -> ui.ActionRow[Any]:
    """A row of buttons, labelled from a section of the catalogue."""
    line: ui.ActionRow[Any] = ui.ActionRow()
    for action in actions:
        line.add_item(SessionButton(session, action, words(f"{section}.{action}")))
    return line


def single(session: str, section: str, action: str, words: Words) -> ui.View:
    """One button under a message of text."""
    view = ui.View(timeout=None)
    view.add_item(SessionButton(session, action, words(f"{section}.{action}")))
    view.stop()  # it is known by its id: nothing of it is to be remembered
    return view
