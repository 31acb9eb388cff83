"""A nats-server whose disk was full is started again as soon as there is room: nothing else makes it go on.

A stream whose message the disk did not take is frozen (nats-server 2.14 and later): it answers no publisher any more,
not even with an error, and stays so when there is room again. A server of a cluster leaves all of its streams to the
others. What is heard waits in capture's spool meanwhile.

    python -m ops.thaw STORE      exit code 0 if the server of RETOLD_NATS_MONITOR_URL, whose streams lie in the folder
                                  STORE, has to be started again; 1 if not
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from contracts.service import EXIT_DONE, EXIT_FAILED, exit_code
from contracts.settings import load_settings
from ops.monitor import Monitor

ROOM_BYTES: Final = 32 * 1024 * 1024  # ten minutes of a dozen rooms: with less it would freeze again at once


async def can_thaw(monitor: Monitor, store: Path) -> bool:
    """Whether streams are frozen, and the disk of their folder has room again.

    Raises
    ------
    UnavailableError
        If the server does not tell.
    """
    return bool(await monitor.frozen_streams()) and shutil.disk_usage(store).free >= ROOM_BYTES


async def _look() -> int:
    async with Monitor(load_settings(os.environ).nats_monitor_url) as monitor:
        return EXIT_DONE if await can_thaw(monitor, Path(sys.argv[1])) else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(exit_code(_look()))
