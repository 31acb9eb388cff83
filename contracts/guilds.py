"""Settings of a guild, and what its people said about being recorded: one entry each in the KV bucket `guilds`.

Three modes. `notice`: everybody is told. `opt-out`: everybody is told, and offered not to be recorded. `opt-in`:
nobody's speech is written before they allowed it. In every mode, what a person said against it holds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from contracts import wire
from contracts.ids import Snowflake

ConsentMode: TypeAlias = Literal["notice", "opt-out", "opt-in"]
Language: TypeAlias = Literal["", "en", "de"]
Choice: TypeAlias = Literal["in", "out"]
CONSENT_MODES: Final = ("notice", "opt-out", "opt-in")
MOST_RULES: Final = 25


class AutoRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a channel is recorded without anybody's asking.

    Attributes
    ----------
    minimum
        People (no bots) who have to be there; it ends when nobody is.
    role_id
        If given, one of them has to have this role.
    from_hour, to_hour
        Only within these hours of the day, UTC, half-open; equal = all day. It may pass midnight.
    """

    channel_id: Snowflake
    minimum: Annotated[int, Meta(ge=1, le=99)] = 2
    role_id: Snowflake | None = None
    from_hour: Annotated[int, Meta(ge=0, le=23)] = 0
    to_hour: Annotated[int, Meta(ge=0, le=23)] = 0

    def at(self, hour: int) -> bool:
        """Whether it holds in this hour of the day."""
        if self.from_hour == self.to_hour:
            return True
        inside = self.from_hour <= hour < self.to_hour
        return inside if self.from_hour < self.to_hour else hour >= self.from_hour or hour < self.to_hour


class GuildSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a guild's managers set, and what its people chose.

    Attributes
    ----------
    consent
        See the module.
    opted_out, opted_in
        Who said so last; nobody is in both.
    language
        Of what everybody sees; empty = the server's own.
    recorder_role
        Who has it may start, stop and delete like a manager.
    downloads
        Who may list and download a session: those who were there and managers, or managers only.
    panel_channel_id
        Where the panel is posted; None = where the command was given, or the voice channel's own chat.
    status_line, spoken_notice, nickname
        How recording is made visible beside the panel.
    tone_minutes
        A tone sounds in the call so often while it is recorded; 0 = never.
    auto, never
        Channels that are recorded by themselves, and channels that never are.
    to_forget
        `<session>/<user id>`: who is to be taken out of which session as soon as it is over.
    stop_alone_s
        Stop so long after the last person left; 0 = never.
    most_hours
        Stop after so many hours.
    keep_days
        Recordings become no older than this; 0 = as old as the installation lets them.
    """

    guild_id: Snowflake
    consent: ConsentMode = "notice"
    opted_out: tuple[Snowflake, ...] = ()
    opted_in: tuple[Snowflake, ...] = ()
    language: Language = ""
    recorder_role: Snowflake | None = None
    downloads: Literal["present", "managers"] = "present"
    panel_channel_id: Snowflake | None = None
    status_line: bool = True
    spoken_notice: bool = True
    nickname: bool = False
    tone_minutes: Annotated[int, Meta(ge=0, le=60)] = 0
    auto: Annotated[tuple[AutoRule, ...], Meta(max_length=MOST_RULES)] = ()
    never: tuple[Snowflake, ...] = ()
    to_forget: tuple[str, ...] = ()
    stop_alone_s: Annotated[int, Meta(ge=0, le=86_400)] = 60
    most_hours: Annotated[float, Meta(gt=0, le=168)] = 12.0
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 0

    def records(self, user_id: Snowflake) -> bool:
        """Whether this person's speech may be written."""
        return user_id in self.opted_in if self.consent == "opt-in" else user_id not in self.opted_out

    def with_choice(self, user_id: Snowflake, choice: Choice) -> GuildSettings:
        """After a person chose; the same choice twice changes nothing."""
        out = tuple(sorted({*self.opted_out} - {user_id} | ({user_id} if choice == "out" else set())))
        inside = tuple(sorted({*self.opted_in} - {user_id} | ({user_id} if choice == "in" else set())))
        return msgspec.structs.replace(self, opted_out=out, opted_in=inside)

    def without(self, user_id: Snowflake) -> GuildSettings:
        """As if this person had never chosen."""
        cleared = self.with_choice(user_id, "out")
        return msgspec.structs.replace(cleared, opted_out=tuple(each for each in cleared.opted_out if each != user_id))


_guilds = msgspec.json.Decoder(GuildSettings)


def encode_guild(settings: GuildSettings) -> bytes:
    """The wire form: JSON."""
    return msgspec.json.encode(settings)


def decode_guild(data: bytes) -> GuildSettings:
    """Settings of a guild; MalformedError if they are none."""
    return wire.decode(_guilds, data, "settings of a guild")
