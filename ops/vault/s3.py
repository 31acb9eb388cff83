"""S3-compatible storage as a place, through obstore (the Rust crate object_store)."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import timedelta
from typing import Final

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from contracts.errors import SettingsError
from contracts.settings import Settings
from ops.vault.place import READ_BYTES, NotThereError, PlaceError

PART_BYTES: Final = 8 * 1024 * 1024  # S3 takes 10,000 parts of an object: 80 GB
PARTS_AT_ONCE: Final = 3
RETRIES: Final = 2
RETRY_TIMEOUT: Final = timedelta(seconds=15)
REASON_CHARACTERS: Final = 200


class Bucket:
    """A place in a bucket, below the installation's prefix.

    Parameters
    ----------
    below
        `archive` or `backup`.

    Raises
    ------
    SettingsError
        If the settings name no bucket, or what they name cannot be one.
    """

    def __init__(self, settings: Settings, below: str) -> None:
        if not settings.s3_bucket:
            raise SettingsError(["RETOLD_S3_BUCKET: required for S3, and not set"])
        prefix = f"{settings.s3_prefix}/{below}"
        self._where = f"s3://{settings.s3_bucket}/{prefix}"
        allow_http = settings.s3_endpoint.startswith("http://")
        given = {"access_key_id": settings.s3_key_id, "secret_access_key": settings.s3_secret}
        given |= {"endpoint": settings.s3_endpoint}
        try:
            self._store = S3Store(
                settings.s3_bucket,
                prefix=prefix,
                region=settings.s3_region,
                virtual_hosted_style_request=not settings.s3_endpoint,
                client_options={"allow_http": allow_http, "connect_timeout": "5s", "timeout": "60s"},
                retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT},
                **{name: value for name, value in given.items() if value},  # type: ignore[arg-type]  # all are strings
            )
        except (BaseError, ValueError) as error:
            raise SettingsError([f"RETOLD_S3_*: {_say(error)}"]) from error

    @property
    def where(self) -> str:
        """`s3://bucket/prefix`."""
        return self._where

    async def write(self, name: str, chunks: AsyncIterator[bytes]) -> None:
        """By parts; S3 shows an object only when all of them are there."""
        with self._telling(name):
            await obstore.put_async(
                self._store, name, _cut(chunks), chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )

    async def read(self, name: str) -> AsyncGenerator[bytes, None]:
        """The bytes in pieces."""
        with self._telling(name):
            found = await obstore.get_async(self._store, name)
            async for chunk in found.stream(min_chunk_size=READ_BYTES):
                yield bytes(chunk)

    async def list(self, prefix: str) -> dict[str, int]:
        """Names and sizes."""
        with self._telling(prefix):
            found: dict[str, int] = {}
            async for page in obstore.list(self._store, prefix=prefix):
                found |= {meta["path"]: meta["size"] for meta in page}
            return found

    async def delete(self, name: str) -> None:
        """Take it away."""
        with self._telling(name), contextlib.suppress(NotThereError, FileNotFoundError):
            await obstore.delete_async(self._store, name)

    @contextlib.contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        """Its errors as ours."""
        try:
            yield
        except FileNotFoundError as error:
            raise NotThereError(f"{self._where}/{name} is not there") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise PlaceError(f"{self._where} does not let us in: {_say(error)}; look at RETOLD_S3_KEY_ID") from error
        except (BaseError, OSError) as error:
            raise PlaceError(f"{self._where}: {_say(error)}") from error


async def check_s3(settings: Settings) -> None:
    """Write, read and delete a few bytes where archive and backups go.

    Raises
    ------
    SettingsError
        If the settings name no bucket.
    PlaceError
        If the storage is not there, does not let us in, or gives back other bytes; it says what it said.
    """
    place = Bucket(settings, "check")
    name, content = secrets.token_hex(8), secrets.token_bytes(64)
    await place.write(name, _once(content))
    try:
        read = b"".join([chunk async for chunk in place.read(name)])
    except NotThereError as error:
        raise PlaceError(f"{place.where} does not have what it just took") from error
    finally:
        await place.delete(name)
    if read != content:
        raise PlaceError(f"{place.where} gives back other bytes than it was given")


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _cut(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An empty object has a piece, too."""
    empty = True
    async for chunk in chunks:
        empty = False
        yield chunk
    if empty:
        yield b""


def _say(error: Exception) -> str:
    """The first line: what follows is for who debugs obstore."""
    return str(error).partition("\n")[0][:REASON_CHARACTERS]
