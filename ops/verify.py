"""Proves a session: its log is whole, its files are what was stored, and rendering them again gives the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from contracts.errors import RetoldError
from contracts.jetstream.connection import Bus
from contracts.jetstream.objects import StoredArtifact, list_artifacts, read_artifact
from contracts.recipes import Recipe, encode_recipe
from mixer.making import Engine, make_files, order_of
from mixer.scratch import scratch
from ops.scrub import read_through

Verdict: TypeAlias = Literal["same", "differs", "damaged", "other engine"]
Progress: TypeAlias = Callable[[str, float], None]


class FileVerdict(msgspec.Struct, frozen=True):
    """A stored file: the `same` when it is rendered again; `damaged` = not even the bytes that were stored.

    Attributes
    ----------
    engine
        What it was made by; `other engine` = not this one, so that its bytes are not compared.
    """

    name: str
    filename: str
    verdict: Verdict
    engine: str


class Proof(msgspec.Struct, frozen=True):
    """What was found of a session.

    Attributes
    ----------
    missing
        Of its log, in words; empty = it is whole.
    ended
        Whether the log says what it must hold: a session that still runs, or was never ended, does not.
    """

    session: str
    ended: bool
    missing: tuple[str, ...]
    files: tuple[FileVerdict, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is missing, damaged or different."""
        return not self.missing and all(file.verdict in {"same", "other engine"} for file in self.files)


async def prove(bus: Bus, session: str, engine: Engine, *, progress: Progress) -> Proof:
    """Read the log, read every file, and render each again that this engine made.

    Parameters
    ----------
    progress
        Called with what is being done, and the fraction of it.
    """
    ended, missing = await read_through(bus, session)
    stored = await list_artifacts(bus, session)
    verdicts: dict[str, Verdict] = {}
    for number, one in enumerate(stored):
        progress("read", number / len(stored))
        verdicts[one.artifact.name] = await _check_bytes(bus, one)
    for number, (recipe, log_end) in enumerate(renders := _renders(stored, engine)):
        made = await _render_again(bus, session, recipe, log_end, engine, _part(progress, number, len(renders)))
        for one in stored:
            artifact = one.artifact
            if artifact.name in made and verdicts[artifact.name] == "same" and made[artifact.name] != artifact.sha256:
                verdicts[artifact.name] = "differs"
    files = []
    for artifact in (one.artifact for one in stored):
        verdict = verdicts[artifact.name]
        other = verdict == "same" and artifact.engine != engine.name
        files.append(
            FileVerdict(artifact.name, artifact.filename, "other engine" if other else verdict, artifact.engine)
        )
    return Proof(session, ended, missing, tuple(files))


async def _check_bytes(bus: Bus, stored: StoredArtifact) -> Verdict:
    digest = hashlib.sha256()
    try:
        async for chunk in read_artifact(bus, stored):
            digest.update(chunk)
    except RetoldError:
        return "damaged"
    return "same" if digest.hexdigest() == stored.artifact.sha256 else "damaged"


def _renders(stored: list[StoredArtifact], engine: Engine) -> list[tuple[Recipe, int]]:
    """What this engine made, each recipe and length of the log once."""
    made = {
        (encode_recipe(one.artifact.recipe), one.artifact.log_end): (one.artifact.recipe, one.artifact.log_end)
        for one in stored
        if one.artifact.engine == engine.name
    }
    return list(made.values())


def _part(progress: Progress, number: int, count: int) -> Progress:
    return lambda _stage, fraction: progress("render", (number + fraction) / count)


async def _render_again(
    bus: Bus, session: str, recipe: Recipe, log_end: int, engine: Engine, progress: Progress
) -> dict[str, str]:
    """Digests of a recipe's files, by name."""
    order = order_of(session, recipe, log_end=log_end, engine=engine)
    with scratch() as directory:
        rendered = await make_files(bus, order, directory, progress)
        return {file.name: file.sha256 for file in rendered.files}
