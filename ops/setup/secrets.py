"""Secrets as files: made once, readable by their owner only, and never written again."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from contracts.nkeys import NkeySeed

SECRET_BYTES: Final = 32
OWNER_ONLY: Final = 0o600
FOLDER_MODE: Final = 0o700


def keep_secret(path: Path, make: Callable[[], str]) -> str:
    """What the file holds; made now if there is none.

    Whole or not at all, also after a power loss: half a key would lock a store for good.
    """
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "w") as file:
        file.write(make() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, path)  # unlike a rename, never over one that came meanwhile
    except FileExistsError:
        pass
    finally:
        part.unlink()
    return path.read_text().strip()


def random_secret() -> str:
    """256 random bits that can stand anywhere unquoted: a letter comes first, so nothing takes them for a number."""
    return "k" + secrets.token_hex(SECRET_BYTES)


def store_key_line() -> str:
    """A new key for a store, as the line of a nats.conf that defines it."""
    return f'STORE_KEY: "{random_secret()}"'


def random_seed() -> str:
    """The seed of a new NKEY user, `SU...`."""
    return str(NkeySeed.new())
