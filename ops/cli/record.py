"""`retold record start|stop|note|status`: the same requests that Discord's commands and the API make."""

from __future__ import annotations

import argparse
from typing import Final

from contracts.commands import AddNote, StartRecording, StopRecording
from contracts.jetstream.asking import add_note, ask_status, start_recording, stop_recording
from contracts.presets import load_preset
from contracts.service import EXIT_DONE
from ops.cli.output import clock, emit, say, table
from ops.cli.session_bus import session_bus

AUTHOR: Final = "operator"


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `record`."""
    record = commands.add_parser("record", help="start, stop, mark and watch recordings")
    verbs = record.add_subparsers(metavar="VERB", required=True)
    start = verbs.add_parser("start", help="join a voice channel and record it")
    start.add_argument("--guild", required=True, metavar="ID", help="Discord's id of the server")
    start.add_argument("--channel", required=True, metavar="ID", help="Discord's id of the voice channel")
    start.add_argument("--name", default="", help="what to call the session")
    start.add_argument("--preset", metavar="NAME", help="at the end mix it by this preset, too")
    stop = verbs.add_parser("stop", help="end a server's recording")
    stop.add_argument("--guild", required=True, metavar="ID", help="Discord's id of the server")
    note = verbs.add_parser("note", help="mark a moment of a running recording")
    note.add_argument("text")
    note.add_argument("--guild", required=True, metavar="ID", help="Discord's id of the server")
    note.add_argument("--ago", type=float, default=0.0, metavar="S", help="it was said so many seconds ago")
    status = verbs.add_parser("status", help="what is being recorded")
    for verb, run in ((start, _start), (stop, _stop), (note, _note), (status, _status)):
        verb.add_argument("--json", action="store_true", help="print one JSON object")
        verb.set_defaults(run=run)


async def _start(arguments: argparse.Namespace) -> int:
    async with session_bus() as (settings, bus):
        mix = load_preset(arguments.preset, settings.data) if arguments.preset else None
        request = StartRecording(guild_id=arguments.guild, channel_id=arguments.channel, name=arguments.name, mix=mix)
        started = await start_recording(bus, request)
    if arguments.json:
        emit({"session": started.session})
    else:
        say(f"Recording. End it with: retold record stop --guild {arguments.guild}")
        print(started.session)
    return EXIT_DONE


async def _stop(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        stopped = await stop_recording(bus, StopRecording(guild_id=arguments.guild))
    if arguments.json:
        emit({name: getattr(stopped, name) for name in stopped.__struct_fields__})
    else:
        say(
            f"Ended after {clock(stopped.duration_s)}: {stopped.recorded} packets recorded, "
            f"{stopped.undecryptable} undecryptable, {stopped.lost} lost on the way."
        )
        print(stopped.session)
    return EXIT_DONE


async def _note(arguments: argparse.Namespace) -> int:
    request = AddNote(guild_id=arguments.guild, text=arguments.text, ago_s=arguments.ago, author=AUTHOR)
    async with session_bus() as (_settings, bus):
        noted = await add_note(bus, request)
    if arguments.json:
        emit({"session": noted.session, "at_s": noted.at_s})
    else:
        say(f"Noted at {clock(noted.at_s)} of session {noted.session}.")
    return EXIT_DONE


async def _status(arguments: argparse.Namespace) -> int:
    async with session_bus() as (_settings, bus):
        status = await ask_status(bus)
    if arguments.json:
        emit(status)
        return EXIT_DONE
    say("Capture is ready." if status.ready else "Capture is still connecting to Discord.")
    table(
        ("SESSION", "SERVER", "CHANNEL", "ELAPSED", "RECORDED", "UNDECRYPTABLE", "LOST", "UNACKED"),
        (
            (
                live.session,
                live.guild_id,
                live.channel_id,
                clock(live.elapsed_s),
                live.packets["recorded"],
                live.packets["undecryptable"],
                live.packets["lost"],
                live.unacked_batches,
            )
            for live in status.sessions
        ),
    )
    return EXIT_DONE
