"""The monitoring address of a nats-server (`http:` in its configuration): everything about JetStream in one request."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

from contracts.errors import UnavailableError
from contracts.jetstream.lag import JSZ_DETAILS, StreamLag, lags_from_jsz

TIMEOUT_S: Final = 5.0


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
    """

    version: str
    numbers: dict[str, float]
    store_dir: str


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
        return ServerState(varz["version"], numbers, str(parts["config_"].get("store_dir", "")))

    async def _get(self, path: str) -> bytes:
        try:
            answer = await self._client.get(f"{self.url}/{path}")
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"NATS' monitoring does not answer at {self.url} (RETOLD_NATS_MONITOR_URL): {error!r}"
            ) from error
        return answer.content
