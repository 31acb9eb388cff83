"""The keeper lets go what has to go, moves to S3 what is cold, and brings back what is wanted; of several one works."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from capture.forgetting import Forgetter
from contracts.directory import Archived
from contracts.jetstream.connection import connect
from contracts.jetstream.directory import bury_if, change_keeping, find_entry, get_entry, was_erased
from contracts.jetstream.forget import forget_in_session
from contracts.jetstream.guilds import change_guild
from contracts.jetstream.keeping import ArchivedError, ask_to_fetch, bring_back, pin, standing, undelete, withdraw
from contracts.jetstream.leases import holding
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.server import Server
from contracts.jetstream.streams import session_exists
from contracts.keeping import KEEPER
from contracts.settings import Settings, load_settings
from ops.archive import NotArchivableError, archive_session, open_archive_or_fail
from ops.backup import back_up
from ops.erasure import erase_everywhere
from ops.keeper import Keeper
from ops.look import Lookout
from ops.retention import DAY_S, HOUR_S, NS, Archive, Delete, Erase, Step, Warn
from ops.vault.place import Folder, PlaceError
from ops.vault.s3 import check_s3
from tests.installation import ADA, BELA, Installation, holds, installed, voice
from tests.integration.test_jetstream_objects import put, read
from tests.integration.test_jetstream_sessions import log_of
from tests.s3 import S3, running_s3

DEADLINE_S = 20.0
KEEP = Settings(retention="30d", warn_hours=72, grace_hours=24)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3]:
    with running_s3() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3) -> Iterator[S3]:
    """The module's server, empty."""
    yield s3_server
    with contextlib.suppress(RuntimeError):
        s3_server.stop()
    s3_server.start()
    for key in s3_server.contents():
        s3_server.client().delete_object(Bucket="recordings", Key=key)


@pytest.fixture
async def here(tmp_path: Path, s3: S3) -> AsyncIterator[Installation]:
    async with installed(tmp_path / "here", s3.settings(tmp_path)) as each:
        yield each


@contextlib.asynccontextmanager
async def keeping(here: Installation, settings: Settings | None = None) -> AsyncIterator[Keeper]:
    """A keeper that runs as in production: with the rights of its own user."""
    bus = await connect(Server.of(load_settings(here.server.environ("keeper")), "keeper"), name="keeper")
    keeper = Keeper(bus, settings or here.settings)
    running = asyncio.create_task(keeper.run())
    try:
        yield keeper
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        denied = bus.denied
        await bus.close()
    assert denied is None


async def sweep(here: Installation, settings: Settings, now_ns: int) -> list[Step]:
    """One look at a given time."""
    own = msgspec.structs.replace(settings, data=here.settings.data, nats_url=here.settings.nats_url)
    async with holding(here.bus, KEEPER, "test") as lease:
        return await Keeper(here.bus, own, now_ns=lambda: now_ns).sweep(lease)


async def test_a_session_is_told_deleted_and_erased_in_its_time(here: Installation):
    """Day by day, with a clock of ours: told at 27 days, closed at 30, gone from the disk at 31; a pinned one stays."""
    old, pinned = await here.session(), await here.session()
    await pin(here.bus, pinned)
    zero = await here.ended_ns(old)
    assert await sweep(here, KEEP, zero + 26 * DAY_S * NS) == []
    assert await sweep(here, KEEP, zero + 27 * DAY_S * NS) == [Warn(old, zero + 30 * DAY_S * NS, "age")]
    entry = await get_entry(here.bus, old)
    assert entry is not None
    assert entry.keeping.going_unix_ns == zero + 30 * DAY_S * NS
    assert await sweep(here, KEEP, zero + 29 * DAY_S * NS) == []
    assert await sweep(here, KEEP, zero + 30 * DAY_S * NS) == [Delete(old, "age")]
    assert await standing(here.bus, old) == "deleted"
    entry = await find_entry(here.bus, old)
    assert entry is not None
    over_ns = (entry.keeping.deleted_unix_ns or 0) + DAY_S * NS
    assert await sweep(here, KEEP, over_ns - 1) == []
    assert await sweep(here, KEEP, over_ns) == [Erase(old)]
    assert await was_erased(here.bus, old)
    assert await standing(here.bus, pinned) == "here"
    await here.shut()
    assert not holds(here.settings.data, voice(old, ADA))
    assert holds(here.settings.data, voice(pinned, ADA))


