"""Webhooks: what happened, told to one address, signed and told again until it was heard.

The form is that of Standard Webhooks 1.0 (standardwebhooks.com): `webhook-id` is the same at every try, the signature
is over id, time and body, so whoever listens can tell ours from others', and knows what was told before.

    session.ended    a recording is over
    session.going    it will be deleted, by age or for want of space, unless somebody keeps it
    render.stored    files are there
    render.failed    ... or cannot be made

The address is resolved, judged, and that very address connected to: a name that points to this machine or to a private
network, now or at the second look, is refused unless the operator allows it. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from collections import OrderedDict
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import h11
import msgspec
import structlog

from contracts.artifacts import RenderFailed, RenderStored, decode_render_fact
from contracts.directory import Keeping, SessionEntry, decode_entry
from contracts.errors import MalformedError, RetoldError, SettingsError
from contracts.jetstream.connection import Bus
from contracts.jetstream.notices import ENTRIES, RESULTS, tell_all
from contracts.settings import Settings

log = structlog.get_logger()

TIMEOUT_S: Final = 10.0
TOLD_KEPT: Final = 4096
ENDED_LATELY_NS: Final = 3600 * 1_000_000_000
PORTS: Final = {"https": 443, "http": 80}


class ForbiddenAddressError(RetoldError):
    """The webhook's address leads to a private network; set RETOLD_WEBHOOK_PRIVATE=true if that is meant."""


