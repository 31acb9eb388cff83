"""Compare-and-set: a message that is stored only if its subject still stands where the writer saw it."""

from __future__ import annotations

from typing import Final

from nats.errors import Error as NatsError
from nats.js.errors import APIError

from contracts.errors import UnavailableError
from contracts.jetstream.connection import Bus

EXPECTED_HEADER: Final = "Nats-Expected-Last-Subject-Sequence"
WRONG_LAST_SEQUENCE: Final = 10071
TIMEOUT_S: Final = 2.0


async def put_if(bus: Bus, subject: str, data: bytes, expected: int, **headers: str) -> int | None:
    """Store a message if the newest on its subject is still `expected` (0: there is none).

    No message id is given: a retry must not pass for the first try.

    Returns
    -------
        Its stream sequence; None if another writer was faster.

    Raises
    ------
    UnavailableError
        If the server did not say.
    """
    try:
        sent = {EXPECTED_HEADER: str(expected), **headers}
        ack = await bus.js.publish(subject, data, timeout=TIMEOUT_S, headers=sent)
    except APIError as error:
        if error.err_code == WRONG_LAST_SEQUENCE:
            return None
        raise UnavailableError(f"{subject} could not be written: {error}") from error
    except (NatsError, TimeoutError) as error:
        raise UnavailableError(f"{subject} could not be written: {error!r}") from error
    return ack.seq
