"""A log that lost a part on the disk is found by reading it, and told; whole ones are read in their turn."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from contracts.directory import SessionEntry
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import read_directory
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.streams import session_stream_name
from contracts.subjects import PacketSubject, parse
from ops.embedded import EmbeddedServer
from ops.scrub import EVERY_S, NS, PAUSE_S, Scrub, read_through
from tests.builders import Built, build_session
from tests.integration.test_mixer_worker import publish

LATER_NS = 1 << 62


class Clock:
    """Seconds, as a test sets them."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def entries(bus: Bus) -> list[SessionEntry]:
    return list((await read_directory(bus))[0])


def entry_of(built: Built, *, ended_unix_ns: int | None) -> SessionEntry:
    known = {"guild_id": "1", "guild_name": "", "channel_id": "1", "channel_name": "", "started_unix_ns": 1}
    return SessionEntry(session=built.session, ended_unix_ns=ended_unix_ns, **known)


async def test_a_bit_that_flips_on_the_disk_is_told(tmp_path: Path):
    """The server starts again, and leaves out what does not match its checksum; the next reading misses it."""
    sound, rotten = (build_session(20.0, 2, activity=0.5, seed=seed) for seed in (5, 6))
    async with EmbeddedServer(tmp_path) as server:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        for built in (sound, rotten):
            await publish(bus, built)
            assert await read_through(bus, built.session) == (True, ())
        await bus.close()
        await server.stop()
        blocks = [path for path in server.store.rglob("*.blk") if session_stream_name(rotten.session) in path.parts]
        flip(max(blocks, key=lambda path: path.stat().st_size))
        await server.start()
        bus = await connect(server.url, name="again")
        clock = Clock()
        scrub = Scrub(bus, clock_s=clock)
        for _ in range(2):
            await scrub.step(await entries(bus), now_ns=LATER_NS)
            clock.now_s += PAUSE_S
        assert scrub.damaged == 1
        assert await read_through(bus, sound.session) == (True, ())
        ended, missing = await read_through(bus, rotten.session)
        assert missing or not ended
        await scrub.step([one for one in await entries(bus) if one.session != rotten.session], now_ns=LATER_NS)
        assert scrub.damaged == 0, "what is not there any more is not damaged"
        await bus.close()


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


async def test_what_is_not_there_by_number_is_missed(bus: Bus):
    """A batch that never came, and one that nobody can read."""
    built = build_session(10.0, 1, activity=0.5, seed=7)
    lost, unreadable, *_ = [one for one in built.messages if isinstance(parse(one.subject), PacketSubject)]
    messages = [msgspec.structs.replace(one, data=b"?") if one is unreadable else one for one in built.messages]
    await publish(bus, msgspec.structs.replace(built, messages=[one for one in messages if one is not lost]))
    ended, missing = await read_through(bus, built.session)
    assert ended
    assert missing[0] == "1 messages cannot be read"
    assert ": 2 of " in missing[1]


@pytest.mark.parametrize("change", ["running", "fresh"])
async def test_what_may_still_grow_is_not_read(bus: Bus, change: str):
    """A session that runs, and one whose last words may still be on capture's disk."""
    built = build_session(5.0, 1, activity=0.5, seed=8 + len(change))
    await create_session(bus, built.session)  # nothing is in it: it would be told
    entry = entry_of(built, ended_unix_ns=5 * NS if change == "fresh" else None)
    scrub = Scrub(bus, clock_s=Clock())
    await scrub.step([entry], now_ns=60 * NS)
    assert scrub.damaged == 0
    await scrub.step([msgspec.structs.replace(entry, ended_unix_ns=5 * NS)], now_ns=LATER_NS)
    assert scrub.damaged == 1


async def test_each_is_read_again_when_its_time_has_come(bus: Bus):
    """Not before, and one at a time; one that was mended since is damaged no more."""
    built = build_session(5.0, 1, activity=0.5, seed=11)
    *most, last = built.messages
    await publish(bus, msgspec.structs.replace(built, messages=most))
    entry = entry_of(built, ended_unix_ns=2)
    clock = Clock()
    scrub = Scrub(bus, clock_s=clock)
    await scrub.step([entry], now_ns=LATER_NS)
    assert scrub.damaged == 1
    await bus.publish(last.subject, last.data, message_id=last.message_id)
    clock.now_s = EVERY_S - 1
    await scrub.step([entry], now_ns=LATER_NS)
    assert scrub.damaged == 1
    clock.now_s = EVERY_S
    await scrub.step([entry], now_ns=LATER_NS)
    assert scrub.damaged == 0
