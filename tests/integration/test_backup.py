"""A backup holds everything, is written only where something changed, and brings back nothing that was erased."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts.events import encode_fact
from contracts.jetstream.directory import find_entry, get_entry, list_entries, was_erased
from contracts.jetstream.erase import delete_session
from contracts.jetstream.forget import forget_in_session
from contracts.jetstream.guilds import change_guild, get_guild
from contracts.jetstream.keeping import pin, withdraw
from contracts.jetstream.objects import find_artifact
from contracts.jetstream.replay import last_sequence
from contracts.jetstream.revoked import is_revoked, revoke
from contracts.keys import load_signing_key
from contracts.presets import load_preset, save_preset
from contracts.recipes import Recipe
from contracts.subjects import facts
from ops.backup import back_up, check_backup
from ops.erasure import erase_everywhere
from ops.restore import restore
from ops.vault.place import Folder, PlaceError
from tests.installation import ADA, BELA, Installation, holds, installed, voice
from tests.integration.test_jetstream_objects import put, read
from tests.integration.test_jetstream_sessions import log_of, started


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installed(tmp_path / "here") as each:
        yield each


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Installation]:
    """Another machine, with nothing on it."""
    async with installed(tmp_path / "there") as each:
        yield each


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "backup")


async def test_everything_comes_back_on_another_machine(
    here: Installation, there: Installation, place: Folder, tmp_path: Path
):
    """Logs message for message, files byte for byte, pins, settings of servers, withdrawn links, presets, keys."""
    first, second = await here.session(), await here.session()
    rendered = await put(here.bus, tmp_path, first, random.Random(3).randbytes(400_000))
    await pin(here.bus, second)
    await change_guild(here.bus, "1", lambda old: msgspec.structs.replace(old, consent="opt-in", opted_in=(ADA,)))
    await revoke(here.bus, "withdrawn")
    save_preset("mine", Recipe(format="flac"), here.settings.data)
    key = load_signing_key(here.settings.data / "keys")
    done = await back_up(here.bus, here.settings, place, with_files=True, with_keys=True)
    assert (done.written, done.unchanged) == (2, 0)
    assert await check_backup(place, here.settings) == []
    back = await restore(there.bus, there.settings, place)
    assert (back.restored, back.damaged) == (2, ())
    for session in (first, second):
        assert await log_of(there.bus, session) == await log_of(here.bus, session)
        assert await get_entry(there.bus, session) == await get_entry(here.bus, session)
    stored = await find_artifact(there.bus, first, rendered.artifact.name)
    assert stored is not None
    assert await read(there.bus, stored) == await read(here.bus, rendered)
    assert await get_guild(there.bus, "1") == await get_guild(here.bus, "1")
    assert await is_revoked(there.bus, "withdrawn")
    assert load_preset("mine", there.settings.data).format == "flac"
    assert load_signing_key(there.settings.data / "keys").kid == key.kid
    again = await restore(there.bus, there.settings, place)
    assert (again.restored, again.there) == (0, 2)


async def test_what_did_not_change_is_not_written_again(here: Installation, place: Folder, tmp_path: Path):
    """A second backup writes nothing of a session; a pin rewrites the manifest alone; a longer log the log alone."""
    session, other = await here.session(), await here.session()
    await back_up(here.bus, here.settings, place)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "backup" / "sessions").rglob("*.*")}
    assert (await back_up(here.bus, here.settings, place)).unchanged == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "backup" / "sessions").rglob("*.*")} == before
    await pin(here.bus, session)
    done = await back_up(here.bus, here.settings, place)
    assert (done.written, done.unchanged) == (1, 1)
    changed = [path.name for path, then in before.items() if path.stat().st_mtime_ns != then]
    assert changed == ["session.json"]
    await here.bus.publish(facts(other), encode_fact(started(other)), message_id="late")
    await back_up(here.bus, here.settings, place)
    assert len([path for path in before if not path.exists()]) == 1  # the shorter log
    assert await check_backup(place, here.settings) == []


async def test_a_restore_brings_back_neither_sessions_nor_people_that_were_erased(
    here: Installation, there: Installation, place: Folder, tmp_path: Path
):
    """Erased before the last backup, after it, or on the machine that is restored to: no payload comes back."""
    early, late, kept = await here.session(), await here.session(), await here.session()
    await back_up(here.bus, here.settings, place)
    await delete_session(here.bus, early)
    await forget_in_session(here.bus, kept, ADA, tmp_path)
    done = await back_up(here.bus, here.settings, place)
    assert done.pruned == 2
    assert sorted(await list_sessions_in(place)) == sorted([late, kept])
    await delete_session(there.bus, late)  # whoever is restored to knows better
    back = await restore(there.bus, there.settings, place)
    assert (back.restored, back.erased) == (1, 1)
    assert await was_erased(there.bus, early)
    assert [entry.session for entry in await list_entries(there.bus)] == [kept]
    assert await log_of(there.bus, kept) == await log_of(here.bus, kept)
    await there.shut()
    assert not holds(there.settings.data, voice(kept, ADA))
    assert holds(there.settings.data, voice(kept, BELA))


async def list_sessions_in(place: Folder) -> list[str]:
    return [name.split("/")[1] for name in await place.list("sessions") if name.endswith("session.json")]


async def test_who_was_forgotten_after_a_copy_was_made_is_taken_out_of_it_on_the_way(
    here: Installation, there: Installation, place: Folder, tmp_path: Path
):
    """A backup that was killed before it came to the session knows of the forgetting, and holds the old copy."""
    session = await here.session()
    await back_up(here.bus, here.settings, place)
    saved = {path: path.read_bytes() for path in (tmp_path / "backup" / "sessions").rglob("*.*")}
    await forget_in_session(here.bus, session, ADA, tmp_path)
    await back_up(here.bus, here.settings, place)
    for path in (tmp_path / "backup" / "sessions").rglob("*.*"):
        path.unlink()
    for path, content in saved.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    back = await restore(there.bus, there.settings, place)
    assert (back.restored, back.forgotten) == (1, 1)
    entry = await get_entry(there.bus, session)
    assert entry is not None
    assert entry.forgotten == (ADA,)
    await there.shut()
    assert not holds(there.settings.data, voice(session, ADA))
    assert holds(there.settings.data, voice(session, BELA))


async def test_a_deleted_session_is_restored_as_deleted(here: Installation, there: Installation, place: Folder):
    """Its grace goes on where it was."""
    session = await here.session()
    await withdraw(here.bus, session, by="operator", grace_s=60)
    await back_up(here.bus, here.settings, place)
    await restore(there.bus, there.settings, place)
    assert await get_entry(there.bus, session) is None
    assert await find_entry(there.bus, session) == await find_entry(here.bus, session)


@pytest.mark.parametrize("broken", ["log", "manifest", "cut short", "missing"])
async def test_what_is_damaged_is_told_and_the_rest_restored(
    here: Installation, there: Installation, place: Folder, tmp_path: Path, broken: str
):
    """Nothing of a damaged session is put on the server; the check names it, and the next backup mends it."""
    bad, good = await here.session(), await here.session()
    await back_up(here.bus, here.settings, place)
    (log,) = (tmp_path / "backup" / "sessions" / bad).glob("*.retold")
    match broken:
        case "manifest":
            log.with_name("session.json").write_bytes(b"{}")
        case "missing":
            log.unlink()
        case "cut short":
            os.truncate(log, log.stat().st_size // 2)
        case _:
            content = bytearray(log.read_bytes())
            content[len(content) // 2] ^= 1
            log.write_bytes(content)
    problems = await check_backup(place, here.settings)
    assert len(problems) == 1
    assert bad in problems[0]
    back = await restore(there.bus, there.settings, place)
    assert (back.restored, len(back.damaged)) == (1, 1)
    assert [entry.session for entry in await list_entries(there.bus)] == [good]
    if broken != "log":  # sizes alone are compared by a backup; the check reads every byte
        await back_up(here.bus, here.settings, place)
        assert await check_backup(place, here.settings) == []


BACKUP = "import sys; from ops.cli.main import main; sys.exit(main(sys.argv[1:]))"


async def test_a_backup_that_is_killed_anywhere_is_whole_after_the_next(
    here: Installation, there: Installation, place: Folder, tmp_path: Path
):
    """Killed by -9 again and again while it writes: what is there is right, nothing half-written stays."""
    sessions = [await here.session(batches=60) for _ in range(3)]
    environ = {**os.environ, "RETOLD_DATA": str(here.settings.data), "RETOLD_NATS_URL": here.settings.nats_url}
    chance = random.Random(7)
    for wanted in (3, 6):  # files that are there when it is killed: vault, installation, then two of each session
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BACKUP, "backup", str(tmp_path / "backup")),
            env=environ,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(30):
            while len(list((tmp_path / "backup").rglob("*.*"))) < wanted and process.returncode is None:
                await asyncio.sleep(0.001)
        await asyncio.sleep(chance.uniform(0, 0.01))
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        if (tmp_path / "backup" / "installation.json").exists():
            assert await check_backup(place, here.settings) == []
    with place.alone():
        done = await back_up(here.bus, here.settings, place)
    assert done.written + done.unchanged == len(sessions)
    assert list((tmp_path / "backup").rglob(".*.part")) == []
    assert await check_backup(place, here.settings) == []
    assert (await restore(there.bus, there.settings, place)).restored == len(sessions)
    for session in sessions:
        assert await last_sequence(there.bus, session) == await last_sequence(here.bus, session)


async def test_a_full_disk_ends_a_backup_with_a_word_and_harms_nothing(
    here: Installation, place: Folder, tmp_path: Path
):
    """The limit of the file size stands for the disk; what was there before is there still."""
    session = await here.session()
    await back_up(here.bus, here.settings, place)
    big = await here.session(batches=150)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        with pytest.raises(PlaceError, match="full"):
            await back_up(here.bus, here.settings, place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert list((tmp_path / "backup").rglob(".*.part")) == []
    assert await list_sessions_in(place) == [session]
    assert await check_backup(place, here.settings) == []
    await back_up(here.bus, here.settings, place)
    assert await list_sessions_in(place) == sorted([session, big])


async def test_two_backups_to_one_folder_at_once_are_refused(place: Folder):
    """The second says why."""
    with place.alone(), pytest.raises(PlaceError, match="another process"), place.alone():
        pass


async def test_an_erasure_reaches_backups_and_says_what_it_cannot_reach(here: Installation, tmp_path: Path):
    """One that is mounted is cleaned; of one that is not, it is said until when it may hold the session."""
    session, other = await here.session(), await here.session()
    near, far = Folder(tmp_path / "near"), Folder(tmp_path / "far")
    for each in (near, far):
        await back_up(here.bus, here.settings, each)
    (tmp_path / "far").rename(tmp_path / "unplugged")
    reached = await erase_everywhere(here.bus, session, here.settings)
    assert reached.erased == ("the server", str(tmp_path / "near"))
    assert len(reached.left) == 1
    assert str(tmp_path / "far") in reached.left[0]
    assert await list_sessions_in(near) == [other]
    (tmp_path / "unplugged").rename(tmp_path / "far")
    await back_up(here.bus, here.settings, far)
    assert await list_sessions_in(far) == [other]
