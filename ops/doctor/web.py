"""Links: whether the address that they carry leads to this installation's gateway, and whether others can use it."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

import httpx

from contracts.keys import KeyFileError, installation_name, load_public_keys
from ops.doctor.finding import Finding, Patient, fine, note, skipped, wrong

TIMEOUT_S: Final = 10.0
GATEWAY: Final = "retold gateway, or docker compose up --detach gateway"


async def check_links(patient: Patient) -> list[Finding]:
    """The gateway behind RETOLD_PUBLIC_URL, and the keys that links are signed with."""
    settings = patient.settings
    try:
        name = installation_name(load_public_keys(settings.data / "keys"))
    except KeyFileError as error:
        return [
            wrong("keys", str(error), "retold keys rotate makes one; or set RETOLD_DATA to the folder that has them")
        ]
    return [fine("keys", f"installation {name}"), await _check_gateway(settings.public_url, name)]


async def _check_gateway(public_url: str, name: str) -> Finding:
    url = f"{public_url.rstrip('/')}/health/live"
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            answer = await client.get(url)
            told = answer.json() if answer.is_success else {}
    except (httpx.HTTPError, ValueError) as error:
        remedy = f"{GATEWAY}; set RETOLD_PUBLIC_URL to the address at which people reach it (DNS, proxy, certificate)"
        return wrong("links", f"{url} does not answer: {error!r}", remedy)
    found = told.get("installation") if isinstance(told, dict) else None
    if found is None:
        remedy = "set RETOLD_PUBLIC_URL to this installation's gateway, or let the proxy there lead to it"
        return wrong("links", f"{url} answers {answer.status_code}, and is no gateway of Retold's", remedy)
    if found != name:
        remedy = "set RETOLD_PUBLIC_URL to this installation's address, or RETOLD_DATA to the folder of that one's keys"
        return wrong("links", f"{url} is installation {found}, and this is {name}: it opens no link of ours", remedy)
    return await _check_reach(public_url)


async def _check_reach(public_url: str) -> Finding:
    """It is ours; but an address of this machine or network is nobody else's."""
    host = urlsplit(public_url).hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return skipped("links", f"{host} is not known to this machine: {error}")
    addresses = {ipaddress.ip_address(address[4][0]) for address in found}
    if any(address.is_loopback for address in addresses):
        remedy = "set RETOLD_PUBLIC_URL to a public address; ops/deploy/nginx/retold.conf goes in front"
        return note("links", f"{public_url} opens on this machine only", remedy)
    if all(address.is_private for address in addresses):
        return note(
            "links", f"{public_url} opens inside this network only", "set RETOLD_PUBLIC_URL to a public address"
        )
    if public_url.startswith("http:"):
        return note("links", f"{public_url} opens, in the clear", "let nginx end TLS: ops/deploy/nginx/retold.conf")
    return fine("links", f"{public_url} leads here")
