"""The NKEY of every user of the NATS server: `<folder>/<user>.nk`, or a folder for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from contracts.nkeys import NkeySeed
from contracts.permissions import SYSTEM_USER, USERS
from ops.setup.secrets import keep_secret, random_seed

EVERY = (*USERS, SYSTEM_USER)


def make_users(place: Callable[[str], Path]) -> dict[str, str]:
    """Public key by user; seeds that are missing are made, those that are there are kept.

    Parameters
    ----------
    place
        Where a user's seed lies.
    """
    return {user: NkeySeed.parse(keep_secret(place(user), random_seed)).public for user in EVERY}
