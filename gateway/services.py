"""What the routes work with, wired once and handed to each by the application's state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.datastructures import State

from contracts.errors import SettingsError
from contracts.jetstream.connection import Bus
from contracts.metrics import declared
from contracts.metrics.figures import Reading, connection_readings
from contracts.settings import Settings
from gateway.cache import Cache
from gateway.clients import Client, Network, is_trusted, read_client, read_networks
from gateway.downloads import Places
from gateway.edge import Visit
from gateway.links import KeyRing, LinkGate
from gateway.metrics import Metrics
from gateway.mixes import Mixes
from gateway.signin import SignIn, open_sign_in
from gateway.story import Stories
from gateway.transfers import Transfers

GB: Final = 1_000_000_000
HOUR_S: Final = 3600
Visitor = Request[Any, Any, State]


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What the routes work with.

    Attributes
    ----------
    trusted
        Proxies that may say who the client is.
    """

    bus: Bus
    keys: KeyRing
    gate: LinkGate
    places: Places
    transfers: Transfers
    stories: Stories
    mixes: Mixes
    cache: Cache | None
    metrics: Metrics
    signin: SignIn | None
    trusted: tuple[Network, ...]
    now_s: Callable[[], float]
    public_url: str
    grace_s: float


def open_services(settings: Settings, *, bus: Bus, now_s: Callable[[], float]) -> Services:
    """The parts, wired.

    Raises
    ------
    SettingsError
        If a trusted proxy is no address, or signing in is set up by half.
    """
    try:
        trusted = read_networks(settings.trusted_proxies)
    except ValueError as error:
        raise SettingsError([f"RETOLD_TRUSTED_PROXIES: {error}"]) from error
    keys = KeyRing(settings.data / "keys")
    stories, mixes = Stories(bus), Mixes(bus)
    transfers = Transfers(bus, keys.current)
    transfers.on_closed.append(stories.forget)
    transfers.on_erased.append(mixes.forget)
    transfers.on_changed.append(stories.forget)
    transfers.on_missed.append(stories.forget_all)
    cache = None
    if settings.cache:
        cache = Cache(bus, Path(settings.cache), budget_bytes=round(settings.cache_gb * GB))
        transfers.on_revoked.append(cache.revoke)
        transfers.on_retired.append(cache.retire)
        transfers.on_closed.append(cache.erase)
        transfers.on_missed.append(cache.empty)
        transfers.on_changed.append(cache.erase)  # a person may have been taken out of its files
    metrics = Metrics()
    metrics.figures.read(connection_readings(bus, {"cache": Path(settings.cache)} if settings.cache else {}))
    metrics.figures.read(
        lambda: (
            Reading(declared.TRANSFERS, len(transfers)),
            Reading(declared.MIXES, mixes.under_way),
            Reading(declared.KEYS, len(keys.current())),
        )
    )
    return Services(
        bus=bus,
        keys=keys,
        gate=LinkGate(bus, keys, now_s=now_s),
        places=Places(),
        transfers=transfers,
        stories=stories,
        mixes=mixes,
        cache=cache,
        metrics=metrics,
        signin=open_sign_in(settings, now_s=now_s),
        trusted=trusted,
        now_s=now_s,
        public_url=settings.public_url.rstrip("/"),
        grace_s=settings.grace_hours * HOUR_S,
    )


def services_of(request: Visitor) -> Services:
    """The application's services."""
    services: Services = request.app.state["services"]
    return services


def visit_of(request: Visitor, route: str) -> Visit:
    """What the log will say of this request."""
    visit: Visit = request.scope["state"]["visit"]
    visit.route = route
    return visit


def is_proxied(request: Visitor) -> bool:
    """Whether it came through a proxy that we trust, and that sends files for us."""
    peer = request.client.host if request.client is not None else ""
    return request.headers.get("x-accel") == "on" and is_trusted(peer, services_of(request).trusted)


def client_of(request: Visitor) -> Client:
    """Who sent it."""
    peer = request.client.host if request.client is not None else ""
    return read_client(peer, dict(request.headers), services_of(request).trusted)
