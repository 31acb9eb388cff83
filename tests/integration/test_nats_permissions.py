"""What each user of the NATS server may not do, tried out against a real server that is configured as in production."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from contracts import streams, subjects
from contracts.ids import new_id
from contracts.jetstream.client import CancellableClient
from contracts.jetstream.connection import Bus, JetStreamError, connect
from contracts.jetstream.follow import FollowConsumer
from contracts.jetstream.pull import read_stream
from contracts.jetstream.replay import replay
from contracts.jetstream.server import Server
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.permissions import SHARED_STREAMS, SYSTEM_USER, USERS
from contracts.settings import load_settings
from ops.embedded import EmbeddedServer

SERVICES = ("capture", "mixer", "gateway", "monitor")
SPOKEN = b"what somebody said"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """One for the module."""
    async with EmbeddedServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


@contextlib.asynccontextmanager
async def connected(server: EmbeddedServer, user: str) -> AsyncIterator[Bus]:
    """A connection as one of the users."""
    bus = await connect(Server.of(load_settings(server.environ(user)), user), name=user)
    try:
        yield bus
    finally:
        await bus.close()


@pytest.fixture
async def session(server: EmbeddedServer) -> str:
    """A session that holds one fact, some audio and a file's name."""
    session = new_id()
    async with connected(server, "operator") as bus:
        await ensure_shared(bus)
        await create_session(bus, session)
        await bus.publish(subjects.facts(session), b"a fact")
        await bus.publish(subjects.packets(session, 1, 7), SPOKEN)
    return session


async def refused(bus: Bus, subject: str, *, listening: bool = False) -> bool:
    """Whether the server lets this user neither say nor, with `listening`, hear something."""
    bus.denied = None
    if listening:
        subscription = await bus.client.subscribe(subject)
        await bus.client.flush()
        await subscription.unsubscribe()
    else:
        await bus.client.publish(subject, b"{}")
    await bus.client.flush()
    await bus.client.flush()  # nats-py's ping overtakes what is buffered, the first time
    return bus.denied is not None


def publications(user: str, session: str) -> list[str]:
    """What would harm others, and is not this user's to say."""
    stream, files = streams.session_stream_name(session), streams.object_stream_name(session)
    shared = [*streams.SHARED, *(f"KV_{bucket}" for bucket in streams.BUCKETS)]
    names = [each if isinstance(each, str) else each.name for each in shared]
    every = {
        "capture": [subjects.live(session), f"$O.{session}.C.x", f"$O.{session}.M.x", f"$KV.revoked.{session}"],
        "mixer": [
            subjects.facts(session),
            subjects.packets(session, 1, 7),
            f"$KV.sessions.{session}",
            f"$KV.leases.{session}",  # a capture's; those of followers are its own
            "$KV.guilds.1",
            "ctl.record.start",
            "ctl.link.sign",
            f"$JS.API.STREAM.DELETE.{stream}",
            f"$JS.API.STREAM.CREATE.{stream}",
            f"$JS.API.STREAM.UPDATE.{stream}",
            *(f"$JS.API.STREAM.PURGE.{name}" for name in names),
        ],
        "gateway": [
            subjects.facts(session),
            subjects.packets(session, 1, 7),
            subjects.live(session),
            f"$O.{session}.C.x",
            f"$O.{session}.M.x",
            f"$KV.leases.{session}",
            f"$KV.leases.follow.{session}",
            "$KV.guilds.1",
            "ctl.record.forget",
            "ctl.record.consent",
            f"$JS.API.STREAM.DELETE.{stream}",
            f"$JS.API.STREAM.DELETE.{files}",
            "$JS.API.STREAM.MSG.DELETE.RENDERS",
            f"$JS.API.STREAM.CREATE.{stream}",
            f"$JS.API.STREAM.UPDATE.{stream}",
            f"$JS.API.STREAM.PURGE.{stream}",
            f"$JS.API.STREAM.PURGE.{files}",
            f"$JS.API.STREAM.MSG.DELETE.{stream}",
            f"$JS.API.STREAM.MSG.GET.{stream}",
            f"$JS.API.STREAM.SNAPSHOT.{stream}",
            f"$JS.API.CONSUMER.CREATE.{stream}",
            f"$JS.API.CONSUMER.CREATE.{stream}.mine",
            f"$JS.API.CONSUMER.CREATE.{stream}.mine.rec.{session}.pkt.>",
            f"$JS.API.CONSUMER.CREATE.{stream}.mine.rec.{session}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{streams.FOLLOW_CONSUMER}",
            f"$JS.API.CONSUMER.DELETE.{stream}.{streams.FOLLOW_CONSUMER}",
            f"$JS.API.CONSUMER.MSG.NEXT.JOBS.{streams.RENDER_CONSUMER}",
            f"$JS.ACK.JOBS.{streams.RENDER_CONSUMER}.1.1.1.1.0",
        ],
        "monitor": [
            subjects.facts(session),
            subjects.packets(session, 1, 7),
            subjects.JOBS_RENDER,
            f"renders.{session}.job",
            f"$KV.sessions.{session}",
            f"$KV.leases.{session}",
            "ctl.record.stop",
            f"$JS.API.STREAM.MSG.GET.{stream}",
            f"$JS.API.DIRECT.GET.{files}",
            f"$JS.API.CONSUMER.CREATE.{stream}.mine.rec.{session}.evt",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{streams.FOLLOW_CONSUMER}",
            f"$JS.API.STREAM.DELETE.{stream}",
            f"$JS.API.STREAM.PURGE.{stream}",
            f"$JS.API.STREAM.CREATE.{stream}",
            f"$JS.API.STREAM.UPDATE.{stream}",
        ],
    }[user]
    return [
        *every,
        *(f"$JS.API.STREAM.DELETE.{name}" for name in names),
        f"$JS.API.STREAM.RESTORE.{stream}",
        f"$JS.API.STREAM.PEER.REMOVE.{stream}",
        "$JS.API.SERVER.REMOVE",
        "$SYS.REQ.SERVER.PING",
        *(f"_INBOX_{other}.x" for other in USERS if other != user),
        "_INBOX.x",
    ]


