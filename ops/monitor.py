"""The monitoring address of a nats-server (`http:` in its configuration): everything about JetStream in one request."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from contracts.errors import UnavailableError
from contracts.jetstream.lag import JSZ_DETAILS, StreamLag, lags_from_jsz

TIMEOUT_S: Final = 5.0
UNWELL: Final = 503  # with what is wrong
FROZEN: Final = ("write error", "JetStream not enabled")
ALL_STREAMS: Final = "every stream"


class ServerState(msgspec.Struct, frozen=True):
    """What a server says of itself (`/varz`).

    Attributes
    ----------
    version
        Such as `2.15.1`.
    numbers
        By name, those of JetStream with `stats_` or `config_` before it.
    store_dir
        Where its streams lie on its machine; empty without JetStream.
    frozen
        Streams that it writes no more, since its disk did not take something: until it is started again, also when
        there is room by then. One of a cluster gives up ALL_STREAMS.
    """

    version: str
    numbers: dict[str, float]
    store_dir: str
    frozen: tuple[str, ...] = ()


class Monitor:
    """A client of the monitoring address; an async context.

    Every question raises UnavailableError if it is not answered.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def stream_lags(self) -> list[StreamLag]:
        """Every stream with its consumers."""
        return lags_from_jsz(await self._get(f"jsz?{JSZ_DETAILS}"))

    async def state(self) -> ServerState:
        """The server's own figures."""
        varz: dict[str, Any] = msgspec.json.decode(await self._get("varz"))
        jetstream = varz.get("jetstream") or {}
        parts = {"": varz, "stats_": jetstream.get("stats") or {}, "config_": jetstream.get("config") or {}}
        numbers = {
            prefix + name: float(value)
            for prefix, part in parts.items()
            for name, value in part.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        store_dir = str(parts["config_"].get("store_dir", ""))
        return ServerState(varz["version"], numbers, store_dir, await self.frozen_streams())

    async def frozen_streams(self) -> tuple[str, ...]:
        """`ServerState.frozen`."""
        health = msgspec.json.decode(await self._get("healthz?details=true", but=(UNWELL,)))
        errors = health.get("errors") or ()
        said = {str(error.get("stream") or ALL_STREAMS): str(error.get("error")) for error in errors}
        return tuple(sorted(stream for stream, error in said.items() if any(sign in error for sign in FROZEN)))

    async def _get(self, path: str, *, but: tuple[int, ...] = ()) -> bytes:
        """What is answered with a status that is good, or one of these."""
        try:
            answer = await self._client.get(f"{self.url}/{path}")
            if answer.status_code not in but:
                answer.raise_for_status()
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"NATS' monitoring does not answer at {self.url} (RETOLD_NATS_MONITOR_URL): {error!r}"
            ) from error
        return answer.content
