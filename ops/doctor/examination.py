"""Every check in its order; one that breaks is a finding, too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from contracts.errors import RetoldError
from ops.doctor.archive import check_archive
from ops.doctor.discord import check_discord
from ops.doctor.finding import Finding, Patient, wrong
from ops.doctor.machine import check_machine
from ops.doctor.nats import check_nats
from ops.doctor.web import check_links

CHECKS: Final[dict[str, Callable[[Patient], Awaitable[list[Finding]]]]] = {
    "machine": check_machine,
    "NATS": check_nats,
    "Discord": check_discord,
    "links": check_links,
    "S3": check_archive,
}


async def examine(patient: Patient) -> list[Finding]:
    """What every check found; they run side by side, and are told in order."""
    parts = await asyncio.gather(*(_run(name, check, patient) for name, check in CHECKS.items()))
    return [finding for part in parts for finding in part]


async def _run(name: str, check: Callable[[Patient], Awaitable[list[Finding]]], patient: Patient) -> list[Finding]:
    try:
        return await check(patient)
    except RetoldError as error:
        return [wrong(name, str(error), "mend that, and ask again")]
