"""Capture's place on the disk, `RETOLD_DATA/spool`: spools, this capture's name, and a lock against a second one."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final

from capture.spool import Spool, find_spools
from contracts.errors import RetoldError

FOLDER: Final = "spool"


class HomeTakenError(RetoldError):
    """Another capture runs with this RETOLD_DATA."""


class Home:
    """The spools of one capture process, held until `close`.

    Attributes
    ----------
    folder
        Where everything lies.
    owner
        This capture's name, the same after a restart: so it takes its own leases back at once.

    Raises
    ------
    HomeTakenError
        If another process holds it.
    """

    def __init__(self, data: Path) -> None:
        self.folder = data / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise HomeTakenError(f"another capture runs with RETOLD_DATA={data}; give each its own") from error
        self.owner = self._name()

    def spool(self, session: str) -> Spool:
        """The spool of a session, new or as it was left."""
        return Spool(self.folder, session)

    def sessions(self) -> list[str]:
        """Sessions that have a spool here, oldest first."""
        return find_spools(self.folder)

    def close(self) -> None:
        """Let another process have it."""
        os.close(self._lock)

    def _name(self) -> str:
        path = self.folder / "owner"
        if not path.exists():
            part = path.with_suffix(".part")  # half a name, of a disk that is full, might be another's as well
            part.write_text(f"{os.uname().nodename}-{secrets.token_hex(4)}")
            part.rename(path)
        return path.read_text()