@pytest.mark.parametrize("user", SERVICES)
async def test_nobody_says_what_is_not_theirs_to_say(server: EmbeddedServer, session: str, user: str):
    """Others' facts and answers, others' streams: the server refuses each, and the connection goes on."""
    async with connected(server, user) as bus:
        said = [subject for subject in publications(user, session) if not await refused(bus, subject)]
        assert said == []
        assert bus.connected
    async with connected(server, "operator") as bus:
        assert len([message async for message in replay(bus, session)]) == 2


@pytest.mark.parametrize("user", SERVICES)
async def test_nobody_hears_what_is_not_theirs_to_hear(server: EmbeddedServer, session: str, user: str):
    """Audio as it passes, others' answers, requests to others, and everything at once."""
    own = {"capture": "ctl.record.start"}.get(user)
    every = [
        subjects.packets(session, 1, 7),
        "rec.>",
        ">",
        "$JS.API.>",
        "$SYS.>",
        *(f"_INBOX_{other}.>" for other in USERS if other != user),
        "_INBOX.>",
        *(subject for subject in ("ctl.record.start", "ctl.link.sign") if not own),
    ]
    async with connected(server, user) as bus:
        assert [subject for subject in every if not await refused(bus, subject, listening=True)] == []
        assert not await refused(bus, f"_INBOX_{user}.x", listening=True)


@pytest.mark.parametrize("user", ["gateway", "monitor"])
async def test_who_faces_the_internet_or_only_watches_reads_no_audio(server: EmbeddedServer, session: str, user: str):
    """By none of JetStream's ways to read a message; where the subject cannot say it, the stream itself refuses."""
    stream = streams.session_stream_name(session)
    async with connected(server, user) as bus:
        for body in ({"seq": 2}, {"seq": 1, "next_by_subj": "rec.>", "batch": 9}, {"last_by_subj": "rec.*.pkt.*.*"}):
            await refused(bus, f"$JS.API.DIRECT.GET.{stream}")
            if bus.denied is None:
                with pytest.raises(NoRespondersError):
                    await bus.client.request(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(body), timeout=2)
        assert await refused(bus, f"$JS.API.CONSUMER.CREATE.{stream}.mine.rec.{session}.pkt.1.7")
        if user == "gateway":
            facts = read_stream(bus, stream, filter_subject=subjects.facts(session))
            assert [message.data async for message in facts] == [b"a fact"]


