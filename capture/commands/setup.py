"""What a server's managers set: shown, and changed one thing at a time."""

from __future__ import annotations

from typing import Any

import discord
import msgspec

from capture.commands.answer import Answer
from capture.commands.desk import Denied, Desk
from capture.words.catalogue import Words
from contracts.commands import StopRecording
from contracts.guilds import MOST_RULES, AutoRule, GuildSettings
from contracts.jetstream.asking import stop_recording
from contracts.jetstream.guilds import change_guild


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; None stays as it is.

    Attributes
    ----------
    values
        Fields of GuildSettings.
    auto, rule
        A channel that is recorded by itself, by a rule of these fields; without any it is not, if it was.
    never
        A channel that is never recorded, nor any longer if it is just then; or may be again.
    """

    values: dict[str, Any]
    auto: str | None = None
    rule: dict[str, Any] = {}
    never: str | None = None

    @property
    def anything(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.values or self.auto or self.never)

    def apply(self, before: GuildSettings) -> GuildSettings:
        """The settings after it."""
        after = msgspec.structs.replace(before, **self.values)
        if self.auto is not None:
            after = self._toggle_auto(after, self.auto)
        if self.never is not None:
            never = {*after.never} ^ {self.never}
            after = msgspec.structs.replace(after, never=tuple(sorted(never)))
        return after

    def _toggle_auto(self, settings: GuildSettings, channel_id: str) -> GuildSettings:
        """With fields the rule is set; without any it goes if it is there."""
        others = tuple(rule for rule in settings.auto if rule.channel_id != channel_id)
        if not self.rule and len(others) < len(settings.auto):
            return msgspec.structs.replace(settings, auto=others)
        if len(others) >= MOST_RULES:
            raise Denied("settings.too_many")
        rule = AutoRule(channel_id=channel_id, **self.rule)
        return msgspec.structs.replace(settings, auto=(*others, rule))


async def settings(desk: Desk, answer: Answer, change: Change) -> None:
    """Change what was asked for, and show what is set."""
    who, now = await desk.who(answer.interaction)
    if not who.manager:
        raise Denied("rights.managers")
    said = []
    if change.anything:
        await change_guild(desk.bus, now.guild_id, change.apply)
        now = await desk.guilds.settings(int(now.guild_id))
        said.append(answer.words("settings.saved"))
        if change.never in now.never and await _stop_in(desk, answer, change.never):
            said.append(answer.words("settings.stopped", channel=f"<#{change.never}>"))
        desk.changed()
    if change.rule and change.auto is None:
        said.append(answer.words("settings.no_rule"))
    await answer.say("\n".join([*said, *describe(now, answer.words)]))


async def _stop_in(desk: Desk, answer: Answer, channel_id: str | None) -> bool:
    """End the recording that runs in a channel; whether there was one."""
    live = await desk.live(answer.interaction.guild_id)
    if live is None or live.channel_id != channel_id:
        return False
    await stop_recording(desk.bus, StopRecording(guild_id=live.guild_id, requested_by=str(answer.interaction.user.id)))
    return True


def describe(now: GuildSettings, words: Words) -> list[str]:
    """Every setting in a line of its own."""
    none = words("settings.none")
    visible = [words(f"settings.{name}") for name in ("status_line", "spoken_notice", "nickname") if getattr(now, name)]
    visible += [words("settings.tone", minutes=now.tone_minutes)] if now.tone_minutes else []
    rules = [_rule(rule, words) for rule in now.auto]
    values = {
        "consent": words(f"consent.{now.consent}"),
        "language": now.language or words("settings.server"),
        "role": f"<@&{now.recorder_role}>" if now.recorder_role else none,
        "downloads": words(f"settings.{now.downloads}"),
        "panel": f"<#{now.panel_channel_id}>" if now.panel_channel_id else words("settings.here"),
        "visible": ", ".join(visible) or none,
        "auto": ", ".join(rules) or none,
        "never": ", ".join(f"<#{each}>" for each in now.never) or none,
    }
    lines = [
        f"**{words('settings.title')}**",
        *(words(f"settings.{name}", value=each) for name, each in values.items()),
    ]
    kept = words("settings.days", count=now.keep_days) if now.keep_days else words("settings.server_rule")
    lines.append(words("settings.keep", value=kept))
    lines.append(words("settings.limits", alone=now.stop_alone_s, hours=f"{now.most_hours:g}"))
    return lines


def _rule(rule: AutoRule, words: Words) -> str:
    text = words("settings.rule", channel=f"<#{rule.channel_id}>", minimum=rule.minimum)
    text += f" (<@&{rule.role_id}>)" if rule.role_id else ""
    return text if rule.from_hour == rule.to_hour else f"{text}, {rule.from_hour}:00-{rule.to_hour}:00 UTC"


def snowflake(item: discord.abc.Snowflake | None) -> str | None:
    """The id of what was chosen."""
    return str(item.id) if item is not None else None
