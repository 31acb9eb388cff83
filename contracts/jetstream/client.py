"""nats-py's client, whose calls can be cancelled at any moment, and which says nothing in the clear if it must not.

`asyncio.wait_for` of Python 3.11 forgets a cancellation that comes in the same turn of the loop as the answer it waits
for (CPython issue 86296), and nats-py's own flush swallows all of them. A task that was told to end then goes on.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError

P = ParamSpec("P")
R = TypeVar("R")
Method = Callable[Concatenate["CancellableClient", P], Coroutine[Any, Any, R]]


def _heeding(method: Method[P, R]) -> Method[P, R]:
    @functools.wraps(method)
    async def call(self: CancellableClient, /, *args: P.args, **kwargs: P.kwargs) -> R:
        task = asyncio.current_task()
        told = task.cancelling() if task is not None else 0
        result = await method(self, *args, **kwargs)
        if task is not None and task.cancelling() > told:
            raise asyncio.CancelledError
        return result

    return call


class LenientTransport(TcpTransport):
    """A TCP connection to which one may write when it is gone: the client learns of its end by reading.

    So it is on asyncio's loop. uvloop raises RuntimeError, which nats-py expects nowhere.
    """

    def write(self, payload: bytes) -> None:
        """Send, or drop what can reach nobody."""
        if not self._gone:
            super().write(payload)  # type: ignore[no-untyped-call]  # nats-py's

    def writelines(self, payload: list[bytes]) -> None:
        """Send, or drop what can reach nobody."""
        if not self._gone:
            super().writelines(payload)  # type: ignore[no-untyped-call]  # nats-py's

    @property
    def _gone(self) -> bool:
        return self._io_writer is None or self._io_writer.is_closing()

    def __bool__(self) -> bool:
        """True also before it is connected: nats-py would take its own in place of it."""
        return True


class CancellableClient(Client):
    """A connection of nats-py.

    Parameters
    ----------
    nkey
        Public half of the NKEY that its `signature_cb` signs with; nats-py takes it from a library that we do without.
    """

    def __init__(self, *, nkey: str | None = None) -> None:
        super().__init__()
        self._public_nkey = nkey
        self._transport = LenientTransport()  # type: ignore[no-untyped-call]  # nats-py's

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002  # as nats-py has it
        """Leave a server that wants no TLS if we do: nats-py would show it our credentials."""
        if initial_connection and self.options.get("tls") is not None and not info.get("tls_required"):
            raise NatsError("the server offers no TLS")
        await super()._process_info(info, initial_connection)

    flush = _heeding(Client.flush)
    publish = _heeding(Client.publish)
    request = _heeding(Client.request)
    subscribe = _heeding(Client.subscribe)
