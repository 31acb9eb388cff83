"""`retold sessions verify`: the log is whole, and its files come out the same."""

from __future__ import annotations

import argparse
import asyncio

from contracts.jetstream.keeping import bring_back
from contracts.service import EXIT_DONE, EXIT_FAILED
from ops.cli.entries import known_entry
from ops.cli.output import emit, progress_bar, say, table
from ops.cli.session_bus import session_bus


def add_verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb to `sessions`."""
    verify = verbs.add_parser("verify", help="prove that the log is whole, and that the files come out the same")
    verify.add_argument("session", metavar="ID")
    verify.add_argument("--json", action="store_true", help="print JSON")
    verify.set_defaults(run=_verify)


async def _verify(arguments: argparse.Namespace) -> int:
    from mixer.engine import engine_string  # noqa: PLC0415  # numpy would cost every other command its quick start
    from mixer.formats.ffmpeg import find_ffmpeg  # noqa: PLC0415
    from mixer.making import Engine  # noqa: PLC0415
    from ops.verify import prove  # noqa: PLC0415

    async with session_bus() as (settings, bus):
        ffmpeg = await asyncio.to_thread(find_ffmpeg, settings.ffmpeg)
        engine = Engine(engine_string(ffmpeg), ffmpeg)
        await known_entry(bus, arguments.session)
        with progress_bar() as bar:
            task = bar.add_task("fetch", total=1.0)
            await bring_back(bus, arguments.session, progress=lambda part: bar.update(task, completed=part))
            proof = await prove(
                bus,
                arguments.session,
                engine,
                progress=lambda stage, part: bar.update(task, description=stage, completed=part),
            )
    if arguments.json:
        emit({"good": proof.good, **{name: getattr(proof, name) for name in proof.__struct_fields__}})
        return EXIT_DONE if proof.good else EXIT_FAILED
    table(("FILE", "VERDICT"), ((file.filename, file.verdict) for file in proof.files))
    for line in proof.missing:
        say(f"missing: {line}")
    if not proof.ended:
        say("The log does not say what it must hold: the session was not ended.")
    if any(file.verdict == "other engine" for file in proof.files):
        say(f"Not compared: what another engine than this one made ({engine.name}).")
    say("All is as it was made." if proof.good else "retold: this is not what was recorded or made.")
    return EXIT_DONE if proof.good else EXIT_FAILED
