"""An installation without services: a server, a data folder, a connection, and sessions of two people in it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from contracts.events import SessionEnded, SpeakerIdentified, SpeakerJoined, encode_fact
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import find_entry, put_entry, rebuild_entry
from contracts.jetstream.publisher import Publisher
from contracts.jetstream.streams import ensure_shared
from contracts.packets import Packet, PacketBatch, encode_batch
from contracts.settings import Settings
from contracts.subjects import facts, packets
from ops.embedded import EmbeddedServer
from tests.integration.test_jetstream_sessions import record

ADA, BELA = "300000000000000001", "300000000000000002"
SSRC = {ADA: 7, BELA: 8}


def voice(session: str, user: str) -> bytes:
    """What a person's packets of a session hold: bytes that are nowhere else."""
    return random.Random(f"{session} {user}").randbytes(120)


class Installation:
    """A server with its data folder, and a connection."""

    def __init__(self, server: EmbeddedServer, bus: Bus, settings: Settings) -> None:
        self.server, self.bus, self.settings = server, bus, settings

    async def session(self, batches: int = 20, *, ended_unix_ns: int = 10, guild_id: str = "1") -> str:
        """Two people who speak by turns, ended and listed."""
        session = new_id()
        await record(self.bus, session, batches=1, payload=b"nobody's")
        publisher = Publisher(self.bus)
        await publisher.start()
        for user, ssrc in SSRC.items():
            said = {"session": session, "at_ns": 1, "unix_ns": 1, "take": 1, "user_id": user}
            joined = SpeakerJoined(id=f"j{user}", name=user, **said)
            known = SpeakerIdentified(id=f"i{user}", ssrc=ssrc, name="", by="key", **said)
            for fact in (joined, known):
                publisher.publish(facts(session), fact.id, encode_fact(fact))
        for number in range(1, batches + 1):
            for user, ssrc in SSRC.items():
                spoken = tuple(Packet(k, k, k, voice(session, user)) for k in range(9))
                batch = PacketBatch(1, ssrc, number, number, spoken)
                publisher.publish(packets(session, 1, ssrc), batch.message_id, encode_batch(batch))
        ended = SessionEnded(id="end", session=session, at_ns=9, unix_ns=ended_unix_ns, cause="stopped", tracks=())
        publisher.publish(facts(session), "end", encode_fact(ended))
        await publisher.drain(timeout_s=30)
        await publisher.close()
        entry = await rebuild_entry(self.bus, session)
        assert entry is not None
        await put_entry(self.bus, msgspec.structs.replace(entry, guild_id=guild_id))
        return session

    async def ended_ns(self, session: str) -> int:
        """When a session ended."""
        entry = await find_entry(self.bus, session)
        assert entry is not None
        assert entry.ended_unix_ns is not None
        return entry.ended_unix_ns

    async def shut(self) -> None:
        """End the server, so that its files are as they are on a disk."""
        await self.bus.close()
        await self.server.stop()


@contextlib.asynccontextmanager
async def installed(folder: Path, settings: Settings | None = None) -> AsyncIterator[Installation]:
    """One below a folder; with `settings`, of those but for folder and server."""
    async with EmbeddedServer(folder / "nats") as server:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        own = msgspec.structs.replace(settings or Settings(), data=folder, nats_url=server.url)
        yield Installation(server, bus, own)
        await bus.close()


def holds(folder: Path, payload: bytes) -> bool:
    """Whether any file below holds these bytes."""
    return any(payload in path.read_bytes() for path in folder.rglob("*") if path.is_file())
