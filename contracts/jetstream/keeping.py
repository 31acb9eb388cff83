"""Keeping sessions: pin them, delete them so that it can be undone, and bring them back from the archive.

kept --delete--> deleted --grace--> erased        a deleted session is seen and opened by nobody, at once
  ^                 |
  +----undelete-----+
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from contracts.directory import Keeping, SessionEntry
from contracts.errors import UnavailableError
from contracts.jetstream.connection import Bus, SessionNotFoundError
from contracts.jetstream.directory import change_keeping, find_entry, look_up, rebuild_entry
from contracts.jetstream.erase import delete_session
from contracts.jetstream.streams import session_exists
from contracts.keeping import FETCH, Fetching, FetchSession, decode_fetching

ASK_TIMEOUT_S: Final = 5.0
ASK_EVERY_S: Final = 0.3
PATIENCE_S: Final = 3600.0

Standing: TypeAlias = Literal["here", "archived", "deleted", "gone"]


class ArchivedError(UnavailableError):
    """The session is in the archive, and not back yet; ask again in a moment."""

    def __init__(self, fetching: Fetching) -> None:
        self.fetching = fetching
        super().__init__(fetching.reason or None)


async def standing(bus: Bus, session: str) -> Standing:
    """Where a session is: on the server, in the archive, deleted so that it can be brought back, or nowhere."""
    (entry, erased), exists = await asyncio.gather(look_up(bus, session), session_exists(bus, session))
    if erased:
        return "gone"
    if entry is not None and entry.deleted:
        return "deleted"
    if entry is not None and entry.keeping.archived is not None:
        return "archived"
    return "here" if exists else "gone"


async def pin(bus: Bus, session: str) -> SessionEntry:
    """Keep a session whatever age and space say; SessionNotFoundError if there is none."""
    return await _change(
        bus,
        session,
        lambda keeping: msgspec.structs.replace(keeping, pinned=True, going_unix_ns=None, going_why="", told=False),
    )


async def unpin(bus: Bus, session: str) -> SessionEntry:
    """Let age and space decide again; SessionNotFoundError if there is none."""
    return await _change(bus, session, lambda keeping: msgspec.structs.replace(keeping, pinned=False))


async def withdraw(bus: Bus, session: str, *, by: str, grace_s: float) -> None:
    """Delete a session: nobody sees or opens it any more; after the grace it is erased. Without grace, now.

    Parameters
    ----------
    by
        Who, for the record: `user:<id>`, `operator`, `age`, ...

    Raises
    ------
    SessionNotFoundError
        If there is none.
    """
    if grace_s <= 0:
        await delete_session(bus, session)
        return
    now_ns = time.time_ns()

    def delete(keeping: Keeping) -> Keeping:
        if keeping.deleted_unix_ns is not None:
            return keeping
        return msgspec.structs.replace(keeping, deleted_unix_ns=now_ns, deleted_by=by)

    await _change(bus, session, delete)


async def undelete(bus: Bus, session: str) -> SessionEntry:
    """Bring a deleted session back, as it was; SessionNotFoundError if there is none, or it is erased already.

    It does not go again by itself at once: whoever undoes a deletion by age is told anew.
    """

    def restore(keeping: Keeping) -> Keeping:
        return msgspec.structs.replace(
            keeping, deleted_unix_ns=None, deleted_by="", going_unix_ns=None, going_why="", told=False
        )

    return await _change(bus, session, restore)


async def _change(bus: Bus, session: str, edit: Callable[[Keeping], Keeping]) -> SessionEntry:
    entry = await change_keeping(bus, session, edit)
    if entry is None and await standing(bus, session) == "here":  # the directory had lost it
        await rebuild_entry(bus, session)
        entry = await change_keeping(bus, session, edit)
    if entry is None:
        raise SessionNotFoundError(f"there is no session {session[:40]}; `retold sessions ls` lists them")
    return entry


async def ask_to_fetch(bus: Bus, session: str) -> Fetching:
    """Have a session brought back from the archive, and how that goes.

    Raises
    ------
    UnavailableError
        If no keeper runs.
    """
    request = msgspec.json.encode(FetchSession(session=session))
    return decode_fetching(await bus.request(FETCH, request, timeout_s=ASK_TIMEOUT_S))


async def bring_back(
    bus: Bus,
    session: str,
    *,
    progress: Callable[[float], None] = lambda _fraction: None,
    patience_s: float = PATIENCE_S,
    hope_s: float = PATIENCE_S,
) -> None:
    """Return when a session is on the server, at once if it is not archived.

    Parameters
    ----------
    progress
        Called with the fraction that is back, 0 to 1.
    patience_s, hope_s
        How long to wait for it; and how long while it is not on its way, for want of the archive or of a keeper.

    Raises
    ------
    ArchivedError
        If it is not back in that time; it says why, and how far it is.
    SessionNotFoundError
        If it is nowhere.
    """
    entry = await find_entry(bus, session)
    if entry is None or entry.keeping.archived is None:
        return
    began_s = time.monotonic()
    while (fetching := await _ask_patiently(bus, session)).state != "here":
        if fetching.state == "gone":
            raise SessionNotFoundError(f"there is no session {session[:40]}; `retold sessions ls` lists them")
        progress(fetching.fraction)
        if time.monotonic() - began_s >= (min(hope_s, patience_s) if fetching.state == "waiting" else patience_s):
            raise ArchivedError(fetching)
        await asyncio.sleep(ASK_EVERY_S)


async def _ask_patiently(bus: Bus, session: str) -> Fetching:
    """As `ask_to_fetch`; without a keeper it waits for one."""
    try:
        return await ask_to_fetch(bus, session)
    except UnavailableError:
        return Fetching(state="waiting", reason="it is in the archive, and no `retold keeper` runs that could fetch it")
