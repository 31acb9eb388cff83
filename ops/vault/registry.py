"""Which backups were made of this installation, and where: so that an erasure knows where it has to reach."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from contracts import wire
from contracts.errors import MalformedError, RetoldError
from contracts.ids import new_id
from contracts.jetstream.buckets import read_bucket
from contracts.jetstream.connection import Bus
from contracts.settings import Settings
from contracts.streams import VAULTS_BUCKET
from ops.vault.place import Folder, NotThereError, Place
from ops.vault.s3 import Bucket
from ops.vault.vault import Vault

MARK: Final = "vault.json"
FETCHING: Final = "fetch"  # below RETOLD_DATA: what is on its way back from the archive
RESTORING: Final = "restore"  # ... and from a backup
ARCHIVE: Final = "archive"
BACKUP: Final = "backup"


class Mark(msgspec.Struct, frozen=True):
    """Which vault this is."""

    id: str


class KnownVault(msgspec.Struct, frozen=True, kw_only=True):
    """A vault that holds, or held, sessions of this installation; `where` is a path on `host`, or an s3:// address."""

    id: str
    kind: Literal["folder", "s3"]
    where: str
    host: str
    written_unix_ns: int


_marks = msgspec.json.Decoder(Mark)
_known = msgspec.json.Decoder(KnownVault)


def fetching_folder(settings: Settings) -> Path:
    """Where what comes out of the archive lies on its way to the server; the keeper's alone."""
    return settings.data / FETCHING


def restoring_folder(settings: Settings) -> Path:
    """Where what comes out of a backup does."""
    return settings.data / RESTORING


def open_place(settings: Settings, where: str) -> Folder | Bucket:
    """The place that somebody names: `s3`, or a folder."""
    return Bucket(settings, BACKUP) if where == "s3" else Folder(Path(where).resolve())


def open_archive(settings: Settings) -> Vault | None:
    """The archive; None if the settings name no bucket."""
    return Vault(Bucket(settings, ARCHIVE), fetching_folder(settings)) if settings.s3_bucket else None


async def mark(place: Place) -> str:
    """The id of the vault there; it gets one if it has none."""
    if (found := await read_mark(place)) is not None:
        return found
    made = Mark(new_id())
    await place.write(MARK, _once(msgspec.json.encode(made)))
    return made.id


async def read_mark(place: Place) -> str | None:
    """The id of the vault there, if there is one."""
    try:
        data = b"".join([chunk async for chunk in place.read(MARK)])
    except NotThereError:
        return None
    return wire.decode(_marks, data, "the mark of a vault").id


async def announce(bus: Bus, place: Place, identifier: str) -> None:
    """Remember that a backup was made there."""
    known = KnownVault(
        id=identifier,
        kind="s3" if isinstance(place, Bucket) else "folder",
        where=place.where,
        host=socket.gethostname(),
        written_unix_ns=time.time_ns(),
    )
    await bus.publish(f"$KV.{VAULTS_BUCKET}.{identifier}", msgspec.json.encode(known))


async def known_vaults(bus: Bus) -> list[KnownVault]:
    """Every backup that was made of this installation."""
    found = []
    for data in (await read_bucket(bus, VAULTS_BUCKET)).values():
        try:
            found.append(wire.decode(_known, data, "a known vault"))
        except MalformedError:
            continue
    return sorted(found, key=lambda vault: vault.where)


async def reach(settings: Settings, known: KnownVault) -> Vault | None:
    """A backup, if it can be reached from here and is the one that is meant."""
    place: Folder | Bucket
    if known.kind == "folder":
        path = Path(known.where)
        if not await asyncio.to_thread(path.is_dir):
            return None
        place = Folder(path)
    elif settings.s3_bucket and (place := Bucket(settings, BACKUP)).where == known.where:
        pass
    else:
        return None
    try:
        return Vault(place, restoring_folder(settings)) if await read_mark(place) == known.id else None
    except RetoldError:
        return None


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
