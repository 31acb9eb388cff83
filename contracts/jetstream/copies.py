"""An installation that grew: sessions from before are kept in as many copies as all else is from now on."""

from __future__ import annotations

import structlog

from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus, JetStreamError
from contracts.streams import OBJECT_PREFIX, SESSION_PREFIX

log = structlog.get_logger()


async def copy_sessions(bus: Bus) -> int:
    """Change how many copies there are of every session's log and files, if it is not `bus.replicas`; how many changed.

    The servers make the copies beside everything else. What cannot be changed now is logged, and left for the next
    start.
    """
    changed = 0
    for name in await _names(bus):
        try:
            config = (await bus.api(f"STREAM.INFO.{name}"))["config"]
            if config["num_replicas"] != bus.replicas:
                await bus.api(f"STREAM.UPDATE.{name}", {**config, "num_replicas": bus.replicas})
                changed += 1
        except JetStreamError as error:  # deleted meanwhile, or too few servers
            log.warning("copies_unchanged", stream=name, reason=str(error))
    if changed:
        log.info("copies_changed", streams=changed, copies=bus.replicas)
    return changed


async def try_copying(bus: Bus) -> None:
    """The same, beside a service that does not depend on it."""
    try:
        await copy_sessions(bus)
    except RetoldError as error:
        log.warning("copies_unchanged", reason=str(error))


async def _names(bus: Bus) -> list[str]:
    names: list[str] = []
    while True:
        page = await bus.api("STREAM.NAMES", {"offset": len(names)})
        names += page.get("streams") or []
        if len(names) >= page["total"] or not page.get("streams"):
            return [name for name in names if name.startswith((SESSION_PREFIX, OBJECT_PREFIX))]
