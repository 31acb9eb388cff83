"""Where a running installation can be found: `running.json` in its data folder, and a list of those of this user.

So that `retold sessions ls` in another terminal needs no setting: the settings win, then RETOLD_DATA, then the one of
the list that was started last and runs still.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from contracts.settings import Settings, load_settings

FILE: Final = "running.json"
OWNER_ONLY: Final = 0o700


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """An installation that runs on this machine.

    Attributes
    ----------
    pid
        The process that started it.
    data
        Its data folder, absolute.
    """

    pid: int
    data: str
    nats_url: str
    monitor_url: str
    public_url: str

    def announce(self) -> None:
        """Write it down for this user's other commands; readable by nobody else."""
        _write(Path(self.data) / FILE, msgspec.json.encode(self))
        if folder := _list_folder():
            for entry, _ in _listed(folder):
                if not _alive(int(entry.name)):
                    entry.unlink(missing_ok=True)
            _write(folder / str(self.pid), self.data.encode())

    def withdraw(self) -> None:
        """It does not run any more."""
        (Path(self.data) / FILE).unlink(missing_ok=True)
        if folder := _list_folder():
            (folder / str(self.pid)).unlink(missing_ok=True)


def find_settings(environ: Mapping[str, str], *, required: tuple[str, ...] = ()) -> Settings:
    """Settings, where what is not set comes from the installation that runs here, if one does.

    Raises
    ------
    SettingsError
        See `load_settings`.
    """
    settings = load_settings(environ, required=required)
    running = find_running(environ, settings)
    if running is None:
        return settings
    found: dict[str, str | Path] = {"data": Path(running.data), "public_url": running.public_url}
    if not environ.get("RETOLD_NATS_URL"):
        found["nats_url"] = running.nats_url
    if not environ.get("RETOLD_NATS_MONITOR_URL") and not environ.get("RETOLD_NATS_URL"):
        found["nats_monitor_url"] = running.monitor_url
    if environ.get("RETOLD_PUBLIC_URL"):
        found["public_url"] = settings.public_url
    return msgspec.structs.replace(settings, **found)


def find_running(environ: Mapping[str, str], settings: Settings) -> Running | None:
    """The installation whose data folder the settings name; without RETOLD_DATA, else the one started last."""
    folders = [settings.data]
    if not environ.get("RETOLD_DATA") and (listed := _list_folder()) is not None:
        folders += [data for _, data in _listed(listed)]
    for folder in folders:
        try:
            running = msgspec.json.decode((folder / FILE).read_bytes(), type=Running)
        except (OSError, msgspec.MsgspecError):
            continue
        if _alive(running.pid):
            return running
    return None


def _listed(folder: Path) -> list[tuple[Path, Path]]:
    """Entries of the list, each named by its process, with the data folder it names; newest first."""
    found = []
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may be withdrawing
            if entry.name.isdigit():
                found.append((entry.stat().st_mtime_ns, entry, Path(entry.read_text())))
    return [(entry, data) for _, entry, data in sorted(found, reverse=True)]


def _list_folder() -> Path | None:
    """The list's folder, which only this user can write; None if there is no such folder."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    folder = base / f"retold-{os.getuid()}"
    try:
        folder.mkdir(mode=OWNER_ONLY, exist_ok=True)
        owner = folder.stat()
    except OSError:
        return None
    if owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        return None
    return folder


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
