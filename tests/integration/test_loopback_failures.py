"""What can go wrong in a call, on demand: closes, moves, loss, missing announcements, keys that do not come."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import discord
import pytest

from ops.loopback import rtp
from ops.loopback.guild import CHANNEL_OFFSET
from ops.loopback.network import NetworkConditions
from ops.loopback.plan import CallPlan, Person, Utterance
from ops.loopback.server import LoopbackDiscord
from ops.loopback.transport import AES_GCM, XCHACHA, TransportCipher
from tests.listener import Tap, in_call, logged_in, until

GUILD, CHANNEL = 100_000_000_000_000_001, 110_000_000_000_000_001
ADA, BELA = Person(user_id=501, name="Ada", voice=0), Person(user_id=502, name="Bela", voice=1)


def discord_for(
    tmp_path: Path, *, dave: bool = True, network: NetworkConditions | None = None, said: tuple[Utterance, ...] = ()
) -> LoopbackDiscord:
    seconds = max((utterance.stop_s for utterance in said), default=0.0) + 0.3
    plan = CallPlan(people=(ADA, BELA), utterances=said, seconds=seconds)
    return LoopbackDiscord(
        plan=plan, guild_id=GUILD, channel_id=CHANNEL, dave=dave, network=network, directory=tmp_path
    )


def speech(seconds: float) -> tuple[Utterance, ...]:
    return tuple(
        Utterance(user_id=person.user_id, start_s=start, stop_s=start + seconds)
        for person, start in ((ADA, 0.1), (BELA, 0.3))
    )


def received(server: LoopbackDiscord, tap: Tap) -> bool:
    return len(tap.seen) >= sum(frame.fate == "sent" for frame in server.journal.frames)


def opus_of(tap: Tap, user_id: int) -> Counter[tuple[int, bytes]]:
    return Counter((header.sequence, opus) for header, opus in tap.opened[user_id])


def owed_to(server: LoopbackDiscord, user_id: int) -> Counter[tuple[int, bytes]]:
    return Counter((frame.sequence, frame.opus) for frame in server.journal.owed(str(user_id)))


async def test_the_bot_may_leave_and_come_back(tmp_path: Path):
    """After leaving the group goes on without the bot; coming back it gets another SSRC and is in the group again."""
    async with discord_for(tmp_path) as server, logged_in(server.environ) as client:
        async with in_call(client, CHANNEL) as tap:
            await server.wait_for_bot(timeout_s=10)
            first_ssrc = tap.ssrc
            assert client.get_guild(GUILD).me.voice.channel.id == CHANNEL
        await until(lambda: not server.voice.sessions)
        await until(lambda: server.room.group.members == {501, 502})
        async with in_call(client, CHANNEL) as tap:
            await server.wait_for_bot(timeout_s=10)
            assert tap.ssrc != first_ssrc


@pytest.mark.parametrize("dave", [True, False])
async def test_a_bad_network_does_what_the_journal_says(dave: bool, tmp_path: Path):  # noqa: FBT001 - parametrised
    """Lost datagrams stay away, doubled ones come twice, late ones arrive; the rest is byte for byte."""
    late = {} if dave else {"jitter_ms": 20.0, "reorder": 0.1}  # davey gives up what is overtaken at an epoch's start
    network = NetworkConditions(loss=0.1, duplicate=0.1, padding=0.3, padding_only=0.2, seed=3, **late)
    server = discord_for(tmp_path, dave=dave, network=network, said=speech(1.5))
    async with server, logged_in(server.environ) as client, in_call(client, CHANNEL) as tap:
        await server.wait_for_bot(timeout_s=10)
        await server.talk()
        sent = [frame for frame in server.journal.frames if frame.fate == "sent"]
        voice = lambda: [packet for packet in tap.datagrams if packet[1] == rtp.AUDIO_PAYLOAD_TYPE]  # noqa: E731
        await until(lambda: len(voice()) == sum(frame.copies for frame in sent))
        tap.drain_all()
    assert tap.problems == []
    assert {frame.fate for frame in server.journal.frames} == {"sent", "dropped"}
    assert {frame.kind for frame in server.journal.frames} == {"voice", "silence", "padding"}
    for person in (ADA, BELA):
        assert opus_of(tap, person.user_id) == owed_to(server, person.user_id)


async def test_nothing_arrives_while_udp_is_down(tmp_path: Path):
    """Dropped datagrams are in the journal as dropped and are not owed."""
    async with (
        discord_for(tmp_path, said=speech(0.5)) as server,
        logged_in(server.environ) as client,
        in_call(client, CHANNEL) as tap,
    ):
        await server.wait_for_bot(timeout_s=10)
        server.drop_udp(True)
        await server.talk()
        assert not tap.seen
    assert {frame.fate for frame in server.journal.frames} == {"dropped"}
    assert not list(server.journal.owed())


async def test_without_op_5_the_speaker_is_unknown(tmp_path: Path):
    """Packets arrive, but nothing says whose they are."""
    async with (
        discord_for(tmp_path, said=speech(0.5)) as server,
        logged_in(server.environ) as client,
        in_call(client, CHANNEL) as tap,
    ):
        server.suppress_op5(True)
        await server.wait_for_bot(timeout_s=10)
        await server.talk()
        await until(lambda: received(server, tap))
        assert set(tap._ssrc_to_id) == {tap.ssrc}
        assert not tap.opened


async def test_an_invalid_commit_is_recovered_from(tmp_path: Path):
    """After the bot's op 31 it is removed and added again, and hears everything."""
    async with (
        discord_for(tmp_path, said=speech(0.5)) as server,
        logged_in(server.environ) as client,
        in_call(client, CHANNEL) as tap,
    ):
        await server.wait_for_bot(timeout_s=10)
        before = server.room.group.epoch
        await tap._connection._recover_from_invalid_commit(0)
        await until(lambda: server.room.group.epoch > before)
        await server.wait_for_bot(timeout_s=10)
        await server.talk()
        await until(lambda: received(server, tap))
        tap.drain_all()
    for person in (ADA, BELA):
        assert opus_of(tap, person.user_id) == owed_to(server, person.user_id) != Counter()


