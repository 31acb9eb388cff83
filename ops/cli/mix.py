"""`retold mix SESSION`: make a mix or tracks of any session, with settings that need not be those of then."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import httpx

from contracts.artifacts import Artifact
from contracts.clock import ticks_to_seconds
from contracts.jetstream.rendering import render
from contracts.linker import Linker
from contracts.presets import save_preset
from contracts.service import EXIT_DONE
from ops.cli.entries import known_entry
from ops.cli.files import make_folder
from ops.cli.output import emit, progress_bar, say
from ops.cli.recipe_options import add_recipe_options, build_recipe
from ops.cli.renders import download
from ops.cli.session_bus import session_bus
from ops.cli.sessions import show_artifacts

DOWNLOAD_TIMEOUT_S: Final = 60.0


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `mix`."""
    mix = commands.add_parser(
        "mix",
        help="make a mix or tracks of any session, also a past one",
        description="The same session and settings always give the same bytes; what was made before is not made again.",
    )
    mix.add_argument("session", metavar="SESSION")
    add_recipe_options(mix)
    mix.add_argument("--save-preset", metavar="NAME", help="also keep these settings, without the range, as a preset")
    mix.add_argument("--out", type=Path, metavar="DIR", help="also download the files, through signed links")
    mix.add_argument("--json", action="store_true", help="print one JSON object")
    mix.set_defaults(run=_mix)


async def _mix(arguments: argparse.Namespace) -> int:
    if arguments.out is not None:
        make_folder(arguments.out)
    async with session_bus() as (settings, bus):
        entry = await known_entry(bus, arguments.session)
        recipe = build_recipe(arguments, entry, settings.data)
        if arguments.save_preset is not None:
            say(f"Preset {arguments.save_preset}: {save_preset(arguments.save_preset, recipe, settings.data)}")
        with progress_bar() as bar:
            task = bar.add_task(f"{recipe.output} {recipe.extension}", total=1.0)
            stored = await render(
                bus, entry.session, recipe, by="cli", progress=lambda done: bar.update(task, completed=done)
            )
    rows = describe(stored.artifacts, Linker(settings))
    if arguments.out is not None:
        await _download_all(stored.artifacts, rows, arguments.out)
    if arguments.json:
        emit({"session": entry.session, "job": stored.job, "cached": stored.cached, "artifacts": rows})
    else:
        say("It was made before." if stored.cached else f"Made in {stored.elapsed_s:.1f} s.")
        show_artifacts(list(stored.artifacts))
        for row in rows:
            print(row["url"])
    return EXIT_DONE


def describe(artifacts: tuple[Artifact, ...], linker: Linker) -> list[dict[str, object]]:
    """Artifacts as the command line's JSON shows them, each with its signed link."""
    return [
        {
            "name": artifact.filename,
            "format": artifact.recipe.extension,
            "user_id": artifact.user_id,
            "url": linker.download(artifact.session, artifact.name, artifact.filename),
            "bytes": artifact.bytes,
            "sha256": artifact.sha256,
            "duration_s": ticks_to_seconds(artifact.duration_ticks),
            "loudness_lufs": artifact.loudness_lufs,
            "peak_dbtp": artifact.peak_dbtp,
        }
        for artifact in artifacts
    ]


async def _download_all(artifacts: tuple[Artifact, ...], rows: list[dict[str, object]], directory: Path) -> None:
    async with httpx.AsyncClient(timeout=DOWNLOAD_TIMEOUT_S) as client:
        for artifact, row in zip(artifacts, rows, strict=True):
            await download(client, str(row["url"]), artifact, directory / artifact.filename)
            say(f"{directory / artifact.filename}")
