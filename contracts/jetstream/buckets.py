"""A key-value bucket as a whole: what a backup takes, and what a restore puts back."""

from __future__ import annotations

from collections.abc import Mapping

from contracts.jetstream.cas import put_if
from contracts.jetstream.connection import Bus
from contracts.jetstream.pull import read_newest, read_stream


async def read_bucket(bus: Bus, bucket: str) -> dict[str, bytes]:
    """The newest value of every key that has one."""
    prefix = f"$KV.{bucket}."
    found: dict[str, bytes] = {}
    async for message in read_stream(bus, f"KV_{bucket}", filter_subject=f"{prefix}>", last_per_subject=True):
        key = message.subject.removeprefix(prefix)
        found.pop(key, None)
        if message.data:
            found[key] = message.data
    return found


async def fill_bucket(bus: Bus, bucket: str, values: Mapping[str, bytes]) -> int:
    """Write the keys that are not there; how many those were. What is there is newer, and stays."""
    written = 0
    for key, value in values.items():
        subject = f"$KV.{bucket}.{key}"
        if await read_newest(bus, f"KV_{bucket}", subject) is None:
            written += await put_if(bus, subject, value, 0) is not None
    return written