async def test_a_closed_voice_websocket_is_replaced(tmp_path: Path):
    """After 4006 discord.py joins anew: another session and SSRC, the same room."""
    async with discord_for(tmp_path) as server, logged_in(server.environ) as client, in_call(client, CHANNEL):
        await server.wait_for_bot(timeout_s=10)
        first = server.voice.sessions[GUILD]
        server.close_voice(4006)
        await until(lambda: server.voice.sessions.get(GUILD) not in {None, first})
        await server.wait_for_bot(timeout_s=10)
        assert server.voice.sessions[GUILD].ssrc != first.ssrc


async def test_the_call_can_be_moved(tmp_path: Path):
    """The bot follows to the other channel, where everybody has a new group and new SSRCs."""
    async with (
        discord_for(tmp_path) as server,
        logged_in(server.environ) as client,
        in_call(client, CHANNEL) as voice,
    ):
        await server.wait_for_bot(timeout_s=10)
        before = {speaker.ssrc for speaker in server.room.speakers.values()}
        server.move_bot(CHANNEL + CHANNEL_OFFSET)
        await server.wait_for_bot(timeout_s=10)
        await until(lambda: voice.channel.id == CHANNEL + CHANNEL_OFFSET)
        assert {member.id for member in voice.channel.members} >= {501, 502}
        assert before.isdisjoint(speaker.ssrc for speaker in server.room.speakers.values())


async def test_somebody_may_disconnect_the_bot(tmp_path: Path):
    """discord.py sees that it was put out of the channel."""
    async with (
        discord_for(tmp_path) as server,
        logged_in(server.environ) as client,
        in_call(client, CHANNEL) as tap,
    ):
        await server.wait_for_bot(timeout_s=10)
        server.disconnect_bot()
        await until(lambda: not tap.is_connected())
        assert client.get_guild(GUILD).me.voice is None


async def test_reports_pings_and_cameras(tmp_path: Path):
    """A sender report opens as RTCP, a ping is answered, a camera is an event."""
    async with discord_for(tmp_path) as server, logged_in(server.environ) as client:
        seen: list[Any] = []

        @client.event
        async def on_voice_member_video(member: discord.Member, _: Any) -> None:
            seen.append(member.id)

        async with in_call(client, CHANNEL) as tap:
            await server.wait_for_bot(timeout_s=10)
            server.send_sender_reports()
            tap._connection.send_packet(rtp.PING + b"\0\0\0\7")
            server.send_video(ADA.user_id)
            await until(lambda: tap.reports and seen)
            await until(lambda: rtp.PONG + b"\0\0\0\7" in tap.datagrams)
            cipher = TransportCipher(mode=XCHACHA, key=bytes(tap._connection.secret_key))
            assert len(cipher.open(tap.reports[0], clear_bytes=8)) == 20
            assert seen == [ADA.user_id]


