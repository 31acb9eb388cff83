"""The gateway's socket: bound before anything else is done, so that a wrong address is known at once."""

from __future__ import annotations

import errno
import socket
from typing import Final

from contracts.errors import SettingsError, UnavailableError

STALL_S: Final = 60.0  # a client that takes nothing for this long is gone


class PortTakenError(UnavailableError):
    """Another program listens on the port; end it, or choose another with RETOLD_GATEWAY_PORT."""


def listen(host: str, port: int) -> socket.socket:
    """A bound socket, not listening yet.

    Raises
    ------
    PortTakenError
        If another program has the port.
    SettingsError
        If the host is not an address of this machine, or the port is not ours to take.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise SettingsError([f"RETOLD_GATEWAY_HOST: {host} is no address: {error}"]) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: also frees the buffer of a client that takes nothing any more
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_S * 1000))
        listener.bind(address)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"port {port} of {host} is taken by another program; end it, or choose another: "
                f"RETOLD_GATEWAY_PORT={port + 1 if port < 65535 else 8080}"  # noqa: PLR2004  # the last port
            ) from error
        name = "RETOLD_GATEWAY_PORT" if error.errno == errno.EACCES else "RETOLD_GATEWAY_HOST"
        raise SettingsError([f"{name}: cannot listen on {host}:{port}: {error.strerror}"]) from error
    return listener
