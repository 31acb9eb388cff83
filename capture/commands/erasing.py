"""How long a recording stays: deleted by a word that is typed, brought back, or kept."""

from __future__ import annotations

from typing import Final

import structlog

from capture.commands.answer import Answer
from capture.commands.buttons import single
from capture.commands.deeds import row
from capture.commands.desk import Denied, Desk, written_title
from capture.commands.forms import typed_form, was_typed
from contracts.directory import SessionEntry
from contracts.jetstream.directory import find_entry
from contracts.jetstream.keeping import pin, undelete, withdraw

log = structlog.get_logger()

HOUR_S: Final = 3600


async def ask_delete(desk: Desk, answer: Answer, session: str) -> None:
    """Ask for the word that erases; who may not is told at once."""
    try:
        entry = await _deletable(desk, answer, session)
    except Denied as denied:
        await answer.say(answer.words(denied.key, **denied.fields))
        return
    await answer.ask(typed_form("delete", entry.session, answer.words, about=row(entry, answer.words)))


async def delete(desk: Desk, answer: Answer, session: str, typed: str) -> SessionEntry:
    """Erase a recording, if the word was typed; what it was."""
    if not was_typed("delete", typed, answer.words):
        raise Denied("delete.not_typed")
    entry = await _deletable(desk, answer, session)
    by, grace_h = str(answer.interaction.user.id), desk.settings.grace_hours
    await withdraw(desk.bus, entry.session, by=f"user:{by}", grace_s=grace_h * HOUR_S)
    log.info("session_deleted", session=entry.session, by=by)
    if grace_h > 0:
        grace, view = f"{grace_h:g} h", single(entry.session, "card", "undo", answer.words)
        await answer.say(answer.words("delete.done", name=written_title(entry, answer.words), grace=grace), view=view)
    else:
        await answer.say(answer.words("delete.erased", name=written_title(entry, answer.words)))
    return entry


async def undo(desk: Desk, answer: Answer, session: str) -> None:
    """Bring a deleted recording back, for whoever may delete it."""
    who, settings = await desk.who(answer.interaction)
    entry = await find_entry(desk.bus, session)
    if entry is None or entry.guild_id != settings.guild_id:
        raise Denied("delete.too_late")
    if not who.may_delete(entry):
        raise Denied("rights.delete")
    await undelete(desk.bus, session)
    log.info("session_undeleted", session=session, by=who.user_id)
    desk.revised([session], int(entry.guild_id))
    await answer.say(answer.words("delete.undone", name=written_title(entry, answer.words)))


async def keep(desk: Desk, answer: Answer, session: str) -> None:
    """Keep a recording that is about to go, for whoever may delete it."""
    entry = await desk.deletable(answer.interaction, session)
    await pin(desk.bus, entry.session)
    desk.revised([entry.session], int(entry.guild_id))
    await answer.say(answer.words("going.kept", name=written_title(entry, answer.words)))


async def _deletable(desk: Desk, answer: Answer, session: str) -> SessionEntry:
    entry = await desk.deletable(answer.interaction, session)
    if entry.ended_unix_ns is None:
        raise Denied("delete.running")
    return entry
