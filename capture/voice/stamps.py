"""Reading the voice socket with the kernel's arrival stamps.

Takes the place of discord.py's reader thread, behind the same methods, and reads on the event loop: no thread per room,
no `select` that waits on a closed socket for 30 s after a reconnect. A busy loop delays reading, never the stamps: the
kernel takes them when the datagram comes in (SO_TIMESTAMPNS), and its buffer is large enough to wait. So there is no
hurry, and sockets are read together: see `capture.voice.sweep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from capture.clock import boottime_ns
from capture.voice.sweep import sweep_of

log = structlog.get_logger()

SO_TIMESTAMPNS: Final = 35  # asm-generic/socket.h; Python has no name for it
SCM_TIMESTAMPNS: Final = SO_TIMESTAMPNS
RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024  # asked for; the kernel caps it at net.core.rmem_max
DATAGRAM_BYTES: Final = 2048  # Discord's voice datagrams stay under 1500
ANCILLARY_BYTES: Final = 64
READS_PER_TURN: Final = 64  # then the event loop gets its turn
LAST_TURNS: Final = 256  # more datagrams than the kernel's buffer holds
CLOCK_TRIES: Final = 4
CLOCK_SPREAD_NS: Final = 20_000  # between two readings of one clock, with another's in the middle
OLDEST_STAMP_NS: Final = 60 * 1_000_000_000  # an older stamp means that the wall clock was set
TIMESPEC: Final = struct.Struct("@qq")

Datagram = Callable[[bytes, int], None]


class ConnectionState(Protocol):
    """What is needed of discord.py's VoiceConnectionState."""

    socket: Any


class StampedReader:
    """Reads datagrams on the event loop and hands each to discord.py's listeners and, stamped, to `on_datagram`.

    Parameters
    ----------
    on_datagram
        Called with the bytes and the arrival on CLOCK_BOOTTIME in nanoseconds; it must not raise or block.
    """

    def __init__(self, state: ConnectionState, loop: asyncio.AbstractEventLoop, on_datagram: Datagram) -> None:
        self._state = state
        self._loop = loop
        self._on_datagram = on_datagram
        self._listeners: list[Callable[[bytes], Any]] = []
        self._socket: socket.socket | None = None
        self.unstamped = 0

    def register(self, callback: Callable[[bytes], Any]) -> None:
        """Add a listener of discord.py's (IP discovery)."""
        self._listeners.append(callback)

    def unregister(self, callback: Callable[[bytes], Any]) -> None:
        """Remove a listener; harmless if it is not there."""
        with contextlib.suppress(ValueError):
            self._listeners.remove(callback)

    def start(self) -> None:
        """Nothing to start: reading begins with `resume`, when there is a socket."""

    def is_alive(self) -> bool:
        """Whether a socket is being read."""
        return self._socket is not None

    def resume(self, *, force: bool = False) -> None:  # noqa: ARG002  # discord.py's signature
        """Read the connection's present socket; called when discord.py has just made it."""
        if self._socket is self._state.socket:
            return
        self.pause()
        self._socket = self._state.socket
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._descriptor = self._socket.fileno()
        self._sweep = sweep_of(self._loop)
        self._sweep.add(self._descriptor, self._read)

    def pause(self) -> None:
        """Stop reading; called before discord.py closes the socket."""
        if self._socket is None:
            return
        self._sweep.remove(self._descriptor, self._read)
        self.catch_up()  # what the kernel still holds is the end of somebody's sentence
        self._socket = None

    stop = pause

    def catch_up(self) -> None:
        """Read all that arrived until now, without waiting for the loop's turn."""
        for _ in range(LAST_TURNS):
            if not self._read():
                break

    def _read(self) -> bool:
        """Read for one turn; whether there may be more."""
        wall_minus_boot_ns = _wall_minus_boot_ns()
        for _ in range(READS_PER_TURN):
            if self._socket is None:
                return False
            try:
                data, ancillary, _flags, _address = self._socket.recvmsg(DATAGRAM_BYTES, ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:  # an ICMP error of an earlier send; the socket lives on
                log.debug("voice_socket_error", error=str(error))
                return False
            self._on_datagram(data, self._arrival_ns(ancillary, wall_minus_boot_ns))
            for listener in tuple(self._listeners):
                listener(data)
        return True

    def _arrival_ns(self, ancillary: list[tuple[int, int, bytes]], wall_minus_boot_ns: int) -> int:
        """The kernel's wall-clock stamp on CLOCK_BOOTTIME; now, if it is missing or cannot be right."""
        now_ns = boottime_ns()
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == SCM_TIMESTAMPNS:
                seconds, nanoseconds = TIMESPEC.unpack(value[: TIMESPEC.size])
                arrival_ns: int = seconds * 1_000_000_000 + nanoseconds - wall_minus_boot_ns
                if now_ns - OLDEST_STAMP_NS < arrival_ns <= now_ns:
                    return arrival_ns
        self.unstamped += 1
        return now_ns


def _wall_minus_boot_ns() -> int:
    """The wall clock less CLOCK_BOOTTIME, read again if we were interrupted between the two."""
    best = (1 << 63, 0)
    for _ in range(CLOCK_TRIES):
        before, wall, after = boottime_ns(), time.time_ns(), boottime_ns()
        best = min(best, (after - before, wall - (before + after) // 2))
        if best[0] <= CLOCK_SPREAD_NS:
            break
    return best[1]
