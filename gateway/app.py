"""The gateway's composition root: settings, the bus, a socket, and uvicorn around the application."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Final, cast

import structlog
import uvicorn
from litestar.types import ASGIApp

from contracts import log as log_setup
from contracts.jetstream.connection import connect
from contracts.jetstream.server import Server
from contracts.settings import Settings
from gateway.application import create_app
from gateway.listener import listen
from gateway.services import Services, open_services
from gateway.webhooks import open_webhooks

log = structlog.get_logger()

DRAIN_S: Final = 15  # downloads that take longer are cut, and resume at the next process
MAX_HEADER_BYTES: Final = 16 * 1024


async def run(settings: Settings, *, stop: asyncio.Event, listening: asyncio.Future[str] | None = None) -> None:
    """Serve until `stop` is set, then finish what is being sent, for DRAIN_S seconds at most.

    Parameters
    ----------
    listening
        Gets the address, such as `http://127.0.0.1:8080`, once requests are answered: with port 0 there is no
        other way to know it.

    Raises
    ------
    UnavailableError
        If NATS or the port cannot be had.
    SettingsError
        If the gateway cannot listen where it should.
    """
    log_setup.configure(settings.log_level, service="gateway")
    listener = listen(settings.gateway_host, settings.gateway_port)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(listener.close)
        bus = await connect(Server.of(settings, "gateway"), name="gateway")
        stack.push_async_callback(bus.close)
        services = open_services(settings, bus=bus, now_s=time.time)
        stack.push_async_callback(services.mixes.close)
        if services.cache is not None:
            services.cache.open()
            stack.push_async_callback(services.cache.close)
        watching = asyncio.create_task(services.transfers.watch())
        stack.callback(watching.cancel)
        if settings.webhook_url:
            telling = asyncio.create_task(open_webhooks(settings).run(bus))
            stack.callback(telling.cancel)
        stopping = asyncio.create_task(_end_feeds(services, stop))
        stack.callback(stopping.cancel)
        await serve(create_app(services), listener, stop=stop, listening=listening)


async def _end_feeds(services: Services, stop: asyncio.Event) -> None:
    await stop.wait()
    services.transfers.stop_endless()


async def serve(
    app: ASGIApp, listener: socket.socket, *, stop: asyncio.Event, listening: asyncio.Future[str] | None = None
) -> None:
    """Serve an application on a bound socket until `stop` is set."""
    config = uvicorn.Config(
        cast("Any", app),  # uvicorn and Litestar each have their own types of ASGI
        http="h11",  # refuses an endless request line or header; httptools would keep all of it
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # its lines hold the path, and with it the token
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = _Server(config)
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    try:
        listener.listen(config.backlog)  # from here on connections wait rather than fail
        log.info("gateway_listening", address=address)
        if listening is not None:
            listening.set_result(address)
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        await serving
    log.info("gateway_stopped")


class _Server(uvicorn.Server):
    """Leaves the signals to whoever runs us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
