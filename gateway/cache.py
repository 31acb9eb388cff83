"""Files on disk for nginx to send, so that what is asked for again costs this process nothing (X-Accel-Redirect).

    <folder>/<session>/<object id>      whole, its digest checked; `.part` while it is fetched

An object is fetched when it is asked for a second time: most are downloaded once. Of all together no more than a budget
is kept, or than the disk takes; what was not asked for longest goes first. At the start whatever an earlier process
left is thrown away.

nginx does not ask again while it sends. So what ends a link also empties the files it was given: truncated, not only
unlinked, they end every transfer from them at once. Whoever else was reading resumes, and is checked anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

import structlog

from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus
from contracts.jetstream.objects import StoredArtifact, read_artifact

log = structlog.get_logger()

ASKED_BEFORE: Final = 1024  # objects whose first request is remembered
FETCHING_AT_ONCE: Final = 2
READABLE: Final = 0o755  # nginx runs as another user


class Cache:
    """The files, what they were given for, and their purge.

    Parameters
    ----------
    folder
        Nothing else may be in it.
    budget_bytes
        Of all files together.
    """

    def __init__(self, bus: Bus, folder: Path, *, budget_bytes: int) -> None:
        self._bus = bus
        self._folder = folder
        self._budget_bytes = budget_bytes
        self._files: OrderedDict[str, int] = OrderedDict()  # relative path to size, least recently asked for first
        self._given: dict[str, set[tuple[str, str]]] = {}  # relative path to the (jti, kid) it was given for
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(FETCHING_AT_ONCE)

    def open(self) -> None:
        """Begin with an empty folder; the folder itself stays, since it may be a volume."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=READABLE)
        for left in self._folder.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()

    async def close(self) -> None:
        """Fetch no more; nobody is told of files any longer, so they go."""
        fetching = list(self._fetching.values())
        self.empty()
        await asyncio.gather(*fetching, return_exceptions=True)

    def empty(self) -> None:
        """Let go of everything: what it was given for may have ended unheard. Whoever was reading resumes."""
        for task in self._fetching.values():
            task.cancel()
        for name in list(self._files):
            self._drop(name)

    def find(self, stored: StoredArtifact, *, jti: str, kid: str) -> str | None:
        """The object's path below the folder, if it is there whole; if not, it may be fetched for the next time."""
        name = f"{stored.artifact.session}/{stored.nuid}"
        if name in self._files:
            self._files.move_to_end(name)
            self._given.setdefault(name, set()).add((jti, kid))
            return name
        if stored.size > self._budget_bytes or name in self._fetching:
            return None
        if name in self._asked:
            task = self._fetching[name] = asyncio.create_task(self._fetch(name, stored))
            task.add_done_callback(lambda _: self._fetching.pop(name, None))
        self._asked[name] = None
        while len(self._asked) > ASKED_BEFORE:
            self._asked.popitem(last=False)
        return None

    def revoke(self, jti: str) -> None:
        """The link is withdrawn: empty what it was given."""
        self._drop_given(lambda given: given[0] == jti)

    def retire(self, kid: str) -> None:
        """The key is retired."""
        self._drop_given(lambda given: given[1] == kid)

    def erase(self, session: str) -> None:
        """The session is erased."""
        for name, task in self._fetching.items():
            if name.startswith(f"{session}/"):
                task.cancel()
        for name in [name for name in self._files if name.startswith(f"{session}/")]:
            self._drop(name)
        shutil.rmtree(self._folder / session, ignore_errors=True)

    def _drop_given(self, ended: Callable[[tuple[str, str]], bool]) -> None:
        for name in [name for name, given in self._given.items() if any(ended(one) for one in given)]:
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._files.pop(name, None)
        self._given.pop(name, None)
        path = self._folder / name
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, 0)
            path.unlink()

    async def _fetch(self, name: str, stored: StoredArtifact) -> None:
        path = self._folder / name
        part = path.with_suffix(".part")
        async with self._places:
            try:
                await self._write(part, stored)
                os.utime(part, (stored.modified_unix_s, stored.modified_unix_s))
                part.rename(path)
            except (RetoldError, OSError) as error:
                log.warning("cache_not_filled", session=stored.artifact.session, why=str(error))
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    self._shrink(sum(self._files.values()) - stored.size)  # it may be fetched the next time
                return
            finally:
                part.unlink(missing_ok=True)
        self._files[name] = stored.size
        self._shrink(self._budget_bytes)

    def _shrink(self, most_bytes: int) -> None:
        """Let the oldest go until all together are no more than that."""
        while self._files and sum(self._files.values()) > most_bytes:
            self._drop(next(iter(self._files)))

    async def _write(self, part: Path, stored: StoredArtifact) -> None:
        part.parent.mkdir(mode=READABLE, exist_ok=True)
        digest = hashlib.sha256()
        with part.open("wb") as file:
            async with aclosing(read_artifact(self._bus, stored)) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
                    await asyncio.to_thread(file.write, chunk)
        if digest.hexdigest() != stored.sha256:
            raise RetoldError("the object is not the one its digest says")