async def test_an_undo_within_the_grace_brings_back_the_same_bytes(here: Installation):
    """And it is told anew before it goes again."""
    session = await here.session()
    before = await log_of(here.bus, session)
    zero = await here.ended_ns(session)
    late_ns = zero + 40 * DAY_S * NS
    at_once = msgspec.structs.replace(KEEP, warn_hours=0)
    assert await sweep(here, at_once, late_ns) == [Delete(session, "age")]
    await undelete(here.bus, session)
    assert await log_of(here.bus, session) == before
    assert await sweep(here, KEEP, late_ns) == [Warn(session, late_ns + 72 * HOUR_S * NS, "age")]


async def test_a_servers_own_limit_holds_for_its_sessions(here: Installation):
    """Seven days in one server, thirty in the others."""
    mine, other = await here.session(guild_id="77"), await here.session(guild_id="78")
    await change_guild(here.bus, "77", lambda old: msgspec.structs.replace(old, keep_days=7))
    zero = await here.ended_ns(mine)
    at_once = msgspec.structs.replace(KEEP, warn_hours=0)
    assert await sweep(here, at_once, zero + 8 * DAY_S * NS) == [Delete(mine, "age")]
    assert await standing(here.bus, other) == "here"


async def test_for_space_the_oldest_goes_by_the_servers_own_figures(here: Installation, tmp_path: Path):
    """A quota between one session and two; files count as logs do."""
    first, second = await here.session(ended_unix_ns=10), await here.session(ended_unix_ns=20)
    for session in (first, second):
        await put(here.bus, tmp_path, session, random.Random(session).randbytes(300_000))
    small = Settings(quota_gb=0.0005, warn_hours=0)
    assert await sweep(here, small, 10**18) == [Delete(first, "space")]


async def test_of_two_keepers_one_keeps_and_the_other_takes_over(here: Installation):
    """Only the holder of the lease looks at sessions; when it is gone, the other does within seconds."""
    async with keeping(here) as second_chance:
        async with asyncio.timeout(DEADLINE_S):
            while not second_chance.sweeps:
                await asyncio.sleep(0.02)
        async with keeping(here) as waiting:
            await withdraw(here.bus, await here.session(), by="test", grace_s=60)
            swept = second_chance.sweeps
            async with asyncio.timeout(DEADLINE_S):
                while second_chance.sweeps == swept:
                    await asyncio.sleep(0.02)
            assert waiting.sweeps == 0


async def test_a_streams_remains_after_a_death_are_erased(here: Installation):
    """Whoever erased and died had marked it: the next look finishes."""
    session = await here.session()
    assert await bury_if(here.bus, session, lambda _entry: True)
    assert await session_exists(here.bus, session)
    await sweep(here, Settings(), 10**18)
    assert not await session_exists(here.bus, session)
    await here.shut()
    assert not holds(here.settings.data, voice(session, ADA))


