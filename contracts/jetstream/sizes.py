"""How much of the server's disk each session takes."""

from __future__ import annotations

from collections import Counter

from contracts.jetstream.connection import Bus
from contracts.streams import OBJECT_PREFIX, SESSION_PREFIX


async def session_bytes(bus: Bus) -> Counter[str]:
    """Bytes of log and files by session, as the server counts them; sessions that are not here take none.

    Raises
    ------
    UnavailableError
        If the server does not answer.
    """
    sizes: Counter[str] = Counter()
    seen = 0
    while True:
        page = await bus.api("STREAM.LIST", {"offset": seen})
        streams = page.get("streams") or []
        for stream in streams:
            name = stream["config"]["name"]
            for prefix in (SESSION_PREFIX, OBJECT_PREFIX):
                if name.startswith(prefix):
                    sizes[name.removeprefix(prefix)] += stream["state"]["bytes"]
        seen += len(streams)
        if not streams or seen >= page["total"]:
            return sizes
