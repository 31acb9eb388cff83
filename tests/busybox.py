"""The shell and the programs of an Alpine image, to run its scripts by."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def busybox_path(folder: Path) -> str | None:
    """A PATH on which BusyBox alone is found, laid out in a folder; None if it is not installed."""
    busybox = shutil.which("busybox")
    if busybox is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([busybox, "--install", "-s", str(folder)], check=True)
    return str(folder)
