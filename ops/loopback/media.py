"""The UDP side of the voice server: one socket for all rooms.

A connection is known by its SSRC until IP discovery tells its address, and by its address from then on.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

import structlog

from ops.loopback.rtp import PING, PONG, discovery_answer, read_discovery_question

Address = tuple[str, int]

log = structlog.get_logger()


class Listener(Protocol):
    """A bot's connection, as the socket sees it."""

    ssrc: int
    address: Address | None
    received_packets: int
    received: deque[bytes]


class MediaServer(asyncio.DatagramProtocol):
    """Answers discovery and pings, counts what bots send, and sends them what rooms hand over.

    `holes` are addresses to and from which every datagram vanishes.
    """

    def __init__(self, find: Callable[[int], Listener | None]) -> None:
        self._find = find
        self._transport: asyncio.DatagramTransport | None = None
        self._listeners: dict[Address, Listener] = {}
        self.pings = 0
        self.holes: set[Address] = set()

    @property
    def address(self) -> Address:
        """Where clients find this socket."""
        if self._transport is None:
            raise RuntimeError("the media socket is not open")
        host, port = self._transport.get_extra_info("sockname")[:2]
        return str(host), int(port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # 3.11's own is no subclass of it

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Discovery, a ping, or a bot's own voice."""
        if addr in self.holes:
            return
        ssrc = read_discovery_question(data)
        if ssrc is not None:
            self._discover(ssrc, addr)
        elif data.startswith(PING):
            self.pings += 1
            self.send(PONG + data[len(PING) :], addr)
        elif (listener := self._listeners.get(addr)) is not None:
            listener.received_packets += 1
            listener.received.append(data)

    def error_received(self, exc: Exception) -> None:
        """A bot closed its socket while packets were on their way: usual at the end of a call."""
        log.debug("udp_error", error=str(exc))

    def send(self, datagram: bytes, address: Address) -> None:
        """Send `datagram` now."""
        if self._transport is not None and not self._transport.is_closing() and address not in self.holes:
            self._transport.sendto(datagram, address)

    def close(self) -> None:
        """Close the socket."""
        if self._transport is not None:
            self._transport.close()

    def _discover(self, ssrc: int, addr: Address) -> None:
        listener = self._find(ssrc)
        if listener is not None:
            listener.address = addr
            self._listeners[addr] = listener
            self.send(discovery_answer(ssrc, *addr), addr)
