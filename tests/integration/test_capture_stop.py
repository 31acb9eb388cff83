"""A recording ends once, completely, however long the server was away meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from capture.consent import Consent
from capture.control import Control
from capture.home import Home
from capture.recording import Recording
from capture.spool import Spool, find_spools
from contracts.errors import UnavailableError
from contracts.events import NoteAdded, SessionEnded, SessionStarted, decode_fact
from contracts.guilds import GuildSettings
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import get_entry
from contracts.jetstream.leases import LeaseHeldError, take_lease
from contracts.jetstream.replay import replay
from contracts.streams import LEASES_BUCKET
from tests.restartable import restartable

DEADLINE_S = 30.0


class Channel(SimpleNamespace):
    """A voice channel that lets the recorder in, and where nobody speaks."""

    async def connect(self, **_options: object) -> None:
        """No voice connection is made."""


def a_recording(bus: Bus, directory: Path, *, owner: str = "test") -> Recording:
    guild = SimpleNamespace(id=1, name="G", me=SimpleNamespace(id=9), get_member=lambda _user: None)
    session = new_id()
    channel = Channel(id=2, name="C", guild=guild)
    return Recording(
        consent=Consent(GuildSettings(guild_id="1")),
        bus=bus,
        session=session,
        channel=channel,
        spool=Spool(directory, session),
        owner=owner,
    )


async def facts_of(bus: Bus, session: str) -> Counter[type]:
    return Counter([type(decode_fact(message.data)) async for message in replay(bus, session)])


async def test_a_stop_that_failed_can_be_asked_again(tmp_path: Path):
    """The server is away: the asker is told. It is back: the same request ends the recording, with one end."""
    async with restartable(tmp_path / "nats") as (server, bus):
        recording = a_recording(bus, tmp_path)
        await recording.start()
        recording.note("here", ago_s=0, author="")
        await server.kill()
        for _ in range(2):
            with pytest.raises(UnavailableError, match="no NATS"):
                await recording.stop("stopped", patience_s=0.3)
        assert not recording.ended.is_set()
        await server.start()
        stopped = await recording_stops(recording)
        assert await recording.stop("again") == stopped
        assert await facts_of(bus, recording.session) == Counter([SessionStarted, NoteAdded, SessionEnded])
        entry = await get_entry(bus, recording.session)
        assert entry is not None
        assert entry.cause == "stopped"
        await recording.close()


async def recording_stops(recording: Recording) -> object:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await recording.stop("stopped", patience_s=0.3)
            except UnavailableError:
                await asyncio.sleep(0.05)


async def test_a_call_that_ends_by_itself_waits_for_the_server(tmp_path: Path):
    """Discord and the server went away together: nobody will ask again, and the end is stored all the same."""
    async with restartable(tmp_path / "nats") as (server, bus):
        recording = a_recording(bus, tmp_path)
        await recording.start()
        await server.kill()
        recording.call.on_closed("disconnected")
        recording.call.on_closed("disconnected")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(recording.ended.wait(), 1.0)
        await server.start()
        await asyncio.wait_for(recording.ended.wait(), DEADLINE_S)
        assert await facts_of(bus, recording.session) == Counter([SessionStarted, SessionEnded])
        entry = await get_entry(bus, recording.session)
        assert entry is not None
        assert entry.cause == "disconnected"
        await recording.close()


async def test_who_loses_the_lease_writes_no_more(tmp_path: Path):
    """Another capture has the session: this one leaves without a word, keeps its spool, and frees what it held."""
    async with restartable(tmp_path / "nats") as (_server, bus):
        recording = a_recording(bus, tmp_path)
        await recording.start()
        await bus.publish(f"$KV.{LEASES_BUCKET}.{recording.session}", b'{"owner":"another"}')
        await asyncio.wait_for(recording.ended.wait(), DEADLINE_S)
        assert await facts_of(bus, recording.session) == Counter([SessionStarted])
        assert recording.retired
        assert find_spools(tmp_path) == [recording.session]
        with pytest.raises(LeaseHeldError, match="another"):
            await take_lease(bus, recording.session, "test")
        await recording.close()


async def test_a_recording_that_just_began_is_not_one_to_resume(tmp_path: Path):
    """The request came before the bot had looked through what an earlier capture left: the recording is let alone."""
    home = Home(tmp_path)
    async with restartable(tmp_path / "nats") as (_server, bus):
        control = Control(bus, SimpleNamespace(get_guild=lambda _guild: None), home)  # type: ignore[arg-type]  # no guild is known yet
        await control.serve()
        recording = a_recording(bus, tmp_path / "spool", owner=home.owner)
        await recording.start()
        await control.resume()
        recording.note("here", ago_s=0, author="")
        await recording.stop("stopped")
        assert await facts_of(bus, recording.session) == Counter([SessionStarted, NoteAdded, SessionEnded])
        entry = await get_entry(bus, recording.session)
        assert entry is not None
        assert entry.cause == "stopped"
        await recording.close()
    home.close()


async def test_facts_carry_identity_and_both_clocks(tmp_path: Path):
    """Each its own id, which is the message's; the wall clock is the session clock behind the start."""
    async with restartable(tmp_path / "nats") as (_server, bus):
        recording = a_recording(bus, tmp_path)
        await recording.start()
        recording.note("early", ago_s=60, author="")
        recording.note("now", ago_s=0, author="")
        await recording.stop("stopped")
        messages = [message async for message in replay(bus, recording.session)]
        facts = [decode_fact(message.data) for message in messages]
        started, early, _now, _ended = facts
        assert [message.message_id for message in messages] == [fact.id for fact in facts]
        assert len({fact.id for fact in facts}) == len(facts)
        assert {fact.unix_ns - fact.at_ns for fact in facts} == {started.unix_ns}
        assert early.at_ns == 0
        await recording.close()