async def test_a_filter_that_says_one_thing_and_asks_for_another_gets_nothing(server: EmbeddedServer, session: str):
    """The filter in the subject is what the server lets through; the one in the request has to be the same."""
    stream = streams.session_stream_name(session)
    async with connected(server, "gateway") as bus:
        for asked in ({"filter_subject": "rec.>"}, {"filter_subjects": ["rec.>"]}, {}):
            config = {"name": "mine", "ack_policy": "none", **asked}
            with pytest.raises(JetStreamError):
                await bus.api(
                    f"CONSUMER.CREATE.{stream}.mine.{subjects.facts(session)}",
                    {"stream_name": stream, "config": config},
                )


@pytest.mark.parametrize("user", ["capture", "mixer", "keeper", "operator"])
async def test_a_sessions_log_is_append_only_whoever_asks(server: EmbeddedServer, session: str, user: str):
    """Not one message goes, and the stream cannot be told to allow it; deleting a session deletes its files."""
    stream = streams.session_stream_name(session)
    async with connected(server, user) as bus:
        for verb, body in (("PURGE", {}), ("MSG.DELETE", {"seq": 2}), ("UPDATE", {"name": stream, "subjects": ["x"]})):
            if not await refused(bus, f"$JS.API.STREAM.{verb}.{stream}"):
                with pytest.raises(JetStreamError):
                    await bus.api(f"STREAM.{verb}.{stream}", body)
    async with connected(server, "operator") as bus:
        assert [message.data async for message in replay(bus, session)] == [b"a fact", SPOKEN]


async def test_answers_reach_only_who_asked(server: EmbeddedServer):
    """Capture answers the gateway's request on the gateway's own inbox, once, and nobody else's."""
    async with connected(server, "capture") as capture, connected(server, "gateway") as gateway:
        asked: list[str] = []

        async def answer(message: Msg) -> None:
            asked.append(message.reply)
            await message.respond(b"yes")

        await capture.client.subscribe(subjects.STATUS, cb=answer)
        await capture.client.flush()
        assert await gateway.request(subjects.STATUS, b"{}", timeout_s=5) == b"yes"
        assert asked[0].startswith("_INBOX_gateway.")
        assert await refused(capture, asked[0]), "a second answer"


async def test_a_follower_reads_and_nobody_else_by_its_consumer(server: EmbeddedServer, session: str):
    """The mixer's durable gives audio to the mixer; the gateway may neither read by it nor take it away."""
    async with connected(server, "mixer") as bus, FollowConsumer(bus, session, first=1) as consumer:
        messages = consumer.messages()
        assert [(await anext(messages)).data, (await anext(messages)).data] == [b"a fact", SPOKEN]
        await consumer.ack(2)
        await messages.aclose()
        assert bus.denied is None


async def test_the_systems_user_sees_the_server_and_no_recording(server: EmbeddedServer, session: str):
    """It is of another account: no stream is there for it."""
    settings = load_settings(server.environ(SYSTEM_USER))
    system = Server.of(settings, SYSTEM_USER)
    client = CancellableClient(nkey=system.nkey)  # `connect` would ask for JetStream
    await client.connect(**system.client_options())
    try:
        assert b'"js_ack_fc_v2":false' in (await client.request("$SYS.REQ.SERVER.PING", b"", timeout=5)).data
        about = f"$JS.API.STREAM.INFO.{streams.session_stream_name(session)}"
        assert b"not enabled for account" in (await client.request(about, b"", timeout=5)).data
    finally:
        await client.close()


@pytest.mark.usefixtures("session")
async def test_what_everybody_shares_is_named_in_the_table(server: EmbeddedServer):
    """A stream that is not of a session, and that the table does not name, could be deleted by who erases sessions."""
    async with connected(server, "operator") as bus:
        names: list[str] = (await bus.api("STREAM.NAMES"))["streams"]
        shared = {name for name in names if not name.startswith((streams.SESSION_PREFIX, streams.OBJECT_PREFIX))}
        assert shared == set(SHARED_STREAMS)
