"""Capture's composition root: settings to running parts."""

from __future__ import annotations

import asyncio

from capture.figures import capture_figures
from capture.home import Home
from capture.shards import Shards
from capture.switchboard import serve_switchboard
from contracts import subjects
from contracts.errors import RetoldError
from contracts.health import keep_beating
from contracts.ids import new_id
from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.copies import try_copying
from contracts.jetstream.server import Server
from contracts.jetstream.signing import serve_signing
from contracts.jetstream.streams import ensure_shared
from contracts.keys import load_signing_key
from contracts.metrics.endpoint import serve_metrics
from contracts.service import hands_over
from contracts.settings import Settings
from contracts.streams import DIRECTORY_BUCKET, LEASES_BUCKET


async def run(settings: Settings, *, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then end every recording in order; or leave each to the next capture, if it says so.

    Raises
    ------
    UnavailableError
        If NATS is away, or Discord cannot be reached at the start.
    LoginError
        If Discord does not accept the token.
    HomeTakenError
        If another capture runs with this RETOLD_DATA.
    PermissionDeniedError
        If NATS refuses what capture needs.
    """
    load_signing_key(settings.data / "keys")  # made now if there is none: the gateway waits for its public half
    home = Home(settings.data)
    try:
        await _run(settings, home, stop)
    finally:
        home.close()


async def _run(settings: Settings, home: Home, stop: asyncio.Event) -> None:
    bus = await connect(Server.of(settings, "capture"), name="capture")
    shards = Shards(bus, settings, home)
    try:
        await ensure_shared(bus)
        await _check_permissions(bus)
        await serve_signing(bus, settings.data / "keys")
        await serve_switchboard(bus, settings.shards)
        async with (
            serve_metrics(capture_figures(settings, bus, shards.present), settings),
            asyncio.TaskGroup() as tasks,
        ):
            others = [
                tasks.create_task(shards.run()),
                tasks.create_task(keep_beating(settings.data, "capture", lambda: shards.is_well)),
            ]
            if settings.nats_replicas:
                others.append(tasks.create_task(try_copying(bus)))
            await stop.wait()
            await shards.close(hand_over=hands_over(stop))
            for task in others:
                task.cancel()
    except* RetoldError as group:
        raise group.exceptions[0] from None
    finally:
        await shards.close()
        await bus.close()


async def _check_permissions(bus: Bus) -> None:
    probe = new_id()  # of no session
    await bus.check_permissions(
        writes=(
            subjects.facts(probe),
            subjects.packets(probe, 1, 1),
            f"$KV.{LEASES_BUCKET}.{probe}",
            f"$KV.{DIRECTORY_BUCKET}.{probe}",
        )
    )
