"""What most commands start with: the settings, and a connection that is closed again."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator

from contracts.jetstream.connection import Bus, connect
from contracts.jetstream.server import Server
from contracts.log import configure
from contracts.settings import Settings
from ops.running import find_settings


@contextlib.asynccontextmanager
async def session_bus() -> AsyncIterator[tuple[Settings, Bus]]:
    """Settings and a bus to the installation they, or the machine, name.

    Raises
    ------
    UnavailableError
        If it does not run.
    """
    settings = find_settings(os.environ)
    configure("error", service="cli", stream=sys.stderr)
    bus = await connect(Server.of(settings, "operator"), name="cli")
    try:
        yield settings, bus
    finally:
        await bus.close()
