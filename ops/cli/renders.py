"""Fetching what was rendered: what `mix` and `demo` share."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import httpx

from contracts.artifacts import Artifact
from contracts.errors import RetoldError
from ops.cli.files import write_file

DOWNLOAD_CHUNK: Final = 256 * 1024


class DownloadError(RetoldError):
    """The gateway did not deliver the file."""


async def download(client: httpx.AsyncClient, url: str, artifact: Artifact, target: Path) -> None:
    """Fetch an artifact through its signed link; what is written is proved by size.

    Raises
    ------
    DownloadError
        If the gateway says no, or the body is short.
    FileError
        If the file cannot be written.
    """
    try:
        async with client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise DownloadError(f"{artifact.filename}: {response.status_code} {response.text[:300]}")
            with write_file(target) as file:
                async for chunk in response.aiter_bytes(DOWNLOAD_CHUNK):
                    file.write(chunk)
                if file.tell() != artifact.bytes:
                    raise DownloadError(f"{artifact.filename}: {file.tell()} of {artifact.bytes} bytes came")
    except httpx.HTTPError as error:
        raise DownloadError(f"{artifact.filename}: {error!r}") from error
