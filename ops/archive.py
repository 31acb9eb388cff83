"""The archive: sessions that left the server for S3-compatible storage, and come back when somebody wants them.

    on the server --written, read back, compared--> marked as archived --> streams deleted
    archived      --read, compared, put back------> mark taken away    --> taken out of the archive

The mark in the directory says which copy counts: with it the archive's, without it the server's. What the other side
still holds was left by somebody who died, and goes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec
import structlog

from contracts.directory import Archived, Keeping, SessionEntry
from contracts.errors import RetoldError, SettingsError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.directory import change_keeping, find_entry, look_up
from contracts.jetstream.erase import delete_streams
from contracts.jetstream.leases import LeaseHeldError, following, holding
from contracts.jetstream.replay import last_sequence
from contracts.settings import Settings
from ops.vault.registry import open_archive
from ops.vault.vault import Vault

log = structlog.get_logger()

VERIFY_SHARE: Final = 0.5


class NotArchivableError(RetoldError):
    """The session is still being recorded, or was deleted; only sessions that are over and kept go to the archive."""


def open_archive_or_fail(settings: Settings) -> Vault:
    """The archive; SettingsError if the settings name no bucket."""
    archive = open_archive(settings)
    if archive is None:
        raise SettingsError(["RETOLD_S3_BUCKET: required for the archive, and not set"])
    return archive


async def archive_session(
    bus: Bus, archive: Vault, session: str, *, progress: Callable[[float], None] = lambda _done: None
) -> SessionEntry:
    """Move a session to the archive; its entry. Whatever fails, it is whole on the server or whole in the archive.

    Raises
    ------
    SessionNotFoundError
        If there is none.
    NotArchivableError
        If it is not over, or was deleted.
    LeaseHeldError
        If somebody works on it just now.
    PlaceError, DamagedError
        If the archive is away, or did not give back what it was given: the session stays where it is.
    """
    entry = await find_entry(bus, session)
    if entry is None:
        raise SessionNotFoundError(f"there is no session {session[:40]}; `retold sessions ls` lists them")
    if entry.keeping.archived is not None:
        await delete_streams(bus, session)
        return entry
    if entry.ended_unix_ns is None or entry.deleted:
        raise NotArchivableError
    owner = f"archive-{new_id()}"  # nobody records, follows or rewrites it meanwhile
    async with holding(bus, session, owner), holding(bus, following(session), owner):
        manifest = await archive.keep(bus, entry, with_files=True, progress=lambda part: progress(part * VERIFY_SHARE))
        await archive.verify(manifest, progress=lambda part: progress(1 - (1 - part) * VERIFY_SHARE))
        if await last_sequence(bus, session) != manifest.last:
            raise NotArchivableError
        archived = Archived(
            unix_ns=time.time_ns(), messages=manifest.messages, files=len(manifest.files), bytes=manifest.bytes
        )

        def mark(keeping: Keeping) -> Keeping:
            return keeping if keeping.deleted_unix_ns else msgspec.structs.replace(keeping, archived=archived)

        marked = await change_keeping(bus, session, mark)
        if marked is None or marked.keeping.archived is None:  # deleted meanwhile
            await archive.erase(session)
            raise NotArchivableError
        await _delete_if(bus, session, archived)
    log.info("session_archived", session=session, bytes=manifest.bytes, files=len(manifest.files))
    return marked


async def _delete_if(bus: Bus, session: str, archived: Archived) -> None:
    """Delete the server's copy, if that mark still stands: a process that was stopped for long may come too late."""
    now = await find_entry(bus, session)
    if now is None or now.keeping.archived == archived:
        await delete_streams(bus, session)


async def fetch_session(
    bus: Bus, archive: Vault, session: str, *, progress: Callable[[float], None] = lambda _done: None
) -> None:
    """Bring a session back from the archive; nothing is done if it is not there.

    Raises
    ------
    SessionNotFoundError
        If the archive, which should have it, does not.
    LeaseHeldError
        If somebody works on it just now.
    PlaceError, DamagedError, UnavailableError
        If it cannot be read, or put on the server: it stays in the archive.
    """
    async with holding(bus, session, f"fetch-{new_id()}"):  # nobody archives it anew before its copy there is gone
        await _fetch(bus, archive, session, progress)


async def _fetch(bus: Bus, archive: Vault, session: str, progress: Callable[[float], None]) -> None:
    entry = await find_entry(bus, session)
    if entry is None or entry.keeping.archived is None:
        return
    manifest = await archive.manifest(session)
    if manifest is None:
        raise SessionNotFoundError(f"{archive.place.where} does not hold session {session}, which was archived there")
    await delete_streams(bus, session)  # half of an earlier try
    await archive.bring(bus, manifest, progress=progress)

    def unmark(keeping: Keeping) -> Keeping:
        return msgspec.structs.replace(keeping, archived=None, fetched_unix_ns=time.time_ns())

    unmarked = await change_keeping(bus, session, unmark)
    if unmarked is None:  # erased meanwhile
        await delete_streams(bus, session)
    if (now := await find_entry(bus, session)) is None or now.keeping.archived is None:  # as in `_delete_if`
        with contextlib.suppress(RetoldError):  # what is left there goes at the keeper's next look
            await archive.erase(session)
    log.info("session_fetched", session=session, bytes=manifest.bytes)


async def tidy_archive(
    bus: Bus, archive: Vault, entries: Mapping[str, SessionEntry], erased: Collection[str]
) -> list[str]:
    """Take out of the archive what the directory says is not there: erased, or back on the server. Which those were.

    What the directory does not know stays. Raises PlaceError if the archive is away.
    """
    gone = []
    for session in await archive.touched():
        entry = entries.get(session)
        if session not in erased and (entry is None or entry.keeping.archived is not None):
            continue
        with contextlib.suppress(LeaseHeldError):  # it is on its way there
            async with holding(bus, session, f"tidy-{new_id()}"):
                now, was_erased = await look_up(bus, session)
                if was_erased or (now is not None and now.keeping.archived is None):
                    await archive.erase(session)
                    gone.append(session)
    return gone
