"""Discord: whether it is there, lets the bot in, with these intents and permissions, and whether UDP gets through."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import discord
import httpx

from capture.bot import make_bot
from contracts.commands import Status
from contracts.errors import RetoldError
from contracts.jetstream.asking import ask_status
from contracts.jetstream.connection import connect
from contracts.jetstream.server import Server
from contracts.settings import Settings
from ops.doctor.finding import Finding, Patient, fine, note, skipped, wrong

API: Final = "https://discord.com/api/v10"
ASK_TIMEOUT_S: Final = 10.0
READY_TIMEOUT_S: Final = 30.0
JOIN_TIMEOUT_S: Final = 15.0
LATE_S: Final = 3.0  # Discord tells whole seconds
PORTAL: Final = "https://discord.com/developers/applications"
NEEDED: Final = {"view_channel": "View Channel", "connect": "Connect"}
WANTED: Final = {
    "speak": "Speak",
    "send_messages": "Send Messages",
    "attach_files": "Attach Files",
    "set_voice_channel_status": "Set Voice Channel Status",
}
VocalChannel = discord.VoiceChannel | discord.StageChannel


async def check_discord(patient: Patient) -> list[Finding]:
    """All of it, as far as each step lets the next one be tried."""
    findings = [await _check_reach(patient)]
    if findings[0].verdict == "wrong":
        return findings
    capture = await _capture(patient.settings)
    if not patient.settings.discord_token and capture.ready:
        return [*findings, skipped("token", "it is not set here; capture has its own, and Discord lets it in")]
    if not patient.settings.discord_token:
        missing = wrong("token", "RETOLD_DISCORD_TOKEN is not set", f"copy the bot's token from {PORTAL} and set it")
        return [*findings, missing]
    async with _logged_in(patient.settings) as (bot, trouble):
        findings += trouble
        if bot is not None:
            findings += [finding for guild in bot.guilds for finding in _check_guild(guild)]
            if not bot.guilds:
                findings.append(wrong("servers", "the bot is in none", f"invite it, from {PORTAL}: OAuth2, bot"))
            findings.append(await _check_voice(bot, patient, capture))
    return findings


async def _check_reach(patient: Patient) -> Finding:
    """The REST API answers; it tells the time as well."""
    settings = patient.settings
    url = f"{settings.discord_api_url or API}/gateway"
    try:
        trust = ssl.create_default_context(cafile=settings.discord_ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        remedy = "set RETOLD_DISCORD_CA_FILE to a readable PEM file, or unset it"
        return wrong("Discord", f"{settings.discord_ca_file} is no certificate: {error}", remedy)
    try:
        async with httpx.AsyncClient(verify=trust, timeout=ASK_TIMEOUT_S) as client:
            before_s = patient.now_s()
            answer = await client.get(url)
    except (httpx.HTTPError, OSError) as error:
        remedy = "open HTTPS to discord.com (DNS, firewall, proxy)"
        if settings.discord_api_url:
            remedy = "unset RETOLD_DISCORD_API_URL, or set it to an API that answers"
        return wrong("Discord", f"{url} does not answer: {error!r}", remedy)
    told = answer.headers.get("date")
    if told is None:
        return fine("Discord", "its API answers")
    ahead_s = (before_s + patient.now_s()) / 2 - parsedate_to_datetime(told).timestamp() - 0.5
    if abs(ahead_s) > LATE_S:
        return wrong("clock", f"this machine's is {ahead_s:+.0f} s from Discord's", "timedatectl set-ntp true")
    return fine("Discord", f"its API answers; clocks differ by less than {LATE_S:.0f} s")


@contextlib.asynccontextmanager
async def _logged_in(settings: Settings) -> AsyncIterator[tuple[discord.Client | None, list[Finding]]]:
    """The bot, ready, with what was found on the way; None if Discord does not let it in."""
    bot = make_bot(settings)
    running = asyncio.create_task(bot.start(settings.discord_token))
    ready = asyncio.create_task(_until_ready(bot))
    try:
        await asyncio.wait({running, ready}, timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            yield None, [_refusal(running.exception())]
        elif not ready.done():
            yield None, [wrong("token", "Discord did not get ready", "try again; see https://discordstatus.com")]
        else:
            name = f"{bot.user} ({bot.user.id})" if bot.user else "?"
            yield (
                bot,
                [
                    fine("token", f"Discord lets {name} in"),
                    fine("intents", "guilds and voice states; neither needs Discord's approval"),
                ],
            )
    finally:
        ready.cancel()
        with contextlib.suppress(discord.DiscordException, TimeoutError):
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await bot.close()
        running.cancel()
        await asyncio.gather(running, ready, return_exceptions=True)


async def _until_ready(bot: discord.Client) -> None:
    while not bot.is_ready():  # noqa: ASYNC110  # wait_until_ready raises before the client has logged in
        await asyncio.sleep(0.05)


def _refusal(error: BaseException | None) -> Finding:
    match error:
        case discord.LoginFailure():
            remedy = f"copy a new one from {PORTAL} (Bot, Reset Token), and set RETOLD_DISCORD_TOKEN"
            return wrong("token", "Discord does not know RETOLD_DISCORD_TOKEN", remedy)
        case discord.PrivilegedIntentsRequired():
            return wrong("intents", "Discord wants an intent approved", f"{PORTAL}: Bot, Privileged Gateway Intents")
        case aiohttp.ClientError() | OSError():
            remedy = "open WebSockets to gateway.discord.gg"
            return wrong("gateway", f"Discord's gateway cannot be reached: {error}", remedy)
        case _:
            return wrong("token", f"Discord's gateway closed the connection: {error}", "try again; see capture's log")


def _check_guild(guild: discord.Guild) -> Iterator[Finding]:
    """What the bot may do in each voice channel; the others are told together."""
    channels = [*guild.voice_channels, *guild.stage_channels]
    shut: dict[str, list[str]] = {}
    poor: dict[str, list[str]] = {}
    for channel in channels:
        allowed = channel.permissions_for(guild.me)
        needed, wanted = (_missing(allowed, names) for names in (NEEDED, WANTED))
        if needed:
            shut.setdefault(needed, []).append(channel.name)
        elif wanted:
            poor.setdefault(wanted, []).append(channel.name)
    where = f"permissions in {guild.name}"
    for missing, names in shut.items():
        remedy = f"allow the bot's role {missing} there: Server Settings, Roles; or the channel's own permissions"
        yield wrong(where, f"it cannot record {', '.join(names)}: {missing}", remedy)
    for missing, names in poor.items():
        yield note(where, f"{', '.join(names)}: without {missing}", f"allow the bot's role {missing}")
    if not shut and not poor:
        yield fine(where, f"all of {len(channels)} voice channels")


def _missing(allowed: discord.Permissions, names: dict[str, str]) -> str:
    return ", ".join(text for name, text in names.items() if not getattr(allowed, name))


async def _check_voice(bot: discord.Client, patient: Patient, capture: Status) -> Finding:
    """UDP, by joining a channel: Discord's voice servers answer nobody else."""
    if heard := sum(live.packets["recorded"] for live in capture.sessions):
        return fine("UDP", f"capture has heard {heard} packets in calls that it records now")
    if not patient.channel_id:
        remedy = "retold doctor --channel ID joins that voice channel for a moment, and proves it"
        return skipped("UDP", "nothing is being recorded that would show it", remedy)
    channel = bot.get_channel(patient.channel_id)
    if not isinstance(channel, VocalChannel):
        known = ", ".join(f"{one.name} ({one.id})" for guild in bot.guilds for one in guild.voice_channels[:5])
        return wrong("UDP", f"{patient.channel_id} is no voice channel of the bot's", f"--channel with one of: {known}")
    if str(channel.guild.id) in {live.guild_id for live in capture.sessions}:
        return skipped("UDP", f"{channel.guild.name} is being recorded: the bot can be in one channel of it at a time")
    return await _join(channel)


async def _join(channel: VocalChannel) -> Finding:
    try:
        joined: discord.VoiceProtocol = await channel.connect(
            timeout=JOIN_TIMEOUT_S, reconnect=False, self_deaf=True, self_mute=True
        )
    except (TimeoutError, discord.DiscordException, OSError) as error:
        said = f"the voice server of {channel.name} did not answer: {error!r}"
        return wrong("UDP", said, "let UDP out to any address, ports 50000 to 65535, and its answers in")
    await joined.disconnect(force=True)
    return fine("UDP", f"the voice server of {channel.name} answers")


async def _capture(settings: Settings) -> Status:
    """What a running capture says; that it is not ready if there is none."""
    try:
        bus = await connect(Server.of(settings, "operator"), name="doctor")
    except RetoldError:
        return Status(ready=False)
    try:
        return await ask_status(bus)
    except RetoldError:
        return Status(ready=False)
    finally:
        await bus.close()
