"""The slash commands: `/record ...`. Each acknowledges at once and hands over to a deed.

Names and descriptions are translated by the catalogue of commands; every answer is in the person's own language.
"""

from __future__ import annotations

from typing import Any

import discord
from discord import app_commands
from discord.app_commands import Choice as Option
from discord.app_commands import locale_str as _

from capture.commands import choices, clips, deeds, downloads, erasing, hearing, setup
from capture.commands.answer import Answer
from capture.commands.desk import Desk, apology
from capture.commands.forms import typed_form
from contracts.ids import new_id


class Record(app_commands.Group):
    """`/record`."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(name=_("record"), description=_("Record this voice channel, and get the recording"))
        self.guild_only = True
        self.allowed_contexts = app_commands.AppCommandContext(guild=True)
        self._desk = desk

    @app_commands.command(name=_("start"), description=_("Record the voice channel you are in"))
    @app_commands.rename(channel=_("channel"), name=_("name"), preset=_("preset"))
    @app_commands.describe(
        channel=_("Another voice channel"),
        name=_("What to call the recording"),
        preset=_("What else to make of it at the end"),
    )
    async def start(
        self,
        interaction: discord.Interaction,
        channel: discord.VoiceChannel | discord.StageChannel | None = None,
        name: app_commands.Range[str, 1, 100] = "",
        preset: app_commands.Range[str, 1, 40] = "",
    ) -> None:
        """Record."""
        answer = await _promised(interaction)
        await deeds.start(self._desk, answer, channel, name, preset)

    @app_commands.command(name=_("stop"), description=_("End the recording and leave"))
    async def stop(self, interaction: discord.Interaction) -> None:
        """Stop."""
        await deeds.stop(self._desk, await _promised(interaction))

    @app_commands.command(name=_("note"), description=_("Mark this moment, or one that has passed"))
    @app_commands.rename(text=_("text"), ago=_("ago"))
    @app_commands.describe(text=_("What happened"), ago=_("How long ago, such as 30s or 2m"))
    async def note(
        self,
        interaction: discord.Interaction,
        text: app_commands.Range[str, 1, 1000],
        ago: app_commands.Range[str, 1, 20] = "",
    ) -> None:
        """Note."""
        await deeds.note(self._desk, await _promised(interaction), text, ago)

    @app_commands.command(name=_("status"), description=_("How the recording goes: what is saved, what is heard"))
    async def status(self, interaction: discord.Interaction) -> None:
        """Status."""
        await deeds.status(self._desk, await _promised(interaction))

    @app_commands.command(name=_("test"), description=_("Ten seconds: am I heard, how loud, how well?"))
    async def test(self, interaction: discord.Interaction) -> None:
        """Test."""
        await hearing.test(self._desk, await _promised(interaction))

    @app_commands.command(name=_("list"), description=_("The recordings that you may open"))
    async def list_(self, interaction: discord.Interaction) -> None:
        """List."""
        await deeds.list_sessions(self._desk, await _promised(interaction))

    @app_commands.command(name=_("download"), description=_("A link to a recording, or a file of it"))
    @app_commands.rename(
        recording=_("recording"), format=_("format"), tracks=_("tracks"), start=_("from"), stop=_("to")
    )
    @app_commands.describe(
        recording=_("Which one; the newest if you name none"),
        format=_("Which file; none: the page with everything"),
        tracks=_("A file for each person"),
        start=_("From when in the recording, such as 1:30"),
        stop=_("Until when in the recording"),
    )
    @app_commands.choices(format=choices.PACKAGES)
    async def download(
        self,
        interaction: discord.Interaction,
        recording: app_commands.Range[str, 1, 100] = "",
        format: str = "",  # noqa: A002  # the option's name
        tracks: bool = False,  # noqa: FBT001, FBT002  # an option
        start: app_commands.Range[str, 1, 20] = "",
        stop: app_commands.Range[str, 1, 20] = "",
    ) -> None:
        """Download."""
        answer = await _promised(interaction)
        wish = downloads.Wish(format=format, tracks=tracks, start=start, stop=stop)
        await downloads.download(self._desk, answer, recording, wish)

    @app_commands.command(name=_("remix"), description=_("Mix a recording anew; the old mix stays"))
    @app_commands.rename(
        recording=_("recording"),
        preset=_("preset"),
        gain=_("gain"),
        mute=_("mute"),
        denoise=_("denoise"),
        trim=_("trim"),
        format=_("format"),
        start=_("from"),
        stop=_("to"),
    )
    @app_commands.describe(
        recording=_("Which one; the newest if you name none"),
        preset=_("How it is to sound"),
        denoise=_("Take out noise between words"),
        trim=_("Take out long silences"),
        gain=_("Who louder or softer, in decibels: Ada=+3, Bela=-6"),
        mute=_("Whom to leave out: Ada, Bela"),
        format=_("Which file"),
        start=_("From when in the recording, such as 1:30"),
        stop=_("Until when in the recording"),
    )
    @app_commands.choices(format=choices.FORMATS)
    async def remix(
        self,
        interaction: discord.Interaction,
        recording: app_commands.Range[str, 1, 100] = "",
        preset: app_commands.Range[str, 1, 40] = "",
        gain: app_commands.Range[str, 1, 200] = "",
        mute: app_commands.Range[str, 1, 200] = "",
        denoise: bool = False,  # noqa: FBT001, FBT002  # an option
        trim: bool = False,  # noqa: FBT001, FBT002  # an option
        format: str = "",  # noqa: A002  # the option's name
        start: app_commands.Range[str, 1, 20] = "",
        stop: app_commands.Range[str, 1, 20] = "",
    ) -> None:
        """Remix."""
        answer = await _promised(interaction)
        wish = downloads.Wish(
            format=format,
            start=start,
            stop=stop,
            gain=gain,
            mute=mute,
            denoise=denoise,
            trim=trim,
        )
        await downloads.remix(self._desk, answer, recording, wish, preset)

    @app_commands.command(name=_("clip"), description=_("Post what was just said"))
    @app_commands.rename(last=_("last"), who=_("who"))
    @app_commands.describe(last=_("How much, such as 30s or 2m; a minute if you name none"), who=_("One person alone"))
    async def clip(
        self,
        interaction: discord.Interaction,
        last: app_commands.Range[str, 1, 20] = "",
        who: discord.Member | None = None,
    ) -> None:
        """Clip."""
        await clips.clip(self._desk, await _promised(interaction), last, who)

    @app_commands.command(
        name=_("settings"), description=_("What this server's managers set; without options: show it")
    )
    @app_commands.rename(
        consent=_("consent"),
        language=_("language"),
        role=_("role"),
        access=_("downloads"),
        panel=_("panel"),
        status_line=_("status-line"),
        spoken_notice=_("spoken-notice"),
        nickname=_("nickname"),
        tone=_("tone"),
        auto=_("auto"),
        minimum=_("minimum"),
        auto_role=_("auto-role"),
        from_hour=_("from-hour"),
        to_hour=_("to-hour"),
        never=_("never"),
        stop_alone=_("stop-alone"),
        most_hours=_("most-hours"),
        keep=_("keep"),
    )
    @app_commands.describe(
        consent=_("Who is recorded"),
        language=_("Language of what everybody sees"),
        role=_("A role that may start and stop like managers"),
        access=_("Who may download"),
        panel=_("Where the panel is posted"),
        status_line=_("Show it in the channel's status"),
        spoken_notice=_("Say it when recording starts"),
        nickname=_("Show it in the bot's nickname"),
        tone=_("Sound a tone in the call every so many minutes; 0: never"),
        auto=_("Record this channel by itself, or not any more"),
        minimum=_("From how many people"),
        auto_role=_("Only if one of them has this role"),
        from_hour=_("From this hour of the day, UTC"),
        to_hour=_("Until this hour of the day, UTC"),
        never=_("Never record this channel, or allow it again"),
        stop_alone=_("Stop so many seconds after the last person left; 0: never"),
        most_hours=_("Stop after so many hours"),
        keep=_("Delete recordings older than so many days; 0: as the bot's operator says"),
    )
    @app_commands.choices(consent=choices.CONSENT, language=choices.LANGUAGES, access=choices.ACCESS)
    async def settings(
        self,
        interaction: discord.Interaction,
        consent: str | None = None,
        language: str | None = None,
        role: discord.Role | None = None,
        access: str | None = None,
        panel: discord.TextChannel | discord.VoiceChannel | discord.StageChannel | None = None,
        status_line: bool | None = None,  # noqa: FBT001  # an option
        spoken_notice: bool | None = None,  # noqa: FBT001  # an option
        nickname: bool | None = None,  # noqa: FBT001  # an option
        tone: app_commands.Range[int, 0, 60] | None = None,
        auto: discord.VoiceChannel | discord.StageChannel | None = None,
        minimum: app_commands.Range[int, 1, 99] | None = None,
        auto_role: discord.Role | None = None,
        from_hour: app_commands.Range[int, 0, 23] | None = None,
        to_hour: app_commands.Range[int, 0, 23] | None = None,
        never: discord.VoiceChannel | discord.StageChannel | None = None,
        stop_alone: app_commands.Range[int, 0, 86_400] | None = None,
        most_hours: app_commands.Range[int, 1, 168] | None = None,
        keep: app_commands.Range[int, 0, 36_500] | None = None,
    ) -> None:
        """Set."""
        given = {
            "consent": consent,
            "language": language if language != choices.SERVER else "",
            "recorder_role": setup.snowflake(role),
            "downloads": access,
            "panel_channel_id": setup.snowflake(panel),
            "status_line": status_line,
            "spoken_notice": spoken_notice,
            "nickname": nickname,
            "tone_minutes": tone,
            "stop_alone_s": stop_alone,
            "most_hours": most_hours,
            "keep_days": keep,
        }
        rule = {
            "minimum": minimum,
            "role_id": setup.snowflake(auto_role),
            "from_hour": from_hour,
            "to_hour": to_hour,
        }
        change = setup.Change(
            values={name: value for name, value in given.items() if value is not None},
            auto=setup.snowflake(auto),
            rule={name: value for name, value in rule.items() if value is not None},
            never=setup.snowflake(never),
        )
        await setup.settings(self._desk, await _promised(interaction), change)

    @app_commands.command(name=_("delete"), description=_("Delete a recording"))
    @app_commands.rename(recording=_("recording"))
    @app_commands.describe(recording=_("Which one"))
    async def delete(self, interaction: discord.Interaction, recording: app_commands.Range[str, 1, 100]) -> None:
        """Delete."""
        await erasing.ask_delete(self._desk, Answer(interaction), recording)

    @app_commands.command(name=_("optout"), description=_("Do not record me, from this moment on"))
    async def optout(self, interaction: discord.Interaction) -> None:
        """Refuse."""
        await deeds.choose(self._desk, await _promised(interaction), "out")

    @app_commands.command(name=_("optin"), description=_("I may be recorded here"))
    async def optin(self, interaction: discord.Interaction) -> None:
        """Allow."""
        await deeds.choose(self._desk, await _promised(interaction), "in")

    @app_commands.command(name=_("forget-me"), description=_("Erase me from past recordings of this server"))
    async def forget_me(self, interaction: discord.Interaction) -> None:
        """Forget."""
        answer = Answer(interaction)
        await answer.ask(typed_form("forget", new_id(), answer.words))

    @app_commands.command(name=_("privacy"), description=_("What is recorded, where it is kept, and your say in it"))
    async def privacy(self, interaction: discord.Interaction) -> None:
        """Privacy."""
        answer = await _promised(interaction)
        settings = await self._desk.guilds.settings(interaction.guild_id or 0)
        who = answer.words(f"settings.{settings.downloads}")
        consent = answer.words(f"consent.{settings.consent}")
        kept = self._desk.kept_words(settings, answer.words)
        await answer.say(answer.words("privacy.text", downloads=who, kept=kept) + "\n" + consent)

    @app_commands.command(name=_("help"), description=_("What there is"))
    async def help(self, interaction: discord.Interaction) -> None:
        """Help."""
        answer = Answer(interaction)
        await answer.say(answer.words("help.text"))

    @download.autocomplete("recording")
    @remix.autocomplete("recording")
    async def _recordings(self, interaction: discord.Interaction, typed: str) -> list[Option[str]]:
        return await choices.recordings(interaction, typed, self._desk.sessions)

    @delete.autocomplete("recording")
    async def _erasable(self, interaction: discord.Interaction, typed: str) -> list[Option[str]]:
        return await choices.recordings(interaction, typed, self._desk.erasable)

    @start.autocomplete("preset")
    @remix.autocomplete("preset")
    async def _presets(self, interaction: discord.Interaction, typed: str) -> list[Option[str]]:
        return await choices.presets(self._desk, interaction, typed)

    @remix.autocomplete("mute")
    async def _people(self, interaction: discord.Interaction, typed: str) -> list[Option[str]]:
        return await choices.people(self._desk, interaction, typed)

    @remix.autocomplete("gain")
    async def _gains(self, interaction: discord.Interaction, typed: str) -> list[Option[str]]:
        return await choices.people(self._desk, interaction, typed, each_with=choices.GAINS)

    async def on_error(self, interaction: discord.Interaction[Any], error: app_commands.AppCommandError) -> None:
        """Say what went wrong."""
        cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        answer = Answer(interaction)
        await answer.say(apology(cause, answer.words))


def moment_menu(desk: Desk) -> app_commands.ContextMenu:
    """The command in a message's menu."""

    async def moment(interaction: discord.Interaction, message: discord.Message) -> None:
        answer = await _promised(interaction)
        try:
            await hearing.moment(desk, answer, message)
        except Exception as error:  # noqa: BLE001  # the top of a command: `apology` logs what nobody foresaw
            await answer.say(apology(error, answer.words))

    return app_commands.ContextMenu(name=_("Recording at this moment"), callback=moment)


async def _promised(interaction: discord.Interaction) -> Answer:
    answer = Answer(interaction)
    await answer.promise()
    return answer
