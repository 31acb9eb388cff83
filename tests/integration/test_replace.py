"""A session whose log has rotted is put back from a backup, to the same bytes; whatever fails, one copy is there."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from contracts.directory import SessionEntry
from contracts.errors import UnavailableError
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.directory import get_entry
from contracts.jetstream.erase import delete_streams
from contracts.jetstream.forget import forget_in_session
from contracts.jetstream.keeping import pin
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.streams import ensure_shared
from contracts.recipes import Recipe
from contracts.settings import Settings
from contracts.streams import session_stream_name
from ops.backup import back_up, check_backup
from ops.embedded import EmbeddedServer
from ops.replace import NotReplacedError, replace
from ops.restore import restore
from ops.scrub import read_through
from ops.vault.place import Folder
from ops.vault.registry import restoring_folder
from ops.vault.vault import Vault
from tests.builders import Built, build_session
from tests.integration.test_jetstream_sessions import log_of
from tests.integration.test_mixer_worker import mixing, order, publish
from tests.integration.test_scrub import flip
from tests.processes import RETOLD, environ

pytestmark = pytest.mark.long

ADA = "100000"  # the builder's first person
DEADLINE_S = 60.0


class Rotten:
    """A session that was backed up, and has lost a part since."""

    def __init__(self, server: EmbeddedServer, bus: Bus, settings: Settings, place: Folder, built: Built) -> None:
        self.server, self.bus, self.settings, self.place, self.built = server, bus, settings, place, built
        self.session = built.session
        self.log: list[tuple[str, str, bytes]] = []

    async def rot(self, *, hard: bool = False) -> None:
        """A bit flips while the server is down; it starts again, and leaves out what does not match.

        One that was killed finds its place by reading: for it, what stands behind that never was.
        """
        await self.bus.close()
        await (self.server.kill() if hard else self.server.stop())
        blocks = [path for path in self.server.store.rglob("*.blk") if session_stream_name(self.session) in path.parts]
        flip(max(blocks, key=lambda path: path.stat().st_size))
        await self.server.start()
        self.bus = await connect(self.server.url, name="test")

    async def replace(self) -> tuple[str, ...]:
        return await replace(self.bus, self.settings, self.place, self.session)

    async def whole(self) -> bool:
        """Whether the server has it, and nothing lies about."""
        assert list(restoring_folder(self.settings).glob("*")) == []
        return await read_through(self.bus, self.session) == (True, ()) and await log_of(self.bus, self.session) == (
            self.log
        )


@pytest.fixture
async def rotten(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rotten]:
    async with EmbeddedServer(tmp_path / "nats") as server:
        bus = await connect(server.url, name="test")
        await ensure_shared(bus)
        built = build_session(20.0, 2, activity=0.5, seed=6)
        await publish(bus, built)
        settings = Settings(data=tmp_path, nats_url=server.url)
        each = Rotten(server, bus, settings, Folder(tmp_path / "backup"), built)
        each.log = await log_of(bus, each.session)
        await back_up(bus, settings, each.place)
        await each.rot(hard=getattr(request, "param", False))
        yield each
        await each.bus.close()


@pytest.mark.parametrize("rotten", [False, True], ids=["stopped", "killed"], indirect=True)
async def test_what_has_rotted_is_put_back_and_makes_the_same_bytes(rotten: Rotten):
    """The next backup does not overwrite what it has; then log, entry and files are what they were."""
    async with mixing(rotten.server):
        before = await get_entry(rotten.bus, rotten.session)
        ended, missing = await read_through(rotten.bus, rotten.session)
        assert missing or not ended
        done = await back_up(rotten.bus, rotten.settings, rotten.place)
        assert done.written == 0
        assert all(f"retold restore WHERE --replace {rotten.session}" in said for said in done.damaged)
        assert len(done.damaged) == (not ended)
        assert await check_backup(rotten.place, rotten.settings) == []
        assert await rotten.replace() == (missing or ("its end",))
        assert await rotten.whole()
        assert await get_entry(rotten.bus, rotten.session) == before
        assert (await back_up(rotten.bus, rotten.settings, rotten.place)).damaged == ()


async def test_files_made_of_the_rest_are_made_anew(rotten: Rotten, tmp_path: Path):
    """To the same bytes as of a session that never rotted."""
    recipe = Recipe(output="tracks", format="flac")
    twin = build_session(20.0, 2, activity=0.5, seed=6)
    async with EmbeddedServer(tmp_path / "other") as other:
        bus = await connect(other.url, name="test")
        await ensure_shared(bus)
        await publish(bus, twin)
        async with mixing(other):
            await order(bus, twin.session, recipe)
            wanted = await digests(bus, twin.session)
        await bus.close()
    async with mixing(rotten.server):
        await order(rotten.bus, rotten.session, recipe)
        assert await digests(rotten.bus, rotten.session) != wanted
        await rotten.replace()
        async with asyncio.timeout(DEADLINE_S):
            while await digests(rotten.bus, rotten.session) != wanted:
                await asyncio.sleep(0.1)


async def digests(bus: Bus, session: str) -> list[str]:
    return sorted(stored.artifact.sha256 for stored in await list_artifacts(bus, session))


async def test_only_what_is_damaged_is_replaced_and_only_by_what_is_whole(rotten: Rotten):
    """Each refusal leaves what is there, and says why."""
    empty = Folder(Path(rotten.place.where).parent / "empty")
    (log,) = [path for path in Path(rotten.place.where).rglob("*.retold") if path.parent.name == rotten.session]
    there = await log_of(rotten.bus, rotten.session)
    content = log.read_bytes()
    flip(log)
    with pytest.raises(Exception, match="damaged: it is not what was put there"):
        await rotten.replace()
    log.write_bytes(content)
    await back_up(rotten.bus, rotten.settings, empty)  # it never had more than that
    with pytest.raises(NotReplacedError, match="lacks something, too"):
        await replace(rotten.bus, rotten.settings, empty, rotten.session)
    assert await log_of(rotten.bus, rotten.session) == there
    await rotten.replace()
    with pytest.raises(NotReplacedError, match="lacks nothing"):
        await rotten.replace()
    assert await rotten.whole()


async def test_a_server_that_fails_in_the_middle_keeps_what_it_had(rotten: Rotten, monkeypatch: pytest.MonkeyPatch):
    """The rest of the session is put back; the next try mends it."""
    there = await log_of(rotten.bus, rotten.session)

    async def fail(*_arguments: object, **_more: object) -> None:
        raise UnavailableError("the server went away")

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "bring", fail)
        with pytest.raises(UnavailableError, match="went away"):
            await rotten.replace()
    assert [said for _, *said in await log_of(rotten.bus, rotten.session)] == [said for _, *said in there]
    assert len((await back_up(rotten.bus, rotten.settings, rotten.place)).damaged) == 1, "the backup keeps what it has"
    await rotten.replace()
    assert await rotten.whole()


async def test_who_is_killed_in_the_middle_leaves_it_to_the_next_restore(
    rotten: Rotten, monkeypatch: pytest.MonkeyPatch
):
    """Between the one copy and the other: neither is on the server, both are on disk, and a restore brings it back."""

    async def die(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Vault, "bring", die)
        patch.setattr("ops.replace.fill_session", die)
        with pytest.raises(KeyboardInterrupt):
            await rotten.replace()
    assert {path.suffix for path in restoring_folder(rotten.settings).iterdir()} == {".restoring", ".left"}
    assert (await restore(rotten.bus, rotten.settings, rotten.place)).restored == 1
    assert await rotten.whole()


async def test_who_was_taken_out_since_does_not_come_back(rotten: Rotten, tmp_path: Path):
    """Neither does what was pinned lose its pin."""
    await rotten.replace()
    await forget_in_session(rotten.bus, rotten.session, ADA, tmp_path)
    await pin(rotten.bus, rotten.session)
    forgotten = await log_of(rotten.bus, rotten.session)
    await rotten.rot()
    await rotten.replace()
    assert await read_through(rotten.bus, rotten.session) == (True, ())
    entry: SessionEntry = await get_entry(rotten.bus, rotten.session)
    assert entry.forgotten == (ADA,)
    assert entry.keeping.pinned
    assert len(await log_of(rotten.bus, rotten.session)) == len(forgotten)


async def test_the_command_says_what_it_did(rotten: Rotten, tmp_path: Path):
    """With the words of the alert; a second time it refuses."""
    command = [*RETOLD, "restore", str(Path(rotten.place.where)), "--replace", rotten.session]
    settings = environ(tmp_path, RETOLD_DATA=str(tmp_path), RETOLD_NATS_URL=rotten.server.url)

    async def said() -> tuple[int, str]:
        done = await asyncio.to_thread(subprocess.run, command, env=settings, capture_output=True, text=True)
        return done.returncode, done.stderr

    code, told = await said()
    assert code == 0, told
    assert f"{rotten.session} is whole again" in told
    code, told = await said()
    assert (code, "lacks nothing" in told) == (1, True)
    await delete_streams(rotten.bus, rotten.session)
    code, told = await said()
    assert code == 1
    assert "retold restore" in told or "no session" in told
