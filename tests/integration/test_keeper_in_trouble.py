"""Whatever is away or full while sessions are kept: it is said, nothing is lost, and it goes on when it can."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from contracts.errors import UnavailableError
from contracts.ids import new_id
from contracts.jetstream import transfer
from contracts.jetstream.connection import Bus
from contracts.jetstream.keeping import ArchivedError, bring_back, standing, withdraw
from contracts.jetstream.streams import create_session, session_exists
from contracts.packets import Packet, PacketBatch, encode_batch
from contracts.subjects import packets
from ops.archive import archive_session, open_archive_or_fail
from ops.backup import back_up, check_backup
from ops.erasure import erase_everywhere
from ops.retention import DAY_S
from ops.setup import nats_conf
from ops.vault.place import Folder
from tests.installation import ADA, Installation, holds, installed, voice
from tests.integration.test_jetstream_sessions import log_of
from tests.integration.test_keeper import DEADLINE_S, keeping
from tests.s3 import S3, running_s3

pytestmark = pytest.mark.long

STORE_BYTES = 4_000_000


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture
async def here(tmp_path: Path, s3: S3) -> AsyncIterator[Installation]:
    async with installed(tmp_path / "here", s3.settings(tmp_path)) as each:
        yield each


@pytest.fixture
async def small(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Installation]:
    """An installation whose server has next to no room."""
    monkeypatch.setattr(nats_conf, "FILE_STORE", str(STORE_BYTES))
    monkeypatch.setattr(transfer, "DRAIN_TIMEOUT_S", 2.0)  # nobody waits a minute here for room that does not come
    async with installed(tmp_path / "small", s3.settings(tmp_path)) as each:
        yield each


async def fill(bus: Bus) -> None:
    """Record until the server takes no more."""
    session = new_id()
    await create_session(bus, session)
    for number in range(100):
        batch = PacketBatch(1, 1, number, number, (Packet(0, 0, 0, bytes(200_000)),))
        try:
            await bus.js.publish(packets(session, 1, 1), encode_batch(batch), timeout=2)
        except Exception:  # noqa: BLE001  # nats-py has several for it
            return
    raise AssertionError("it took everything")


async def test_a_full_server_still_erases_and_has_room_again(small: Installation):
    """It takes no message, not even the mark; what is erased at once goes all the same, deleted before or not."""
    now, deleted = await small.session(batches=300), await small.session(batches=300)
    await withdraw(small.bus, deleted, by="test", grace_s=DAY_S)
    await fill(small.bus)
    with pytest.raises(UnavailableError):
        await small.bus.publish("rec.x.evt", b"x" * 100_000)
    await erase_everywhere(small.bus, now, small.settings)
    assert await standing(small.bus, now) == "gone"
    await fill(small.bus)
    await erase_everywhere(small.bus, deleted, small.settings)
    assert await standing(small.bus, deleted) == "gone"
    await small.shut()
    assert not holds(small.settings.data, voice(deleted, ADA))


@pytest.mark.soak  # tries have to run out
async def test_what_a_full_server_cannot_take_back_stays_in_the_archive(small: Installation):
    """It says so; with room, it comes."""
    cold, other = await small.session(batches=100), await small.session(batches=500)
    before = await log_of(small.bus, cold)
    await archive_session(small.bus, open_archive_or_fail(small.settings), cold)
    await fill(small.bus)
    async with keeping(small):
        with pytest.raises(ArchivedError):
            await bring_back(small.bus, cold, patience_s=4.0)
        assert await standing(small.bus, cold) == "archived"
        assert not await session_exists(small.bus, cold)
        await erase_everywhere(small.bus, other, small.settings)
        await bring_back(small.bus, cold, patience_s=DEADLINE_S)
    assert await log_of(small.bus, cold) == before


async def test_a_full_disk_on_the_way_back_leaves_it_in_the_archive(here: Installation):
    """The limit of the file size stands for the keeper's disk."""
    session = await here.session(batches=150)
    before = await log_of(here.bus, session)
    await archive_session(here.bus, open_archive_or_fail(here.settings), session)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        async with keeping(here):
            with pytest.raises(ArchivedError, match="File too large"):
                await bring_back(here.bus, session, patience_s=2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list((here.settings.data / "fetch").glob("*")) == []
    async with keeping(here):
        await bring_back(here.bus, session, patience_s=DEADLINE_S)
    assert await log_of(here.bus, session) == before


async def test_a_server_that_goes_away_in_mid_sweep_is_waited_for(here: Installation):
    """Killed by -9 while sessions go to the archive: each is whole in one place, and the keeper goes on by itself."""
    sessions = [await here.session(batches=40) for _ in range(3)]
    logs = {session: await log_of(here.bus, session) for session in sessions}
    cold = msgspec.structs.replace(here.settings, archive_after="1h")
    async with keeping(here, cold):
        async with asyncio.timeout(DEADLINE_S):
            while [await standing(here.bus, session) for session in sessions].count("archived") < 1:
                await asyncio.sleep(0.01)
        pid = here.server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await here.server.wait()
        await here.server.start()
        async with asyncio.timeout(60):
            while True:
                try:
                    if [await standing(here.bus, session) for session in sessions] == ["archived"] * len(sessions):
                        break
                except UnavailableError:
                    pass
                await asyncio.sleep(0.1)
    async with keeping(here):
        for session in sessions:
            await bring_back(here.bus, session, patience_s=DEADLINE_S)
            assert await log_of(here.bus, session) == logs[session]


@pytest.mark.soak  # as above
async def test_a_server_that_goes_away_in_mid_backup_leaves_it_right(here: Installation, tmp_path: Path):
    """The backup ends with a word; the next one completes it."""
    sessions = [await here.session(batches=40) for _ in range(3)]
    place = Folder(tmp_path / "backup")

    def told(session: str, _done: float) -> None:
        if session == sessions[1]:
            os.kill(here.server.pid or 0, signal.SIGKILL)

    with pytest.raises(UnavailableError):
        await back_up(here.bus, here.settings, place, told=told)
    assert await check_backup(place, here.settings) == []
    await here.server.wait()
    await here.server.start()
    async with asyncio.timeout(DEADLINE_S):
        while not here.bus.connected:
            await asyncio.sleep(0.05)
    await back_up(here.bus, here.settings, place)
    assert await check_backup(place, here.settings) == []
