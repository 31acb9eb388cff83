"""RETOLD_NATS_URL: the address of a server, or those of a cluster with commas between."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit, urlunsplit


def servers_of(url: str) -> list[str]:
    """Each address."""
    return [each.strip() for each in url.split(",")]


def credentials_of(url: str) -> tuple[str | None, str | None]:
    """User and password of the first address: they hold for servers, too, that only another server named."""
    parts = urlsplit(servers_of(url)[0])
    if parts.password is None:
        return None, None
    return unquote(parts.username or ""), unquote(parts.password)


def without_password(url: str) -> str:
    """The addresses without the credentials that may stand in them."""
    every = (urlsplit(each) for each in servers_of(url))
    return ",".join(urlunsplit(each._replace(netloc=each.netloc.rpartition("@")[2])) for each in every)
