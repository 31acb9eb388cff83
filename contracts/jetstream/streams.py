"""The streams and buckets that Retold needs on a server: made, put right, asked for and deleted.

Making one that is there is harmless: its configuration is brought to what this version wants.
"""

from __future__ import annotations

from typing import Any, Final

from contracts import streams
from contracts.jetstream.configuration import bucket_config, object_bucket_config, stream_config
from contracts.jetstream.connection import NS, STREAM_NOT_FOUND, Bus, JetStreamError

STREAM_NAME_IN_USE: Final = 10058  # JetStream's err_code


async def _copies(bus: Bus) -> int:
    """How many copies of a stream are kept: as the settings say, or as it is."""
    if not bus.replicas:
        try:
            bus.replicas = int((await bus.api(f"STREAM.INFO.{streams.JOBS.name}"))["config"]["num_replicas"])
        except JetStreamError as error:
            if error.err_code != STREAM_NOT_FOUND:
                raise
            bus.replicas = 1
    return bus.replicas


async def ensure_shared(bus: Bus) -> None:
    """Make the streams and buckets that all sessions share; harmless if they are there."""
    for config in shared_configs():
        await _ensure_stream(bus, config)


def shared_configs() -> list[dict[str, Any]]:
    """What all sessions share, as JetStream's own configuration."""
    erasable = {"max_msgs_per_subject": 2, "deny_delete": False}  # an entry is overwritten after its successor came
    return [
        *map(stream_config, streams.SHARED),
        {**bucket_config(streams.DIRECTORY_BUCKET), **erasable},
        {**bucket_config(streams.GUILDS_BUCKET), **erasable},
        bucket_config(streams.REVOKED_BUCKET),
        bucket_config(streams.VAULTS_BUCKET),
        {**bucket_config(streams.USES_BUCKET), "max_age": streams.USES_KEPT_S * NS},
        {**bucket_config(streams.LEASES_BUCKET), "max_age": streams.LEASE_S * NS},
    ]


async def create_session(bus: Bus, session: str) -> None:
    """Make a session's stream and its object bucket; harmless if they are there."""
    await _ensure_stream(bus, stream_config(streams.session_stream(session)))
    await _ensure_stream(bus, object_bucket_config(session))


async def session_exists(bus: Bus, session: str) -> bool:
    """Whether the session's stream is on the server."""
    try:
        await bus.api(f"STREAM.INFO.{streams.session_stream_name(session)}")
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return False
        raise
    return True


async def _ensure_stream(bus: Bus, config: dict[str, Any]) -> None:
    config = {**config, "num_replicas": await _copies(bus)}
    try:
        await bus.api(f"STREAM.CREATE.{config['name']}", config)
    except JetStreamError as error:
        if error.err_code != STREAM_NAME_IN_USE:
            raise
        await bus.api(f"STREAM.UPDATE.{config['name']}", config)


async def delete_stream(bus: Bus, stream: str) -> bool:
    """Delete a stream with its files; whether it was there."""
    try:
        await bus.api(f"STREAM.DELETE.{stream}")
    except JetStreamError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return False
        raise
    return True
