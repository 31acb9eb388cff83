"""Restoring a backup: what is not on the server is put there; what was erased, here or in the backup, never is.

What must not come back comes first: withdrawn links, erased sessions, settings of servers with everybody's choices.
Then sessions, each whole or not at all; whoever is killed begins again, and what is there is left alone.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec

from contracts.artifacts import RenderJob, job_id
from contracts.directory import SessionEntry
from contracts.errors import MalformedError
from contracts.jetstream.buckets import fill_bucket
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import change_keeping, find_entry, put_entry, remove_entry, was_erased
from contracts.jetstream.erase import delete_streams
from contracts.jetstream.forget import forget_in_session
from contracts.jetstream.jobs import submit_job
from contracts.jetstream.streams import ensure_shared, session_exists
from contracts.settings import Settings
from ops.backup import BUCKETS, Installation, KeyFile, Told, read_installation
from ops.vault.place import Place
from ops.vault.registry import restoring_folder
from ops.vault.vault import DamagedError, Manifest, Vault

RESTORED_BY: Final = "restore"
BEGUN: Final = ".restoring"
LEFT: Final = ".left"  # of a session that is being replaced


class Restored(msgspec.Struct, kw_only=True):
    """What a restore did.

    Attributes
    ----------
    restored
        Sessions that are there again.
    there
        Those that were there, and were left alone.
    erased
        Those that were erased, and stay so.
    forgotten
        Those from which a person was taken out on the way.
    archived
        Those that are in the archive, where they were.
    damaged
        What could not be restored, a sentence each.
    settings, keys
        Settings and withdrawn links, and files of keys, that were put back.
    """

    restored: int = 0
    there: int = 0
    erased: int = 0
    forgotten: int = 0
    archived: int = 0
    damaged: tuple[str, ...] = ()
    settings: int = 0
    keys: int = 0


async def restore(bus: Bus, settings: Settings, place: Place, *, told: Told = lambda _session, _done: None) -> Restored:
    """Put a backup on the server.

    Raises
    ------
    NotThereError
        If no backup is there.
    DamagedError
        If what it says about the installation cannot be read.
    PlaceError, UnavailableError
        If the place or the server does not go on; a second restore does.
    """
    await ensure_shared(bus)
    installation = await read_installation(place)
    result = Restored()
    for bucket in BUCKETS:
        result.settings += await fill_bucket(bus, bucket, installation.buckets.get(bucket, {}))
    for session in installation.erased:
        if await find_entry(bus, session) is None and not await session_exists(bus, session):
            await remove_entry(bus, session)
    result.keys = await asyncio.to_thread(_write_files, settings.data, installation)
    for entry in installation.archived:
        if await find_entry(bus, entry.session) is None and not await was_erased(bus, entry.session):
            await put_entry(bus, entry)
            result.archived += 1
    await asyncio.to_thread(remove_left, restoring_folder(settings))
    vault = Vault(place, restoring_folder(settings))
    sessions = await vault.sessions()
    for number, session in enumerate(sessions):
        told(session, number / len(sessions))
        try:
            await _restore(bus, vault, session, installation, restoring_folder(settings), result)
        except MalformedError as error:  # of the vault or of a bundle: the others are restored all the same
            result.damaged += (str(error),)
    return result


async def _restore(
    bus: Bus, vault: Vault, session: str, installation: Installation, scratch: Path, result: Restored
) -> None:
    if session in installation.erased or await was_erased(bus, session):
        result.erased += 1
        return
    known = await find_entry(bus, session)
    begun = scratch / f"{session}{BEGUN}"
    if await asyncio.to_thread(begun.exists):
        await asyncio.to_thread((scratch / f"{session}{LEFT}").unlink, missing_ok=True)
        await delete_streams(bus, session)  # half of an earlier restore
    elif await session_exists(bus, session) or (known is not None and known.keeping.archived is not None):
        result.there += 1
        return
    manifest = await vault.manifest(session)
    if manifest is None:
        return
    await asyncio.to_thread(touch, begun)
    forgotten = forgotten_since(manifest, installation, known)
    await vault.bring(bus, manifest, with_files=not forgotten)
    for user_id in forgotten:  # after this copy was made; nobody could see the session yet
        await forget_in_session(bus, session, user_id, scratch)
    if await find_entry(bus, session) is None:
        await put_entry(bus, manifest.entry)
    await change_keeping(bus, session, lambda _keeping: manifest.entry.keeping)
    await asyncio.to_thread(begun.unlink)
    if forgotten:
        result.forgotten += 1
    await render_anew(bus, manifest)
    result.restored += 1


def forgotten_since(manifest: Manifest, installation: Installation, known: SessionEntry | None) -> list[str]:
    """Who has to be taken out of a copy."""
    later = {*installation.forgotten.get(manifest.session, ()), *(known.forgotten if known else ())}
    return sorted(later - {*manifest.entry.forgotten})


def remove_left(scratch: Path) -> None:
    """What was left of sessions, where the exchange itself had not begun when somebody was killed."""
    for left in scratch.glob(f"*{LEFT}"):
        if not left.with_suffix(BEGUN).exists():
            left.unlink()


def touch(path: Path) -> None:
    """Make a file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch()


async def render_anew(bus: Bus, manifest: Manifest) -> None:
    """What was made once is made again, unless it came along."""
    if manifest.files or manifest.entry.ended_unix_ns is None or manifest.entry.deleted:
        return
    for recipe in manifest.recipes:
        job = RenderJob(
            id=job_id(manifest.session, recipe), session=manifest.session, recipe=recipe, requested_by=RESTORED_BY
        )
        await submit_job(bus, job)


def _write_files(data: Path, installation: Installation) -> int:
    """Presets and keys that are not there; how many keys."""
    for name, content in installation.presets.items():
        _write(data / "presets", KeyFile(name, 0, content))
    return sum(_write(data / "keys", key) for key in installation.keys)


def _write(folder: Path, file: KeyFile) -> bool:
    path = folder / file.name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DamagedError(f"the backup holds a file that belongs nowhere: {file.name[:80]!r}")
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = 0o644 if path.parent.name == "public" else 0o600
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
        out.write(file.content)
    if file.changed_ns:
        os.utime(path, ns=(file.changed_ns, file.changed_ns))
    return True