class TestArchive:
    async def test_a_cold_session_leaves_the_disk_and_comes_back_as_it_was(
        self, here: Installation, s3: S3, tmp_path: Path
    ):
        """By age: log and files go to S3, nothing of them stays here; asked for, it is the same to the last byte."""
        cold, warm = await here.session(), await here.session()
        rendered = await put(here.bus, tmp_path / "here", cold, random.Random(1).randbytes(300_000))
        before, sound = await log_of(here.bus, cold), await read(here.bus, rendered)
        (tmp_path / "here" / f"{rendered.artifact.name}-300000").unlink()
        zero = await here.ended_ns(cold)
        await pin(here.bus, warm)
        policy = msgspec.structs.replace(here.settings, archive_after="30d")
        assert await sweep(here, policy, zero + 30 * DAY_S * NS) == [Archive(cold)]
        assert await standing(here.bus, cold) == "archived"
        assert not await session_exists(here.bus, cold)
        entry = await get_entry(here.bus, cold)
        assert entry is not None
        assert entry.keeping.archived is not None
        assert entry.keeping.archived.messages == len(before)
        assert any(voice(cold, ADA) in content for content in s3.contents().values())
        async with keeping(here):
            await bring_back(here.bus, cold, patience_s=DEADLINE_S)
            async with asyncio.timeout(DEADLINE_S):
                while [key for key in s3.contents() if cold in key]:  # it is here first, and then not there
                    await asyncio.sleep(0.05)
        assert await log_of(here.bus, cold) == before
        (stored,) = await list_artifacts(here.bus, cold)
        assert await read(here.bus, stored) == sound
        assert stored.artifact == rendered.artifact
        assert list((here.settings.data / "fetch").glob("*")) == []

    async def test_nothing_of_an_archived_session_is_on_the_servers_disk(self, here: Installation):
        """Looked for in the raw files."""
        session = await here.session()
        await archive_session(here.bus, open_archive_or_fail(here.settings), session)
        await here.shut()
        assert not holds(here.settings.data, voice(session, ADA))

    async def test_without_s3_nothing_is_lost_and_it_is_told(self, here: Installation, s3: S3):
        """Away while a session leaves: it stays. Away when it is wanted: it waits, says why, and comes when S3 does."""
        staying, leaving = await here.session(), await here.session()
        archive = open_archive_or_fail(here.settings)
        await archive_session(here.bus, archive, leaving)
        s3.stop()
        with pytest.raises(PlaceError, match="s3://recordings"):
            await archive_session(here.bus, archive, staying)
        assert await standing(here.bus, staying) == "here"
        policy = msgspec.structs.replace(here.settings, archive_after="1d")
        assert await sweep(here, policy, 10**18) == []
        with pytest.raises(PlaceError):
            await check_s3(here.settings)
        async with keeping(here):
            with pytest.raises(ArchivedError, match="s3://recordings"):
                await bring_back(here.bus, leaving, patience_s=3.0)
            assert await standing(here.bus, leaving) == "archived"
            async with asyncio.timeout(DEADLINE_S):
                while not (await Lookout(here.bus, None).look(ask_capture=False)).archive_away:
                    await asyncio.sleep(0.05)  # whoever watches is told
            s3.start()
            await bring_back(here.bus, leaving, patience_s=DEADLINE_S)
        assert await standing(here.bus, leaving) == "here"
        await check_s3(here.settings)
        assert not [key for key in s3.contents() if "check" in key]

    async def test_a_damaged_archive_is_told_and_puts_nothing_on_the_server(self, here: Installation, s3: S3):
        """One bit: it does not come back, and what is in the archive is left alone."""
        session = await here.session()
        await archive_session(here.bus, open_archive_or_fail(here.settings), session)
        (key,) = [key for key in s3.contents() if key.endswith(".retold")]
        s3.damage(key)
        before = s3.contents()
        async with keeping(here):
            with pytest.raises(ArchivedError, match="damaged"):
                await bring_back(here.bus, session, patience_s=2.0)
        assert not await session_exists(here.bus, session)
        assert await standing(here.bus, session) == "archived"
        assert s3.contents() == before

    async def test_who_died_in_the_middle_is_taken_up_by_the_next(self, here: Installation):
        """Marked, but the streams not deleted; or half of it put back: the archive counts, and it comes back whole."""
        session = await here.session()
        before = await log_of(here.bus, session)
        archive = open_archive_or_fail(here.settings)
        entry = await find_entry(here.bus, session)
        assert entry is not None
        manifest = await archive.keep(here.bus, entry, with_files=True)
        mark = Archived(unix_ns=1, messages=manifest.messages)
        await change_keeping(here.bus, session, lambda old: msgspec.structs.replace(old, archived=mark))
        assert await standing(here.bus, session) == "archived"
        async with keeping(here):
            await bring_back(here.bus, session, patience_s=DEADLINE_S)
        assert await log_of(here.bus, session) == before

    async def test_what_runs_or_was_deleted_is_not_archived(self, here: Installation):
        """It would come back from there."""
        session = await here.session()
        await withdraw(here.bus, session, by="test", grace_s=60)
        with pytest.raises(NotArchivableError):
            await archive_session(here.bus, open_archive_or_fail(here.settings), session)

    async def test_without_a_keeper_it_is_said(self, here: Installation):
        """Not a timeout, a word."""
        session = await here.session()
        await archive_session(here.bus, open_archive_or_fail(here.settings), session)
        with pytest.raises(ArchivedError, match="keeper"):
            await bring_back(here.bus, session, patience_s=0)