class RawVoice:
    """A client of the voice gateway without discord.py, for what discord.py cannot do."""

    def __init__(self, server: LoopbackDiscord, http: aiohttp.ClientSession) -> None:
        self.server, self.http = server, http
        self.said: list[dict[str, Any]] = []

    async def credentials(self) -> dict[str, Any]:
        """Log in at the main gateway and join the channel."""
        socket = await self.http.ws_connect(self.server.environ["RETOLD_DISCORD_GATEWAY_URL"])
        await socket.send_json({"op": 2, "d": {"token": self.server.token, "intents": 0, "properties": {}}})
        await socket.send_json({"op": 4, "d": {"guild_id": str(GUILD), "channel_id": str(CHANNEL)}})
        found: dict[str, Any] = {}
        while "endpoint" not in found:
            said = await socket.receive_json()
            if said["t"] in {"VOICE_STATE_UPDATE", "VOICE_SERVER_UPDATE"}:
                found |= said["d"]
        return found

    async def connect(self, endpoint: str) -> aiohttp.ClientWebSocketResponse:
        """Open the voice websocket."""
        return await self.http.ws_connect(f"wss://{endpoint}/?v=8", ssl=False)

    async def hear(self, socket: aiohttp.ClientWebSocketResponse, opcode: int) -> dict[str, Any]:
        """The next JSON message of this opcode; all are kept in `said`."""
        async with asyncio.timeout(5):
            while True:
                message = await socket.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    self.said.append(message.json())
                    if self.said[-1]["op"] == opcode:
                        return self.said[-1]["d"] or {}
                assert message.type in {aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY}, message


def identify(known: dict[str, Any], **changes: Any) -> dict[str, Any]:
    data = {
        "server_id": str(GUILD),
        "user_id": known["user_id"],
        "session_id": known["session_id"],
        "token": known["token"],
        "max_dave_protocol_version": 1,
    }
    return {"op": 0, "d": data | changes}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": "wrong"}, 4004),
        ({"server_id": "1"}, 4006),
        ({"max_dave_protocol_version": 0}, 4017),
    ],
)
async def test_the_voice_gateway_checks_who_comes(changes: dict[str, Any], code: int, tmp_path: Path):
    """A wrong token, an unknown guild and a client without DAVE are closed with Discord's codes."""
    async with discord_for(tmp_path) as server, aiohttp.ClientSession() as http:
        raw = RawVoice(server, http)
        known = await raw.credentials()
        socket = await raw.connect(known["endpoint"])
        await socket.send_json(identify(known, **changes))
        while not socket.closed:
            await socket.receive()
        assert socket.close_code == code


async def test_aes_gcm_is_offered_when_asked_and_sessions_resume(tmp_path: Path):
    """A client that prefers AES-GCM gets it; after 4015 it resumes and is told what it missed."""
    async with discord_for(tmp_path, dave=False) as server, aiohttp.ClientSession() as http:
        server.voice.offer_aes_gcm()
        raw = RawVoice(server, http)
        known = await raw.credentials()
        socket = await raw.connect(known["endpoint"])
        await socket.send_json(identify(known))
        ready = await raw.hear(socket, 2)
        assert ready["modes"] == [AES_GCM, XCHACHA]
        await socket.send_json(
            {"op": 1, "d": {"protocol": "udp", "data": {"address": "127.0.0.1", "port": 1, "mode": AES_GCM}}}
        )
        assert (await raw.hear(socket, 4))["mode"] == AES_GCM
        seen = raw.said[-1]["seq"]
        server.close_voice(4015)
        while not socket.closed:
            await socket.receive()
        server.room.announce(ADA.user_id, speaking=1)
        socket = await raw.connect(known["endpoint"])
        resume = {"server_id": str(GUILD), "session_id": known["session_id"], "token": known["token"]}
        await socket.send_json({"op": 7, "d": resume | {"seq_ack": seen}})
        await raw.hear(socket, 9)
        missed = await raw.hear(socket, 5)
        assert missed["user_id"] == str(ADA.user_id)
        numbers = [message["seq"] for message in raw.said if "seq" in message]
        assert numbers == list(range(len(numbers)))
