"""Putting a backup's copy of a session in the place of one that is there, and lacks something.

Only if the copy is whole, to the last byte and to what the session's end promised. What is left of the session is on
this machine's disk meanwhile: whatever goes wrong puts it back, and whoever is killed leaves it to the next restore.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
import structlog

from contracts.bundle import BundleReader
from contracts.errors import RetoldError
from contracts.ids import new_id
from contracts.jetstream.connection import Bus
from contracts.jetstream.directory import find_entry, put_entry
from contracts.jetstream.erase import delete_streams
from contracts.jetstream.forget import forget_in_session
from contracts.jetstream.leases import following, holding
from contracts.jetstream.objects import list_artifacts
from contracts.jetstream.streams import session_exists
from contracts.jetstream.transfer import export_session, fill_session
from contracts.recipes import encode_recipe
from contracts.settings import Settings
from ops.backup import read_installation
from ops.restore import BEGUN, LEFT, forgotten_since, remove_left, render_anew, touch
from ops.scrub import Count, read_through
from ops.vault.place import Place
from ops.vault.registry import restoring_folder
from ops.vault.vault import Manifest, Vault

log = structlog.get_logger()


class NotReplacedError(RetoldError):
    """The session stays as it is; the backup has no better."""


async def replace(bus: Bus, settings: Settings, place: Place, session: str) -> tuple[str, ...]:
    """Put the backup's copy of a session in the place of one that lacks something; what that lacked, in words.

    Raises
    ------
    SessionNotFoundError
        If the session is not on the server.
    NotReplacedError
        If it lacks nothing, or still runs, or the backup has no whole copy: nothing was changed.
    LeaseHeldError
        If somebody works on it just now.
    DamagedError, PlaceError, UnavailableError
        If the copy cannot be read, or put on the server: what was there is there again, or comes by the next restore.
    """
    installation = await read_installation(place)
    scratch = restoring_folder(settings)
    await asyncio.to_thread(remove_left, scratch)
    vault = Vault(place, scratch)
    owner = f"replace-{new_id()}"  # nobody records, follows or rewrites it meanwhile
    async with holding(bus, session, owner), holding(bus, following(session), owner):
        ended, missing = await read_through(bus, session)
        known = await find_entry(bus, session)
        if (ended and not missing) or (known is not None and known.ended_unix_ns is None):
            raise NotReplacedError(f"session {session} lacks nothing on the server, or still runs: it stays as it is")
        manifest = await vault.manifest(session)
        if manifest is None or session in installation.erased:
            raise NotReplacedError(f"{place.where} does not hold session {session}: what is on the server stays")
        await _check_whole(vault, manifest)
        made = (stored.artifact.recipe for stored in await list_artifacts(bus, session))
        recipes = {encode_recipe(recipe): recipe for recipe in (*manifest.recipes, *made)}
        await _exchange(bus, vault, manifest, forgotten_since(manifest, installation, known), scratch)
        if known is None:
            await put_entry(bus, manifest.entry)
    await render_anew(bus, msgspec.structs.replace(manifest, files=(), recipes=tuple(recipes.values())))
    log.warning("session_replaced", session=session, where=place.where, missing=missing or "its end")
    return missing or ("its end",)


async def _check_whole(vault: Vault, manifest: Manifest) -> None:
    """Every byte is what was put there, and nothing lacks that the session's end promised."""
    await vault.verify(manifest)
    count = Count()
    async for message in vault.messages(manifest):
        count.add(message.subject, message.data)
    if count.missing or not count.ended:
        lacks = "; ".join(count.missing) or "its end"
        raise NotReplacedError(f"the backup's copy of {manifest.session} lacks something, too ({lacks})")


async def _exchange(bus: Bus, vault: Vault, manifest: Manifest, forgotten: list[str], scratch: Path) -> None:
    """The server's streams for those of the backup; what is left of them is put back if that fails."""
    session = manifest.session
    begun, left = scratch / f"{session}{BEGUN}", scratch / f"{session}{LEFT}"
    await asyncio.to_thread(touch, left)
    with left.open("wb") as file:
        await export_session(bus, session, file)
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())
    await asyncio.to_thread(touch, begun)  # from here on a restore that finds it begins anew
    await delete_streams(bus, session)
    try:
        await vault.bring(bus, manifest, with_files=not forgotten)
        for user_id in forgotten:
            await forget_in_session(bus, session, user_id, scratch)
    except BaseException:
        await delete_streams(bus, session)
        with left.open("rb") as file:
            await fill_session(bus, session, BundleReader(file))
        raise
    finally:
        if await session_exists(bus, session):
            for path in (begun, left):
                await asyncio.to_thread(path.unlink, missing_ok=True)