class TestErasure:
    async def test_one_session_and_one_person_are_nowhere_and_everybody_else_is_as_before(
        self, here: Installation, s3: S3, tmp_path: Path
    ):
        """Log, files, archive and backups, in raw bytes; the others' logs are the very same."""
        gone, archived, told, other = [await here.session() for _ in range(4)]
        sound = random.Random(9).randbytes(300_000)
        await put(here.bus, tmp_path / "here", gone, sound)
        (tmp_path / "here" / "a-mix.mp3-300000").unlink()
        backup = Folder(tmp_path / "backup")
        await back_up(here.bus, here.settings, backup, with_files=True)
        await archive_session(here.bus, open_archive_or_fail(here.settings), archived)
        before = await log_of(here.bus, other)
        belas = [message for message in await log_of(here.bus, told) if voice(told, BELA) in message[3]]
        for session in (gone, archived):
            reached = await erase_everywhere(here.bus, session, here.settings)
            assert reached.left == ()
            assert str(tmp_path / "backup") in reached.erased
        await forget_in_session(here.bus, told, ADA, here.settings.data)
        await sweep(here, here.settings, 10**18)  # the keeper has heard of it
        assert await log_of(here.bus, other) == before
        kept = [message for message in await log_of(here.bus, told) if voice(told, BELA) in message[3]]
        assert [message[1:] for message in kept] == [message[1:] for message in belas]
        await here.shut()
        contents = b"".join(s3.contents().values())
        for payload in (sound[:4096], voice(gone, ADA), voice(archived, BELA), voice(told, ADA)):
            assert not holds(tmp_path, payload)
            assert payload not in contents
        assert holds(here.settings.data, voice(told, BELA))
        assert holds(tmp_path / "backup", voice(other, ADA))

    async def test_an_archive_that_was_away_is_cleaned_when_it_is_back(self, here: Installation, s3: S3):
        """What could not be reached is said; the keeper reaches it later."""
        session = await here.session()
        await archive_session(here.bus, open_archive_or_fail(here.settings), session)
        s3.stop()
        reached = await erase_everywhere(here.bus, session, here.settings)
        assert len(reached.left) == 1
        assert await standing(here.bus, session) == "gone"
        s3.start()
        assert [key for key in s3.contents() if session in key]
        await sweep(here, here.settings, 10**18)
        assert [key for key in s3.contents() if session in key] == []
        assert (await ask_nobody(here, session)) == "gone"


async def ask_nobody(here: Installation, session: str) -> str:
    async with keeping(here) as keeper:
        async with asyncio.timeout(DEADLINE_S):
            while not keeper.sweeps:
                await asyncio.sleep(0.02)
        return (await ask_to_fetch(here.bus, session)).state


class Home:
    """As much of capture's place on the disk as forgetting needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.owner = "test"


@pytest.mark.parametrize("deleted", [False, True])
async def test_whoever_wants_to_be_forgotten_is_taken_out_of_the_archive_too(
    here: Installation, s3: S3, *, deleted: bool
):
    """At once, also out of a session that was deleted and can be brought back; no grace delays it."""
    session = await here.session()
    await archive_session(here.bus, open_archive_or_fail(here.settings), session)
    if deleted:
        await withdraw(here.bus, session, by="test", grace_s=3600)
    here.settings.data.joinpath("spool").mkdir()
    forgetter = Forgetter(here.bus, Home(here.settings.data / "spool"), lambda _: False, lambda _: None)  # type: ignore[arg-type]
    async with keeping(here) as keeper, asyncio.timeout(30):
        while not keeper.sweeps:  # it listens since before its first look
            await asyncio.sleep(0.02)
        forgotten = await forgetter.forget("1", ADA)
    assert forgotten.sessions == (session,)
    assert await standing(here.bus, session) == ("deleted" if deleted else "here")
    await here.shut()
    assert not any(voice(session, ADA) in content for content in s3.contents().values())
    assert not holds(here.settings.data, voice(session, ADA))
    assert holds(here.settings.data, voice(session, BELA))
