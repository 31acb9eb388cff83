"""A backup: every session, and what belongs to none, in a vault; written again only where it changed.

First what was erased goes, then sessions come, one after the other, each whole or not at all. Whoever is killed in the
middle leaves a backup that is older in part, and right in all of it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import msgspec

from contracts import wire
from contracts.directory import SessionEntry
from contracts.ids import Snowflake, new_id
from contracts.jetstream.buckets import read_bucket
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.directory import list_stream_sessions, read_directory, rebuild_entry, was_erased
from contracts.jetstream.leases import holding
from contracts.settings import Settings
from contracts.streams import GUILDS_BUCKET, REVOKED_BUCKET, USES_BUCKET
from ops.erasure import prune, writing
from ops.vault.place import Folder, Place
from ops.vault.registry import announce, mark, restoring_folder
from ops.vault.vault import VERSION, DamagedError, ShrunkError, Vault

INSTALLATION: Final = "installation.json"
BUCKETS: Final = (GUILDS_BUCKET, REVOKED_BUCKET, USES_BUCKET)

Told = Callable[[str, float], None]  # which session, and how much of it all is done


class KeyFile(msgspec.Struct, frozen=True):
    """A file of a key; the newest of them signs."""

    name: str
    changed_ns: int
    content: bytes


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """What belongs to no session.

    Attributes
    ----------
    buckets
        Settings of servers, withdrawn links, uses of links: value by key by bucket, as they stand on the bus.
    erased, forgotten
        Sessions, and persons by session: a restore brings none of them back.
    archived
        Entries of sessions that are in the archive, and so not in this backup.
    """

    version: int
    written_unix_ns: int
    buckets: dict[str, dict[str, bytes]]
    erased: tuple[str, ...] = ()
    forgotten: dict[str, tuple[Snowflake, ...]] = {}
    archived: tuple[SessionEntry, ...] = ()
    presets: dict[str, bytes] = {}
    keys: tuple[KeyFile, ...] = ()


class BackedUp(msgspec.Struct, kw_only=True):
    """What a backup did: sessions written anew, left as they were, and taken out; and how large it is, bytes.

    Attributes
    ----------
    damaged
        Sessions of which it has more than the server, and keeps it; a sentence each.
    """

    where: str
    written: int = 0
    unchanged: int = 0
    pruned: int = 0
    archived: int = 0
    bytes: int = 0
    damaged: tuple[str, ...] = ()


_installations = msgspec.json.Decoder(Installation)


async def back_up(
    bus: Bus,
    settings: Settings,
    place: Place,
    *,
    with_files: bool = False,
    with_keys: bool = False,
    told: Told = lambda _session, _done: None,
) -> BackedUp:
    """Bring a backup up to date.

    Parameters
    ----------
    with_files
        Renders, too; without them, what they were made by: they can be made again.
    with_keys
        The keys that sign links, too: then whoever has the backup can open every recording.

    Raises
    ------
    LeaseHeldError
        If another backup is being written there.
    PlaceError, UnavailableError
        If the place or the server does not go on; what is written is right, and the next backup goes on from there.
    """
    identifier = await mark(place)
    await announce(bus, place, identifier)
    # Of a folder the lock tells who writes, so whoever was killed on this machine gives its lease to the next at once.
    owner = f"backup-{socket.gethostname() if isinstance(place, Folder) else new_id()}"
    async with holding(bus, writing(identifier), owner):
        return await _back_up(bus, settings, place, told, with_files=with_files, with_keys=with_keys)


async def _back_up(
    bus: Bus, settings: Settings, place: Place, told: Told, *, with_files: bool, with_keys: bool
) -> BackedUp:
    vault = Vault(place, restoring_folder(settings))
    entries, erased = await _read_directory(bus)
    await place.write(INSTALLATION, _once(await _describe(bus, settings, entries, erased, with_keys=with_keys)))
    pruned = await prune(vault, {entry.session: entry for entry in entries}, erased)
    result = BackedUp(where=place.where, pruned=len(pruned))
    for number, entry in enumerate(entries):
        if entry.keeping.archived is not None:
            result.archived += 1
            continue
        told(entry.session, number / len(entries))
        await _keep(bus, vault, entry, result, with_files=with_files)
    return result


async def _keep(bus: Bus, vault: Vault, entry: SessionEntry, result: BackedUp, *, with_files: bool) -> None:
    began_ns = time.time_ns()
    try:
        manifest = await vault.keep(bus, entry, with_files=with_files)
    except SessionNotFoundError:
        return
    except ShrunkError as error:
        result.damaged += (str(error),)
        return
    finally:
        if await was_erased(bus, entry.session):  # while it was being written
            await vault.erase(entry.session)
    result.bytes += manifest.bytes
    if manifest.written_unix_ns >= began_ns:
        result.written += 1
    else:
        result.unchanged += 1


async def check_backup(place: Place, settings: Settings, *, told: Told = lambda _session, _done: None) -> list[str]:
    """Read a whole backup back; what is wrong with it, a sentence each."""
    vault = Vault(place, restoring_folder(settings))
    problems = []
    try:
        await read_installation(place)
    except DamagedError as error:
        problems.append(str(error))
    sessions = await vault.sessions()
    for number, session in enumerate(sessions):
        told(session, number / len(sessions))
        try:
            if (manifest := await vault.manifest(session)) is not None:
                await vault.verify(manifest)
        except DamagedError as error:
            problems.append(str(error))
    return problems


async def read_installation(place: Place) -> Installation:
    """What belongs to no session.

    Raises
    ------
    NotThereError
        If no backup is there.
    DamagedError
        If it cannot be read.
    """
    data = b"".join([chunk async for chunk in place.read(INSTALLATION)])
    return wire.decode(_installations, data, f"the description of a backup, in {place.where}", error=DamagedError)


async def _read_directory(bus: Bus) -> tuple[list[SessionEntry], set[str]]:
    """Entries and erased ids; a session that the directory lost is rebuilt from its stream."""
    entries, erased = await read_directory(bus)
    known = {entry.session for entry in entries} | erased
    for session in await list_stream_sessions(bus):
        if session not in known and (entry := await rebuild_entry(bus, session)) is not None:
            entries.append(entry)
    return entries, erased


async def _describe(
    bus: Bus, settings: Settings, entries: list[SessionEntry], erased: set[str], *, with_keys: bool
) -> bytes:
    presets = await asyncio.to_thread(_read_files, settings.data / "presets", "*.json")
    keys = await asyncio.to_thread(_read_files, settings.data / "keys", "*/*.pem") if with_keys else []
    return msgspec.json.encode(
        Installation(
            version=VERSION,
            written_unix_ns=time.time_ns(),
            buckets={bucket: await read_bucket(bus, bucket) for bucket in BUCKETS},
            erased=tuple(sorted(erased)),
            forgotten={entry.session: entry.forgotten for entry in entries if entry.forgotten},
            archived=tuple(entry for entry in entries if entry.keeping.archived is not None),
            presets={file.name: file.content for file in presets},
            keys=tuple(keys),
        )
    )


def _read_files(folder: Path, pattern: str) -> list[KeyFile]:
    paths = sorted(folder.glob(pattern))
    return [KeyFile(str(path.relative_to(folder)), path.stat().st_mtime_ns, path.read_bytes()) for path in paths]


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
