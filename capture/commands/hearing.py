"""Does it work? Ten seconds of one person; and which recording a message was written in."""

from __future__ import annotations

import asyncio
from typing import Final

import discord

from capture.commands.answer import Answer
from capture.commands.desk import Denied, Desk, written_title
from capture.words.catalogue import clock
from contracts.commands import LiveSession, LiveSpeaker

LISTEN_S: Final = 10
SAMPLE_S: Final = 0.5  # a batch's time: no level is missed
WITHHELD: Final = {"opted_out": "panel.opted_out", "not_opted_in": "panel.not_opted_in"}


async def test(desk: Desk, answer: Answer) -> None:
    """Listen to the person for ten seconds, and tell what arrived."""
    words, user_id = answer.words, str(answer.interaction.user.id)
    live = await desk.running(answer.interaction.guild_id)
    before = _speaker(live, user_id)
    if before is None:
        raise Denied("test.not_there")
    if before.state in WITHHELD:
        raise Denied("test.withheld", why=words(WITHHELD[before.state], name="").strip(" 🔇·"))
    await answer.say(words("test.listening", seconds=LISTEN_S))
    states, levels, after = set(), [], before
    for _ in range(round(LISTEN_S / SAMPLE_S)):
        await asyncio.sleep(SAMPLE_S)
        after = _speaker(await desk.running(answer.interaction.guild_id), user_id) or after
        states.add(after.state)
        levels += [after.level_dbov] if after.level_dbov is not None and after.state == "heard" else []
    packets, lost = after.packets - before.packets, after.lost - before.lost
    if packets > 0 and "heard" in states:
        level = words("test.level", db=-min(levels)) if levels else words("test.no_level")
        loss = f"{100 * lost / (packets + lost):.1f}"
        await answer.say(words("test.heard", packets=packets, level=level, loss=loss))
    else:
        key = "test.undecryptable" if "undecryptable" in states else "test.silent"
        await answer.say(words(key, seconds=LISTEN_S))


def _speaker(live: LiveSession, user_id: str) -> LiveSpeaker | None:
    return next((each for each in live.speakers if each.user_id == user_id), None)


async def moment(desk: Desk, answer: Answer, message: discord.Message) -> None:
    """The recording that ran when a message was written, and where in it that was."""
    written_ns = round(message.created_at.timestamp() * 1e9)
    for entry in await desk.sessions(answer.interaction):
        end_ns = entry.ended_unix_ns
        if entry.started_unix_ns <= written_ns and (end_ns is None or written_ns < end_ns):
            at = clock((written_ns - entry.started_unix_ns) / 1e9)
            url = desk.linker(str(answer.interaction.user.id)).page(entry.session)
            name = written_title(entry, answer.words)
            await answer.say(answer.words("moment.found", at=at, name=name, url=f"<{url}>"))
            return
    raise Denied("moment.none")
