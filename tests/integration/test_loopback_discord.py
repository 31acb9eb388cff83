"""REST and main gateway of the loopback Discord, used by the unmodified discord.py."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import discord
import pytest
from discord import app_commands

from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.plan import CallPlan, Person
from ops.loopback.room import RoomSpec
from ops.loopback.server import LoopbackDiscord
from tests.listener import logged_in, until

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
ADA, BELA = Person(user_id=501, name="Ada"), Person(user_id=502, name="Bela")
PLAN = CallPlan(people=(ADA, BELA), utterances=(), seconds=1.0)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[LoopbackDiscord]:
    second = RoomSpec(plan=PLAN, guild_id=GUILD + 1, channel_id=CHANNEL + 1, dave=False)
    async with LoopbackDiscord(
        plan=PLAN, guild_id=GUILD, channel_id=CHANNEL, directory=tmp_path, more_rooms=[second]
    ) as discord_server:
        yield discord_server


async def test_the_wrong_token_is_refused(server: LoopbackDiscord):
    """discord.py reports a login failure, as it does for Discord's 401."""
    with pytest.raises(discord.LoginFailure):
        async with logged_in({**server.environ, "RETOLD_DISCORD_TOKEN": "wrong"}):
            pass


async def test_the_gateway_checks_the_token_too(server: LoopbackDiscord):
    """An identify with the wrong token closes with 4004."""
    async with aiohttp.ClientSession() as http, http.ws_connect(server.environ["RETOLD_DISCORD_GATEWAY_URL"]) as socket:
        assert (await socket.receive_json())["op"] == 10
        await socket.send_json({"op": 2, "d": {"token": "wrong", "intents": 0, "properties": {}}})
        await socket.receive()
        assert socket.close_code == 4004


async def test_guilds_channels_members_and_voice_states_are_seen(server: LoopbackDiscord):
    """After login the client knows every guild, who is in it, and who sits in the voice channel."""
    async with logged_in(server.environ) as client:
        await until(lambda: len(client.guilds) == 2)
        channel = client.get_channel(CHANNEL)
        assert isinstance(channel, discord.VoiceChannel)
        assert {member.name for member in channel.members} == {"ada", "bela"}
        assert channel.guild.me.bot
        assert client.application_id == client.user.id
        found = await channel.guild.query_members(user_ids=[501, 999])
        assert [member.id for member in found] == [501]


async def test_people_are_seen_to_leave_and_come_back(server: LoopbackDiscord):
    """Leaving and joining reach the client as voice state updates."""
    async with logged_in(server.environ) as client:
        channel = client.get_channel(CHANNEL)
        server.room.leave(ADA.user_id)
        await until(lambda: [member.name for member in channel.members] == ["bela"])
        server.room.join(ADA)
        await until(lambda: len(channel.members) == 2)


async def test_what_was_missed_is_replayed_after_a_resume(server: LoopbackDiscord):
    """Events while the websocket is down arrive when the client resumes its session."""
    async with logged_in(server.environ) as client:
        channel = client.get_channel(CHANNEL)
        session = server.main.session
        resumed = asyncio.Event()

        @client.event
        async def on_resumed() -> None:
            resumed.set()

        await server.close_main_gateway(4000)
        server.room.leave(ADA.user_id)
        async with asyncio.timeout(10):
            await resumed.wait()
        assert server.main.session is session
        assert [member.name for member in channel.members] == ["bela"]


async def test_commands_are_kept_and_can_be_used(server: LoopbackDiscord):
    """A synced command gets an id; using it reaches the bot, whose answer is stored."""
    async with logged_in(server.environ) as client:
        tree = app_commands.CommandTree(client)
        where = discord.Object(GUILD)

        @tree.command(name="greet", description="Says hello", guild=where)
        async def greet(interaction: discord.Interaction, name: str) -> None:
            await interaction.response.send_message(f"Hello {name} from {interaction.user.name}", ephemeral=True)
            await interaction.edit_original_response(content="Hello again")

        synced = await tree.sync(guild=where)
        assert [command.id for command in await tree.sync(guild=where)] == [command.id for command in synced]
        used = await server.person(ADA.user_id).types("/greet", name="world")
        assert await used.reads("Hello again") == "Hello again"
        assert used.ephemeral
        assert used.made.callback["data"]["content"] == "Hello world from ada"


async def test_messages_are_kept(server: LoopbackDiscord):
    """Sent, edited, fetched and deleted messages behave as on Discord."""
    async with logged_in(server.environ) as client:
        channel = client.get_channel(CHANNEL + 2 * CHANNEL_OFFSET)
        assert isinstance(channel, discord.TextChannel)
        message = await channel.send("first", embed=discord.Embed(title="a panel"))
        await message.edit(content="second")
        fetched = await channel.fetch_message(message.id)
        assert (fetched.content, fetched.embeds[0].title, fetched.channel) == ("second", "a panel", channel)
        await message.delete()
        with pytest.raises(discord.NotFound):
            await channel.fetch_message(message.id)


async def test_unknown_routes_answer_as_discord_does(server: LoopbackDiscord):
    """404 with code 0 for what is not there, and its own code for an unknown channel."""
    async with logged_in(server.environ) as client:
        with pytest.raises(discord.NotFound) as unknown:
            await client.fetch_sticker(1)
        assert unknown.value.code == 0
        with pytest.raises(discord.NotFound) as channel:
            await client.fetch_channel(1)
        assert channel.value.code == 10003
        assert (await client.fetch_channel(CHANNEL)).id == CHANNEL
