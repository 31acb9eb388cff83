"""Erasing a session everywhere: log, renders, archive, and the backups of it; what cannot be reached is said.

Whoever erases marks the session in the directory first. From then on nothing brings it back, and the keeper goes on
with whatever is left, at every look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

import msgspec
import structlog

from contracts.directory import SessionEntry
from contracts.errors import RetoldError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import find_entry, list_stream_sessions, was_erased
from contracts.jetstream.erase import delete_session, delete_streams
from contracts.jetstream.leases import LeaseHeldError, holding
from contracts.settings import Settings
from ops.vault.registry import KnownVault, known_vaults, open_archive, reach
from ops.vault.vault import Vault

log = structlog.get_logger()


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """How far an erasure came.

    Attributes
    ----------
    erased
        Where it was, and is not any more.
    left
        Where it may still be, each a sentence that says until when.
    """

    erased: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


async def erase_everywhere(bus: Bus, session: str, settings: Settings) -> Reached:
    """Erase a session now, wherever it can be reached from here.

    Raises
    ------
    UnavailableError
        If the server is away; nothing is marked then, or the keeper goes on.
    """
    entry = await find_entry(bus, session)
    erased = ["the server"] if await delete_session(bus, session) else []
    left = []
    archive = open_archive(settings)
    if archive is None and entry is not None and entry.keeping.archived is not None:
        left.append("It was in the archive, which is not known here (RETOLD_S3_*); the keeper erases it there.")
    if archive is not None:
        try:
            erased += [archive.place.where] if await archive.erase(session) else []
        except RetoldError as error:
            left.append(f"The archive cannot be reached ({error}); the keeper erases it there as soon as it can be.")
    for known in await known_vaults(bus):
        vault = await reach(settings, known)
        try:
            if vault is None:
                left.append(_say_left(known))
            elif await vault.erase(session):
                erased.append(known.where)
        except RetoldError:
            left.append(_say_left(known))
    return Reached(erased=tuple(erased), left=tuple(left))


def _say_left(known: KnownVault) -> str:
    when = datetime.fromtimestamp(known.written_unix_ns / 1e9, UTC).strftime("%Y-%m-%d")
    where = known.where if known.kind == "s3" else f"{known.where} on {known.host}"
    return f"The backup in {where}, last written {when}, cannot be reached: the next `retold backup` there erases it."


async def finish_erasures(bus: Bus, erased: Collection[str]) -> list[str]:
    """Streams of sessions that are marked as erased are deleted: whoever began died on the way. Which those were."""
    done = []
    for session in sorted(set(await list_stream_sessions(bus)) & set(erased)):
        if await was_erased(bus, session):  # still: it may be brought in again, on purpose
            await delete_streams(bus, session)
            log.warning("erasure_finished", session=session)
            done.append(session)
    return done


async def prune(vault: Vault, entries: Mapping[str, SessionEntry], erased: Collection[str]) -> list[str]:
    """Take out of a backup what was erased, and sessions that somebody was taken out of since; which those were.

    What the directory does not know stays: a server that lost everything has no say over its backup.
    """
    gone = []
    for session in await vault.touched():
        if session in erased or await _holds_forgotten(vault, entries.get(session)):
            await vault.erase(session)
            gone.append(session)
            log.info("vault_pruned", session=session, where=vault.place.where)
        await asyncio.sleep(0)
    return gone


async def _holds_forgotten(vault: Vault, entry: SessionEntry | None) -> bool:
    if entry is None or not entry.forgotten:
        return False
    manifest = await vault.manifest(entry.session)
    return manifest is not None and not set(entry.forgotten) <= set(manifest.entry.forgotten)


async def prune_all(bus: Bus, settings: Settings, entries: Mapping[str, SessionEntry], erased: Collection[str]) -> None:
    """The same in every backup that can be reached, but for one that is being written: it does so itself."""
    for known in await known_vaults(bus):
        vault = await reach(settings, known)
        if vault is not None:
            with contextlib.suppress(LeaseHeldError):
                async with holding(bus, writing(known.id), f"prune-{new_id()}"):
                    await prune(vault, entries, erased)


def writing(vault: str) -> str:
    """The lease of whoever writes to a vault."""
    return f"vault-{vault}"
