"""People at the loopback Discord's clients, and the rules it holds bots to, through the unmodified discord.py."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import discord
import pytest
from discord import app_commands, ui

from ops.loopback.client import buttons_of, text_of
from ops.loopback.errors import ClientError
from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.permissions import EVERYONE, Permission
from ops.loopback.plan import CallPlan, Person
from ops.loopback.server import LoopbackDiscord
from tests.listener import logged_in, until

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
TEXT = CHANNEL + 2 * CHANNEL_OFFSET
ADA, BELA = Person(user_id=501, name="Ada"), Person(user_id=502, name="Bela")
PLAN = CallPlan(people=(ADA, BELA), utterances=(), seconds=1.0)
Reply = Callable[[discord.Interaction], Awaitable[None]]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoopbackDiscord]:
    async with LoopbackDiscord(plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path) as discord_server:
        yield discord_server


class Bot:
    """A bot with one command, `/do`, that does what a test wants."""

    def __init__(self, server: LoopbackDiscord) -> None:
        self.server = server
        self.errors: list[Exception] = []
        self.done = asyncio.Event()

    async def use(self, reply: Reply, **options: Any) -> Any:
        """Ada types it; `reply` answers. Returns when that has ended."""
        async with logged_in(self.server.environ) as client:
            tree = app_commands.CommandTree(client)

            @tree.command(name="do", description="Does it")
            async def do(interaction: discord.Interaction) -> None:
                try:
                    await reply(interaction)
                except discord.HTTPException as error:
                    self.errors.append(error)
                self.done.set()

            await tree.sync()
            used = await self.server.person(ADA.user_id).types("/do", **options)
            async with asyncio.timeout(10):
                await self.done.wait()
            return used


async def test_a_late_acknowledgement_is_an_unknown_interaction(server: LoopbackDiscord):
    """After 3 s Discord knows nothing of the interaction (10062)."""
    bot = Bot(server)

    async def late(interaction: discord.Interaction) -> None:
        server.rest.interactions.skew_s += 3.5
        await interaction.response.send_message("late")

    used = await bot.use(late)
    assert [error.code for error in bot.errors] == [10062]
    assert used.answers == []


async def test_a_token_works_for_a_quarter_of_an_hour(server: LoopbackDiscord):
    """Later, an answer cannot be edited (50027)."""
    bot = Bot(server)

    async def slow(interaction: discord.Interaction) -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        await interaction.edit_original_response(content="in time")
        server.rest.interactions.skew_s += 15 * 60
        await interaction.edit_original_response(content="too late")

    used = await bot.use(slow)
    assert [error.code for error in bot.errors] == [50027]
    assert used.text == "in time"
    assert used.ephemeral


async def test_an_interaction_is_answered_once(server: LoopbackDiscord):
    """A second first answer is refused (40060)."""
    bot = Bot(server)

    async def twice(interaction: discord.Interaction) -> None:
        await interaction.response.defer()
        interaction.response._response_type = None
        await interaction.response.defer()

    await bot.use(twice)
    assert [error.code for error in bot.errors] == [40060]


class Crowded(ui.LayoutView):
    """More components than a message may hold: the library's own limit is set aside."""

    def __init__(self) -> None:
        super().__init__(timeout=None)
        for number in range(40):
            self.add_item(ui.TextDisplay(f"line {number}"))
        self._total_children = 0
        self.add_item(ui.TextDisplay("one too many"))


@pytest.mark.parametrize(
    ("send", "why"),
    [
        ({"view": Crowded()}, "COMPONENT_MAX_TOTAL"),
        ({"content": "x" * 2001}, "2000"),
        ({"content": "x", "view": ui.View().add_item(ui.Button(label="y", url="https://x.y/" + "z" * 501))}, "512"),
    ],
)
async def test_what_discord_refuses_is_refused(server: LoopbackDiscord, send: dict[str, Any], why: str):
    """40 components, 2000 characters, links of 512: one more is 400 with code 50035."""
    async with logged_in(server.environ) as client:
        channel = client.get_channel(TEXT)
        with pytest.raises(discord.HTTPException, match=why) as refused:
            await channel.send(**send)
        assert (refused.value.status, refused.value.code) == (400, 50035)


async def test_buttons_modals_and_selects_reach_the_bot(server: LoopbackDiscord):
    """A press opens a modal; what is filled in comes back; the message is updated in place."""
    heard: list[str] = []

    class Note(ui.Modal, title="Note"):
        text: ui.Label[Any] = ui.Label(text="What", component=ui.TextInput(custom_id="text", max_length=10))

        async def on_submit(self, interaction: discord.Interaction) -> None:
            heard.append(self.text.component.value)
            await interaction.response.edit_message(view=None, content="noted")

    class Press(ui.View):
        @ui.button(label="Note", custom_id="note")
        async def note(self, interaction: discord.Interaction, _: Any) -> None:
            await interaction.response.send_modal(Note())

    async with logged_in(server.environ) as client:
        sent = await client.get_channel(TEXT).send("panel", view=Press(timeout=None))
        ada = server.person(ADA.user_id)
        (panel,) = ada.sees()
        assert [button["label"] for button in buttons_of(panel)] == ["Note"]
        pressed = await ada.presses(panel, "Note")
        with pytest.raises(ClientError, match="10 characters"):
            await ada.fills(pressed, text="far too long for it")
        await ada.fills(pressed, text="hear this")
        await until(lambda: text_of(ada.sees()[0]) == "noted")
        assert heard == ["hear this"]
        assert ada.sees()[0]["id"] == str(sent.id)
        with pytest.raises(ClientError, match="no button"):
            await ada.presses(panel, "Note")


