"""Finished files into the session's object bucket, each with what it was made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from contracts.artifacts import Artifact
from contracts.jetstream.connection import Bus
from contracts.jetstream.objects import put_artifact
from contracts.recipes import Recipe
from mixer.rendered import Order, RenderedFile


async def store_files(
    bus: Bus,
    files: Sequence[RenderedFile],
    order: Order,
    *,
    told: Callable[[float], None] = lambda _fraction: None,
) -> list[Artifact]:
    """Store all files of an order's recipe; `told` hears which fraction of them is stored."""
    artifacts: list[Artifact] = []
    for number, file in enumerate(files, start=1):
        artifact = artifact_of(file, order, files=len(files))
        await put_artifact(bus, artifact, Path(file.path))
        artifacts.append(artifact)
        told(number / len(files))
    return artifacts


def artifact_of(file: RenderedFile, order: Order, *, files: int) -> Artifact:
    """What is known of a file, one of `files` that its recipe made."""
    recipe: Recipe = order.recipe.canonical()
    return Artifact(
        name=file.name,
        session=order.session,
        filename=file.filename,
        recipe=recipe,
        log_end=order.log_end,
        engine=order.engine,
        sha256=file.sha256,
        bytes=file.bytes,
        duration_ticks=file.duration_ticks,
        rendered_unix_ns=time.time_ns(),
        user_id=file.user_id,
        speaker=file.speaker,
        files=files,
        loudness_lufs=file.loudness_lufs,
        peak_dbtp=file.peak_dbtp,
        losses=file.losses,
    )