class Webhooks:
    """Tells one address.

    Parameters
    ----------
    url
        Where to.
    secret
        Shared with whoever listens.
    private
        Whether private addresses are allowed.
    """

    def __init__(self, url: str, secret: str, *, private: bool) -> None:
        self._url = urlsplit(url)
        self._secret = secret.encode()
        self._private = private
        self._told: OrderedDict[str, None] = OrderedDict()

    async def run(self, bus: Bus) -> None:
        """Tell what happens from now on, until cancelled."""
        await asyncio.gather(tell_all(bus, ENTRIES, self.tell_entry), tell_all(bus, RESULTS, self.tell_result))

    async def tell_entry(self, data: bytes) -> bool:
        """A session's entry was written: tell if it has ended, or is about to go, each once."""
        try:
            entry = decode_entry(data) if data else None
        except MalformedError:
            return True
        if entry is None or entry.ended_unix_ns is None or entry.deleted:
            return True
        if entry.keeping.going_unix_ns is not None:
            return await self._tell_going(entry, entry.keeping.going_unix_ns)
        if entry.keeping != Keeping() and time.time_ns() - entry.ended_unix_ns > ENDED_LATELY_NS:
            return True  # it was pinned, or archived: its end was told long ago
        facts = {
            "session": entry.session,
            "name": entry.name,
            "guild_id": entry.guild_id,
            "channel_id": entry.channel_id,
            "duration_s": (entry.duration_ns or 0) / 1e9,
            "cause": entry.cause,
        }
        return await self._tell(f"{entry.session}.{entry.ended_unix_ns}", "session.ended", entry.ended_unix_ns, facts)

    async def _tell_going(self, entry: SessionEntry, going_ns: int) -> bool:
        facts = {
            "session": entry.session,
            "name": entry.name,
            "guild_id": entry.guild_id,
            "channel_id": entry.channel_id,
            "deleted_after": datetime.fromtimestamp(going_ns / 1e9, UTC).isoformat(),
            "why": entry.keeping.going_why,
        }
        return await self._tell(f"{entry.session}.{going_ns}.going", "session.going", time.time_ns(), facts)

    async def tell_result(self, data: bytes) -> bool:
        """A render told something: tell on if it is its end."""
        try:
            fact = decode_render_fact(data)
        except MalformedError:
            return True
        common = {"session": fact.session, "job": fact.job}
        match fact:
            case RenderStored():
                files = [
                    {"name": a.name, "filename": a.filename, "bytes": a.bytes, "sha256": a.sha256}
                    for a in fact.artifacts
                ]
                return await self._tell(f"{fact.job}.stored", "render.stored", fact.unix_ns, common | {"files": files})
            case RenderFailed(retrying=False):
                failed = common | {"reason": fact.reason}
                return await self._tell(f"{fact.job}.failed", "render.failed", fact.unix_ns, failed)
            case _:
                return True

    async def _tell(self, identifier: str, kind: str, unix_ns: int, facts: dict[str, Any]) -> bool:
        if identifier in self._told:
            return True
        moment = datetime.fromtimestamp(unix_ns / 1e9, UTC).isoformat()
        body = msgspec.json.encode({"type": kind, "timestamp": moment, "data": facts})
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await self._post(body, self._sign(identifier, body, int(time.time())))
        except (OSError, TimeoutError, RetoldError, h11.RemoteProtocolError) as error:
            log.warning("webhook_failed", id=identifier, kind=kind, why=str(error) or type(error).__name__)
            return False
        heard = 200 <= status < 300  # noqa: PLR2004  # successful (RFC 9110 §15.3)
        log.info("webhook_told", id=identifier, kind=kind, status=status, heard=heard)
        if heard:
            self._told[identifier] = None
            while len(self._told) > TOLD_KEPT:
                self._told.popitem(last=False)
        return heard

    def _sign(self, identifier: str, body: bytes, now_s: int) -> dict[str, str]:
        signed = f"{identifier}.{now_s}.".encode() + body
        signature = base64.b64encode(hmac.digest(self._secret, signed, hashlib.sha256)).decode()
        return {"webhook-id": identifier, "webhook-timestamp": str(now_s), "webhook-signature": f"v1,{signature}"}

    async def _post(self, body: bytes, signature: dict[str, str]) -> int:
        """The status that came back."""
        host, port = self._url.hostname or "", self._url.port or PORTS[self._url.scheme]
        address = await _resolve(host, port, private=self._private)
        context = ssl.create_default_context() if self._url.scheme == "https" else None
        reader, writer = await asyncio.open_connection(
            address, port, ssl=context, server_hostname=host if context else None
        )
        try:
            connection = h11.Connection(h11.CLIENT)
            headers = {
                "Host": self._url.netloc.rpartition("@")[2],
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "User-Agent": "Retold",
                "Connection": "close",
                **signature,
            }
            request = h11.Request(method="POST", target=_target(self._url), headers=list(headers.items()))
            for event in (request, h11.Data(data=body), h11.EndOfMessage()):
                writer.write(connection.send(event) or b"")
            return await _read_status(connection, reader)
        finally:
            writer.close()


def open_webhooks(settings: Settings) -> Webhooks:
    """As the settings say.

    Raises
    ------
    SettingsError
        If there is no secret to sign with.
    """
    if not settings.webhook_secret:
        raise SettingsError(["RETOLD_WEBHOOK_SECRET: required with RETOLD_WEBHOOK_URL, and not set"])
    return Webhooks(settings.webhook_url, settings.webhook_secret, private=settings.webhook_private)


async def _resolve(host: str, port: int, *, private: bool) -> str:
    """One address of a host that may be told.

    Raises
    ------
    ForbiddenAddressError
        If any of its addresses is private and that is not allowed: the next look could give that one.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port)
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    if not private and not all(is_public(address) for address in addresses):
        raise ForbiddenAddressError
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an address is one of the internet at large; an IPv4 address inside an IPv6 one counts as itself."""
    parsed = ip_address(address.partition("%")[0])
    inside = getattr(parsed, "ipv4_mapped", None) or getattr(parsed, "sixtofour", None)
    return (inside or parsed).is_global and not (inside or parsed).is_multicast


def _target(url: SplitResult) -> str:
    return (url.path or "/") + (f"?{url.query}" if url.query else "")


async def _read_status(connection: h11.Connection, reader: asyncio.StreamReader) -> int:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(4096))
        elif isinstance(event, h11.Response):
            return int(event.status_code)
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionError("closed without an answer")