async def test_options_are_completed_in_the_persons_language(server: LoopbackDiscord):
    """Names and choices are found by what a German client shows; more than 25 choices are refused."""
    async with logged_in(server.environ) as client:
        tree = app_commands.CommandTree(client)
        group = app_commands.Group(name="record", description="Records", guild_only=True)

        @group.command(name="find", description="Finds one")
        async def find(interaction: discord.Interaction, session: str) -> None:
            await interaction.response.send_message(f"{session} {interaction.locale}", ephemeral=True)

        @find.autocomplete("session")
        async def complete(_: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
            return [app_commands.Choice(name=f"{typed} {number}", value=str(number)) for number in range(3)]

        class Words(app_commands.Translator):
            async def translate(self, string: Any, locale: discord.Locale, _: Any) -> str | None:
                german = {"find": "finden", "record": "aufnahme"}
                return german.get(str(string)) if locale is discord.Locale.german else None

        await tree.set_translator(Words())
        tree.add_command(group)
        await tree.sync()
        ada = server.person(ADA.user_id, locale="de")
        offered = await ada.completes("/aufnahme finden", "session", "ev")
        assert [choice["name"] for choice in offered] == ["ev 0", "ev 1", "ev 2"]
        used = await ada.types("/aufnahme finden", session="2")
        assert await used.reads() == "2 de"
        with pytest.raises(ClientError, match="asks for session"):
            await ada.types("/record find")


async def test_permissions_are_checked_and_told(server: LoopbackDiscord):
    """What the bot's role does not allow is 403, and discord.py knows it beforehand."""
    async with logged_in(server.environ) as client:
        channel = client.get_channel(TEXT)
        await channel.send("allowed")
        server.room.roles.bot = 0
        server.room.roles.denied[TEXT] = Permission.SEND_MESSAGES
        server.set_roles()
        await until(lambda: not channel.permissions_for(channel.guild.me).send_messages)
        with pytest.raises(discord.Forbidden) as refused:
            await channel.send("forbidden")
        assert refused.value.code == 50013
        voice = client.get_channel(CHANNEL)
        with pytest.raises(discord.Forbidden):
            await voice.edit(status="recording")
        server.room.roles.bot = EVERYONE | Permission.SET_VOICE_CHANNEL_STATUS
        await voice.edit(status="recording")
        assert server.rest.voice_statuses == {str(CHANNEL): "recording"}


async def test_managers_are_known_by_their_permissions(server: LoopbackDiscord):
    """An interaction says what the person may do; a command for managers is not offered to others."""
    seen: list[bool] = []
    server.room.roles.managers.add(BELA.user_id)
    async with logged_in(server.environ) as client:
        tree = app_commands.CommandTree(client)

        @tree.command(name="manage", description="For managers")
        @app_commands.default_permissions(manage_guild=True)
        async def manage(interaction: discord.Interaction) -> None:
            seen.append(interaction.permissions.manage_guild)
            await interaction.response.send_message("ok")

        await tree.sync()
        await (await server.person(BELA.user_id).types("/manage")).reads("ok")
        with pytest.raises(ClientError, match="not offered"):
            await server.person(ADA.user_id).types("/manage")
        assert seen == [True]


async def test_rate_limits_are_told_and_held(server: LoopbackDiscord):
    """discord.py listens to the headers, so six quick messages take more than a bucket's time, and none is refused."""
    async with logged_in(server.environ) as client:
        channel = client.get_channel(TEXT)
        started = asyncio.get_running_loop().time()
        for number in range(6):
            await channel.send(str(number))
        assert asyncio.get_running_loop().time() - started > 4.0
        assert len(server.person(ADA.user_id).sees()) == 6
        assert server.rest.rate_limits.refused == 0


async def test_files_are_kept_and_too_large_ones_refused(server: LoopbackDiscord):
    """An attachment arrives whole; one over the guild's limit is 413, and nothing is stored."""
    async with logged_in(server.environ) as client:
        channel = client.get_channel(TEXT)
        sent = await channel.send("clip", file=discord.File(io.BytesIO(b"opus"), "clip.ogg"))
        assert server.rest.messages.files[str(sent.id)] == {"clip.ogg": b"opus"}
        server.rest.messages.attachment_bytes = 3
        with pytest.raises(discord.HTTPException) as refused:
            await channel.send("clip", file=discord.File(io.BytesIO(b"opus"), "clip.ogg"))
        assert (refused.value.status, refused.value.code) == (413, 40005)
        assert len(server.person(ADA.user_id).sees()) == 1
