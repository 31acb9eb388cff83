"""Sessions on the server: listed, moved out and in without a change, and erased without a trace."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path

import pytest

from contracts.bundle import BundleError, BundleHeader, BundleMessage, BundleReader, BundleWriter
from contracts.directory import SessionEntry
from contracts.errors import UnavailableError
from contracts.events import NoteAdded, SessionEnded, SessionStarted, SpeakerJoined, encode_fact
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, SessionNotFoundError, connect
from contracts.jetstream.directory import (
    get_entry,
    list_entries,
    list_stream_sessions,
    put_entry,
    rebuild_entry,
    remove_entry,
)
from contracts.jetstream.erase import delete_session
from contracts.jetstream.lag import stream_lags
from contracts.jetstream.objects import find_artifact, put_artifact
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.replay import last_sequence, replay
from contracts.jetstream.streams import create_session, ensure_shared, session_exists
from contracts.jetstream.transfer import SessionExistsError, export_session, import_session
from contracts.packets import Packet, PacketBatch, encode_batch
from contracts.streams import object_stream_name, session_stream_name
from contracts.subjects import facts, packets
from ops.embedded import EmbeddedServer
from tests.integration.test_jetstream_objects import described

SPEECH = random.Random(5).randbytes(120)


def started(session: str, **fields: object) -> SessionStarted:
    values = {
        "id": "start",
        "session": session,
        "at_ns": 0,
        "unix_ns": 1_790_000_000 * 10**9,
        "guild_id": "1",
        "guild_name": "The Guild",
        "channel_id": "2",
        "channel_name": "General",
        **fields,
    }
    return SessionStarted(**values)


async def record(bus: Bus, session: str, batches: int = 50, payload: bytes = SPEECH) -> None:
    """A small session, as capture writes it: facts and batches by turns."""
    await create_session(bus, session)
    publisher = Publisher(bus)
    await publisher.start()
    publisher.publish(facts(session), "start", encode_fact(started(session)))
    for number in range(batches):
        spoken = tuple(Packet(25 * number + k, 960 * (25 * number + k), 20_000 * k, payload) for k in range(25))
        batch = PacketBatch(1, 7, number, 500_000_000 * number, spoken)
        publisher.publish(packets(session, 1, 7), batch.message_id, encode_batch(batch))
        note = NoteAdded(id=f"n{number}", session=session, at_ns=number, unix_ns=number, text="é")
        publisher.publish(facts(session), note.id, encode_fact(note))
    await publisher.drain(timeout_s=30)
    await publisher.close()


async def log_of(bus: Bus, session: str) -> list[tuple[int, str, str, bytes]]:
    return [(m.sequence, m.subject, m.message_id, m.data) async for m in replay(bus, session)]


def bundle_of(session: str, messages: list[BundleMessage]) -> BytesIO:
    file = BytesIO()
    writer = BundleWriter(file, BundleHeader(session, 1, "test"))
    for message in messages:
        writer.write(message)
    writer.close()
    file.seek(0)
    return file


async def exported(bus: Bus, session: str) -> bytes:
    file = BytesIO()
    await export_session(bus, session, file)
    return file.getvalue()


def entry_of(session: str, name: str = "") -> SessionEntry:
    return SessionEntry(
        session=session, guild_id="1", guild_name="G", channel_id="2", channel_name="C", started_unix_ns=3, name=name
    )


async def everything_on(bus: Bus, session: str) -> bool:
    streams = {lag.stream for lag in await stream_lags(bus)}
    there = {session_stream_name(session), object_stream_name(session)} & streams
    return bool(there) or await get_entry(bus, session) is not None or await session_exists(bus, session)


class TestDirectory:
    async def test_entries_are_listed_oldest_first(self, bus: Bus):
        """What was put is there, the newest version of each, until it is removed."""
        sessions = [new_id(1_000_000 + number) for number in range(5)]
        for session in reversed(sessions):
            await put_entry(bus, entry_of(session))
        await put_entry(bus, entry_of(sessions[2], "renamed"))
        await remove_entry(bus, sessions[3])
        mine = [entry for entry in await list_entries(bus) if entry.session in sessions]
        assert [(entry.session, entry.name) for entry in mine] == [
            (sessions[0], ""),
            (sessions[1], ""),
            (sessions[2], "renamed"),
            (sessions[4], ""),
        ]
        assert await get_entry(bus, sessions[3]) is None
        assert await get_entry(bus, sessions[2]) == entry_of(sessions[2], "renamed")
        assert await get_entry(bus, new_id()) is None

    async def test_a_lost_entry_is_rebuilt_from_the_stream(self, bus: Bus):
        """The directory is a projection of the log."""
        session = new_id()
        await record(bus, session)
        assert session in await list_stream_sessions(bus)
        rebuilt = await rebuild_entry(bus, session)
        assert rebuilt is not None
        assert (rebuilt.session, rebuilt.guild_name) == (session, "The Guild")
        assert await get_entry(bus, session) == rebuilt

    async def test_a_stream_without_a_start_has_no_entry(self, bus: Bus, session: str):
        """None, and nothing is written; an unknown session is not found."""
        assert await rebuild_entry(bus, session) is None
        assert await get_entry(bus, session) is None
        with pytest.raises(SessionNotFoundError):
            await rebuild_entry(bus, new_id())

    async def test_a_fact_that_cannot_be_read_does_not_hide_the_session(self, bus: Bus, session: str):
        """A fact of a later version, or noise, or one of another session, is left out."""
        victim = new_id()
        await put_entry(bus, entry_of(victim, "mine"))
        for number, data in enumerate(
            (b'{"type":"session_started.9"}', b"\xff", encode_fact(started(victim)), encode_fact(started(session)))
        ):
            await bus.publish(facts(session), data, message_id=str(number))
        entry = await rebuild_entry(bus, session)
        assert entry is not None
        assert entry.session == session
        assert await get_entry(bus, victim) == entry_of(victim, "mine")

    async def test_the_order_of_the_facts_in_the_stream_does_not_matter(self, bus: Bus, session: str):
        """A fact that had to be sent again stands behind later ones; the entry is the same."""
        ended = SessionEnded(id="end", session=session, at_ns=9, unix_ns=10, cause="stopped", tracks=())
        joined = SpeakerJoined(id="in", session=session, at_ns=3, unix_ns=4, take=1, user_id="1", name="Ada")
        for fact in (ended, joined, started(session)):
            await bus.publish(facts(session), encode_fact(fact), message_id=fact.id)
        entry = await rebuild_entry(bus, session)
        assert entry is not None
        assert (entry.cause, entry.duration_ns, entry.people) == ("stopped", 9, {"1": "Ada"})


class TestTransfer:
    async def test_export_delete_import_gives_the_same_log(self, bus: Bus):
        """Message for message: sequence, subject, id, bytes; and the entry is back."""
        session = new_id()
        await record(bus, session)
        before = await log_of(bus, session)
        bundle = await exported(bus, session)
        assert await delete_session(bus, session)
        assert not await everything_on(bus, session)
        imported, entry = await import_session(bus, BytesIO(bundle))
        assert imported == session
        assert await log_of(bus, session) == before
        assert entry is not None
        assert await get_entry(bus, session) == entry
        again = await exported(bus, session)
        assert list(BundleReader(BytesIO(again)).messages()) == list(BundleReader(BytesIO(bundle)).messages())

    async def test_messages_as_large_as_the_server_takes_survive(self, bus: Bus, session: str):
        """Near the limit of 1 MiB, and empty, and without an id."""
        large = random.Random(1).randbytes(1024 * 1024 - 4096)
        for number in range(6):
            await bus.publish(packets(session, 1, number), large, message_id=str(number))
        await bus.client.publish(facts(session), b"")
        await bus.client.publish(facts(session), b"no id")
        await bus.client.flush()
        before = await log_of(bus, session)
        assert len(before) == 8
        bundle = await exported(bus, session)
        await delete_session(bus, session)
        await import_session(bus, BytesIO(bundle))
        assert await log_of(bus, session) == before

    async def test_an_empty_session_can_be_moved(self, bus: Bus, session: str):
        """It has no entry, and no messages, but it is there."""
        bundle = await exported(bus, session)
        await delete_session(bus, session)
        assert await import_session(bus, BytesIO(bundle)) == (session, None)
        assert await last_sequence(bus, session) == 0

    async def test_a_session_that_is_there_is_not_touched(self, bus: Bus):
        """Import refuses, and the session stays as it was."""
        session = new_id()
        await record(bus, session, batches=3)
        bundle = await exported(bus, session)
        before = await log_of(bus, session)
        with pytest.raises(SessionExistsError, match=session):
            await import_session(bus, BytesIO(bundle))
        assert await log_of(bus, session) == before

    async def test_a_damaged_bundle_leaves_nothing_behind(self, bus: Bus):
        """Cut short, changed, or longer than it says: no stream, no bucket, no entry."""
        session = new_id()
        await record(bus, session, batches=5)
        whole = await exported(bus, session)
        await delete_session(bus, session)
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for damaged in (whole[:-1], whole[: len(whole) // 2], bytes(flipped), whole + b"x"):
            with pytest.raises(BundleError):
                await import_session(bus, BytesIO(damaged))
            assert not await everything_on(bus, session)

    @pytest.mark.parametrize(
        "subject",
        [
            "rec.{other}.evt",
            "rec.{other}.pkt.1.2",
            "renders.{own}.j",
            "jobs.render",
            "$KV.sessions.{other}",
            "rec.{own}.>",
            "rec.*.evt",
        ],
    )
    async def test_a_bundle_writes_to_its_own_session_only(self, bus: Bus, session: str, subject: str):
        """A subject of anybody else is refused, and nothing was written there."""
        own = new_id()
        await put_entry(bus, entry_of(session))
        evil = BundleMessage(subject.format(own=own, other=session), "x", b"x")
        with pytest.raises(BundleError):
            await import_session(bus, bundle_of(own, [BundleMessage(facts(own), "ok", b"x"), evil]))
        assert not await everything_on(bus, own)
        assert await last_sequence(bus, session) == 0
        assert await get_entry(bus, session) == entry_of(session)

    async def test_a_bundles_facts_cannot_take_another_sessions_entry(self, bus: Bus, session: str):
        """Facts that name another session do not get into its entry."""
        own = new_id()
        await put_entry(bus, entry_of(session, "mine"))
        lie = BundleMessage(facts(own), "start", encode_fact(started(session)))
        assert await import_session(bus, bundle_of(own, [lie])) == (own, None)
        assert await get_entry(bus, session) == entry_of(session, "mine")

    @pytest.mark.parametrize("session_id", ["", "a.b", "*", ">", "../../x", "0" * 17, "KV_sessions"])
    async def test_a_bundle_names_a_session_of_ours(self, bus: Bus, session_id: str):
        """What is no id is refused before anything is made."""
        with pytest.raises(BundleError):
            await import_session(bus, bundle_of(session_id, []))

    @pytest.mark.parametrize(
        "message_id",
        ["a\r\nNats-Rollup: all", "a b", "x" * 300, "\0", "é"],
        ids=["injection", "space", "long", "nul", "é"],
    )
    async def test_an_id_that_is_no_header_is_refused(self, bus: Bus, message_id: str):
        """A bundle cannot smuggle headers."""
        own = new_id()
        with pytest.raises(BundleError, match="id"):
            await import_session(bus, bundle_of(own, [BundleMessage(facts(own), message_id, b"x")]))
        assert not await everything_on(bus, own)

    async def test_a_message_too_large_for_the_server_is_refused(self, bus: Bus):
        """At once, not after a minute of trying."""
        own = new_id()
        with pytest.raises(BundleError, match="bytes"):
            await import_session(bus, bundle_of(own, [BundleMessage(facts(own), "1", bytes(2 * 1024 * 1024))]))

    async def test_a_message_that_is_twice_in_the_bundle_is_stored_once(self, bus: Bus):
        """A log may hold a message twice, if it was sent again after the dedupe window; that is no damage."""
        own = new_id()
        messages = [BundleMessage(facts(own), str(number % 3), b"%d" % (number % 3)) for number in range(6)]
        await import_session(bus, bundle_of(own, messages))
        assert [data for _, _, _, data in await log_of(bus, own)] == [b"0", b"1", b"2"]

    async def test_two_messages_under_one_id_are_refused(self, bus: Bus):
        """The server would keep only one of them: nothing is imported, rather than less."""
        own = new_id()
        messages = [BundleMessage(facts(own), "same", b"one"), BundleMessage(facts(own), "same", b"other")]
        with pytest.raises(UnavailableError):
            await import_session(bus, bundle_of(own, messages))
        assert not await everything_on(bus, own)


async def test_a_deleted_session_leaves_no_byte_of_speech(tmp_path: Path):
    """After `delete_session` no file of the store holds the voice, nor a rendered file, nor does it after a restart."""
    async with EmbeddedServer(tmp_path / "nats") as server:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        session, other = new_id(), new_id()
        kept = random.Random(6).randbytes(120)
        await record(bus, session)
        await record(bus, other, payload=kept)
        rendered = random.Random(7).randbytes(400_000)
        file = tmp_path / "mix.mp3"
        file.write_bytes(rendered)
        await put_artifact(bus, described(session, rendered), file)
        await put_entry(bus, entry_of(session))
        assert holding(server.store, SPEECH)
        assert holding(server.store, rendered[200_000:200_064])
        assert await delete_session(bus, session)
        assert not await delete_session(bus, session)
        assert not await everything_on(bus, session)
        assert await find_artifact(bus, session, "a-mix.mp3") is None
        with pytest.raises(SessionNotFoundError):
            await last_sequence(bus, session)
        for _ in range(2):
            assert holding(server.store, SPEECH) == []
            assert holding(server.store, rendered[200_000:200_064]) == []
            assert holding(server.store, kept)
            await server.stop()
            await server.start()
        await bus.close()


def holding(folder: Path, needle: bytes) -> list[Path]:
    """Files below a folder that hold some bytes."""
    return [path for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


async def test_lag_tells_what_was_published(bus: Bus):
    """Messages, bytes and subjects of a session's stream are those of its log; a reader's distance is its lag."""
    session = new_id()
    await record(bus, session, batches=10)
    log = await log_of(bus, session)
    stream = session_stream_name(session)
    await bus.api(
        f"CONSUMER.CREATE.{stream}.follower",
        {
            "stream_name": stream,
            "config": {"durable_name": "follower", "ack_policy": "explicit", "max_ack_pending": 100},
        },
    )
    subscription = await bus.js.pull_subscribe_bind("follower", stream)
    first, second, *_ = await subscription.fetch(5)
    await first.ack_sync()
    await second.ack_sync()
    (lag,) = [lag for lag in await stream_lags(bus) if lag.stream == stream]
    assert (lag.messages, lag.first_sequence, lag.last_sequence, lag.subjects) == (21, 1, 21, 2)
    assert lag.bytes >= sum(len(data) for *_, data in log)
    (follower,) = lag.consumers
    assert (follower.name, follower.pending, follower.ack_pending, follower.lag_messages) == ("follower", 16, 3, 19)
    assert (follower.ack_floor, follower.redelivered) == (2, 0)


async def test_every_stream_is_listed_beyond_a_page(bus: Bus):
    """The server answers in pages; 300 sessions are more than one."""
    sessions = [new_id() for _ in range(150)]
    for session in sessions:
        await create_session(bus, session)
    listed = {lag.stream for lag in await stream_lags(bus)}
    assert {session_stream_name(session) for session in sessions} <= listed
    assert set(sessions) <= set(await list_stream_sessions(bus))
