"""Who may have what: a link is checked on every request, by public keys alone.

    token   signature, type, audience, times, lengths (contracts.tokens) -> 403, 410 if expired
    action  the route's own                                              -> 403
    jti     not revoked                                                  -> 410
    session still there, or in the archive and back in time              -> 410, 503
    uses    one left, or this client has one                             -> 410
    object  the token's own, still there                                 -> 404

A download link names its object in the token, never in the path. A page link names none: it allows every artifact of
its session, below its own address, because the page must offer downloads and the gateway has no key to sign links with
(ADR 0002).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from contracts.errors import RetoldError, UnavailableError
from contracts.jetstream.connection import Bus
from contracts.jetstream.keeping import Standing as WhereItIs
from contracts.jetstream.keeping import bring_back, standing
from contracts.jetstream.objects import StoredArtifact, find_artifact
from contracts.jetstream.revoked import is_revoked
from contracts.jetstream.uses import Standing, look_up, take_use
from contracts.keys import KeyFileError, PublicKeys, load_public_keys
from contracts.links import Action, LinkClaims, LinkError, Permission, verify_link
from contracts.tokens import signer_of
from gateway import problems
from gateway.clients import Client
from gateway.problems import Problem, ProblemError

log = structlog.get_logger()

FETCH_S: Final = 5.0  # so long a request waits for its session to come back from the archive

LINK_PROBLEMS: Final[dict[str, Problem]] = {
    "expired": problems.LINK_EXPIRED,
    "not_yet": problems.LINK_NOT_YET,
    "invalid": problems.LINK_INVALID,
}


class KeyRing:
    """The public keys in a directory, read again whenever a file in it changes.

    A file that cannot be read does not take the other keys away; a file that is gone takes its key with it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen: dict[str, tuple[int, int]] = {}
        self._keys: PublicKeys = {}

    def current(self) -> PublicKeys:
        """The keys by `kid`; empty if there are none."""
        files = self._look()
        if files != self._seen:
            self._seen = files
            self._reload()
        return self._keys

    def _look(self) -> dict[str, tuple[int, int]]:
        files = {}
        for path in (self._directory / "public").glob("*.pem"):
            with contextlib.suppress(FileNotFoundError):  # retired between the listing and now
                status = path.stat()
                files[path.name] = (status.st_mtime_ns, status.st_size)
        return files

    def _reload(self) -> None:
        try:
            self._keys = load_public_keys(self._directory)
        except KeyFileError as error:
            self._keys = {kid: key for kid, key in self._keys.items() if f"{kid}.pem" in self._seen}
            log.warning("public_keys_unreadable", why=str(error), kept=sorted(self._keys))
        else:
            log.info("public_keys_loaded", kids=sorted(self._keys))


class LandingError(RetoldError):
    """The link can be opened only so often: whoever follows it is asked first, so that no program spends it."""


class PreviewError(RetoldError):
    """A program only wants to show what is behind the link."""


class Opened(msgspec.Struct, frozen=True):
    """A link that holds, the key that it holds by, and whether its session had to be brought back first."""

    claims: LinkClaims
    kid: str
    fetched: bool = False

    def require(self, permission: Permission) -> None:
        """ProblemError unless the link allows it."""
        if permission not in self.claims.may:
            raise ProblemError(problems.NOT_PERMITTED)


class LinkGate:
    """Checks links against the keys, the revocations and the store.

    Parameters
    ----------
    bus
        The control connection.
    now_s
        The clock, Unix seconds.
    """

    def __init__(self, bus: Bus, keys: KeyRing, *, now_s: Callable[[], float]) -> None:
        self._bus = bus
        self._keys = keys
        self._now_s = now_s

    async def open_page(self, token: str) -> Opened:
        """A page link.

        Raises
        ------
        ProblemError
            If the link opens no page.
        """
        return await self._open(token, "page")

    async def open_deleted(self, token: str) -> Opened:
        """A page link that may bring back its session, which was deleted; ProblemError otherwise."""
        Opened(self._verify(token), "").require("delete")
        return await self._open(token, "page", deleted=True)

    async def open_file(self, token: str, filename: str) -> tuple[Opened, StoredArtifact]:
        """A download link and its artifact, asked for at once; ProblemError if it is none, or not there."""
        claims = self._verify(token)
        finding = asyncio.ensure_future(self.find_file(claims.ses, claims.obj, filename))
        try:
            opened = await self._open(token, "download")
            if opened.fetched:
                return opened, await self.find_file(claims.ses, claims.obj, filename)
            return opened, await finding
        finally:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)

    async def open_list(self, token: str) -> Opened:
        """A link to a list of sessions; ProblemError if it is none."""
        return await self._open(token, "list")

    async def use(self, opened: Opened, client: Client, *, entering: bool, method: str = "GET") -> None:
        """Count a use of a link whose uses are limited.

        Parameters
        ----------
        entering
            Somebody opens it in a browser, and has not said yet that it shall be opened.

        Raises
        ------
        LandingError
            If a use is left, and first to be asked for.
        ProblemError
            If none is left.
        """
        claims = opened.claims
        if claims.uses is None:
            return
        jti, limit, now_s = claims.jti, claims.uses, int(self._now_s())
        digest = client.digest(jti)
        if method == "HEAD" or entering:
            standing = await look_up(self._bus, jti, client=digest, limit=limit, now_s=now_s)
            if standing is Standing.FREE and method != "HEAD":
                raise LandingError
            allowed = standing is not Standing.USED_UP
        else:
            allowed = await take_use(self._bus, jti, client=digest, limit=limit, now_s=now_s)
        if not allowed:
            raise ProblemError(problems.LINK_USED_UP)

    async def find_file(self, session: str, name: str, filename: str) -> StoredArtifact:
        """A session's artifact by its object name, if `filename` is what it is called.

        Raises
        ------
        ProblemError
            If it is not there, or the path calls it by another file's name.
        """
        stored = await find_artifact(self._bus, session, name)
        if stored is None:
            raise ProblemError(problems.FILE_NOT_FOUND)
        if filename not in {stored.artifact.filename, stored.artifact.name}:
            raise ProblemError(problems.WRONG_FILE)
        return stored

    async def _open(self, token: str, action: Action, *, deleted: bool = False) -> Opened:
        claims = self._verify(token)
        if claims.act != action:
            raise ProblemError(problems.WRONG_ACTION)
        if bool(claims.obj) != (action != "page"):
            raise ProblemError(problems.LINK_INVALID)
        if not self._bus.connected:  # at once, rather than after a request's timeout
            raise UnavailableError
        revoked, where = await asyncio.gather(is_revoked(self._bus, claims.jti), self._stands(claims))
        if revoked:
            raise ProblemError(problems.LINK_REVOKED)
        if where == "archived":
            await bring_back(self._bus, claims.ses, patience_s=FETCH_S, hope_s=0)
        elif where != ("deleted" if deleted else "here"):
            raise ProblemError(problems.SESSION_GONE)
        return Opened(claims, signer_of(token), fetched=where == "archived")

    async def _stands(self, claims: LinkClaims) -> WhereItIs:
        return "here" if claims.act == "list" else await standing(self._bus, claims.ses)

    def _verify(self, token: str) -> LinkClaims:
        try:
            return verify_link(token, self._keys.current(), now_s=int(self._now_s()))
        except LinkError as error:
            raise ProblemError(LINK_PROBLEMS.get(error.code, problems.LINK_INVALID)) from error
