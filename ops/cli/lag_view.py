"""What `retold lag` draws: how the whole stands in three lines, then a line for each room, the worst first.

It fits 80 columns, and the height of the terminal: what is well and does not fit is counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from contracts.jetstream.lag import ConsumerLag, StreamLag
from contracts.streams import RENDER_CONSUMER
from ops.cli.output import clock, human_bytes
from ops.look import Look
from ops.rooms import Room, State

DAY_S: Final = 86_400
MANY_DAYS: Final = 1000
STYLES: Final = {State.HEARD: "green", State.QUIET: "dim"}
ALARM, WARNING = "bold red", "yellow"
ROOM_COLUMNS: Final = {  # with the least width of each, so that a live view stands still; ROOM takes what is left
    "": 1,
    "ROOM": 0,
    "STATE": 9,
    "TIME": 7,
    "LAG": 4,
    "TREND": 7,
    "UNSAVED": 7,
    "SPOOL": 8,
    "ACK 99%": 7,
    "DAVE": 6,
}
LEFT: Final = {"", "ROOM", "STATE", "DAVE", "STREAM", "CONSUMER"}
HEAD_LINES: Final = 6  # above and below the rooms, without alarms


def draw_watch(look: Look, rooms: Sequence[Room], *, height: int) -> Group:
    """The live view, no higher than `height` lines."""
    alarms = list(_alarms(look))[: max(1, height // 4)]
    space = max(1, height - HEAD_LINES - len(alarms))
    shown = rooms if len(rooms) <= space else rooms[: space - 1]
    return Group(*_head(look, rooms), *alarms, Text(""), _rooms(shown), *_rest(rooms[len(shown) :]))


def draw_once(look: Look, rooms: Sequence[Room]) -> Group:
    """Everything: rooms, then streams and consumers."""
    table = _rooms(rooms) if rooms else Text("nothing is being recorded", style="dim")
    return Group(*_head(look, rooms), *_alarms(look), Text(""), table, Text(""), _streams(look.streams))


def _head(look: Look, rooms: Sequence[Room]) -> list[Text]:
    return [_services(look, rooms), _queue(look), _disk(look)]


def _services(look: Look, rooms: Sequence[Room]) -> Text:
    text = Text.assemble((time.strftime("%H:%M:%S", time.localtime(look.unix_s)), "bold"), "  capture ")
    if look.status is None:
        text.append("does not answer", ALARM)
    elif not look.status.ready:
        text.append("connects to Discord", WARNING)
    else:
        text.append("records " + _count(len(look.status.sessions), "room"), "green")
    followed = sum(1 for room in rooms if room.lag_messages is not None)
    busy = sum(consumer.ack_pending for consumer in _workers(look))
    text.append("  mixer ")
    if look.mixers_waiting or busy:
        text.append(f"{look.mixers_waiting} free, {busy} busy, follows {followed}", "green")
    else:
        text.append("is away", ALARM)
    heard = sum(room.heard for room in rooms)
    text.append(f"  {heard} heard")
    return text


def _queue(look: Look) -> Text:
    queued = look.jobs.messages if look.jobs else 0
    floor = max((consumer.ack_floor for consumer in _workers(look)), default=0)
    redelivered = sum(consumer.redelivered for consumer in _workers(look))
    text = Text(f"jobs {queued}, oldest {clock(look.oldest_job_s)}, ack floor {floor}, redelivered {redelivered}")
    text.append(f"  given up {len(look.failed)}", ALARM if look.failed else "")
    worst = max((one.ack_p99_s for one in look.status.sessions), default=0.0) if look.status else 0.0
    text.append(f"  worst ack {_seconds(worst)}")
    return text


def _disk(look: Look) -> Text:
    storage = look.storage
    text = Text(f"stored {storage.sessions} sessions, {human_bytes(storage.log_bytes)}")
    text.append(f" + {human_bytes(storage.file_bytes)} of files")
    if storage.room_bytes is not None:
        text.append(f"  room for {human_bytes(storage.room_bytes)}")
    if storage.days_left is not None:
        few = storage.days_left < 7  # noqa: PLR2004  # a week
        days = f"{storage.days_left:.0f}" if storage.days_left < MANY_DAYS else f"over {MANY_DAYS}"
        text.append(f", {days} days", ALARM if few else "")
    if not look.kept:
        text.append("  keeper is away", WARNING)
    return text


def _alarms(look: Look) -> Iterable[Text]:
    if look.server is not None and (frozen := look.server.frozen):
        yield _line(f"nats-server's disk was full: {_count(len(frozen), 'stream')} frozen until it is restarted")
    for advisory in look.advisories:
        age_s = look.unix_s - advisory.unix_s
        if age_s < DAY_S:
            when = time.strftime("%H:%M:%S", time.localtime(advisory.unix_s))
            yield _line(f"{when} {advisory.meaning}: {advisory.about}")
    for fact in reversed(look.failed):
        yield _line(f"render given up: {fact.session}, job {fact.job}: {fact.reason}")


def _line(text: str) -> Text:
    return Text(text, style=ALARM, no_wrap=True, overflow="ellipsis")


def _rooms(rooms: Sequence[Room]) -> Table:
    table = _table(ROOM_COLUMNS)
    table.expand = True
    for column, least in zip(table.columns, ROOM_COLUMNS.values(), strict=True):
        column.min_width, column.ratio = least, None if least else 1
    for room in rooms:
        style = STYLES.get(room.state, ALARM if room.state.is_alarm else WARNING)
        table.add_row(
            Text("\N{BLACK CIRCLE}", style),
            Text.assemble(room.room or room.session, (f"  {room.guild}", "dim")),
            Text(room.said, style),
            clock(room.elapsed_s),
            "-" if room.lag_messages is None else str(room.lag_messages),
            "" if room.lag_messages is None else _trend(room.trend),
            _seconds(room.unsaved_s),
            human_bytes(room.spool_bytes),
            _seconds(room.ack_p99_s),
            _dave(room),
        )
    return table


def _rest(rooms: Sequence[Room]) -> list[Text]:
    """What did not fit."""
    if not rooms:
        return []
    ill = sum(1 for room in rooms if not room.state.is_well)
    return [Text(f"and {len(rooms)} more" + (f", {ill} of them not well" if ill else ", all well"), style="dim")]


def _trend(per_s: float) -> Text:
    if abs(per_s) < 0.05:  # noqa: PLR2004  # what would be shown as 0.0
        return Text("=", "dim")
    return Text(f"{per_s:+.1f}/s", WARNING if per_s > 0 else "green")


def _dave(room: Room) -> Text:
    if not room.dave_version:
        return Text("off", "dim")
    if not room.dave_ready:
        return Text("waits", ALARM)
    return Text(f"v{room.dave_version} e{room.dave_epoch}", WARNING if room.held_packets else "")


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 or not seconds else f"{seconds * 1000:.0f} ms"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _workers(look: Look) -> list[ConsumerLag]:
    consumers = look.jobs.consumers if look.jobs else ()
    return [consumer for consumer in consumers if consumer.name == RENDER_CONSUMER]


def _streams(streams: Sequence[StreamLag]) -> Table:
    table = _table(
        ("STREAM", "MESSAGES", "SIZE", "CONSUMER", "LAG", "PENDING", "ACK PENDING", "REDELIVERED", "ACK FLOOR")
    )
    for stream in streams:
        held = (stream.stream, str(stream.messages), human_bytes(stream.bytes))
        if not stream.consumers:
            table.add_row(*held, "-", "", "", "", "", "")
        for index, consumer in enumerate(stream.consumers):
            table.add_row(*(held if index == 0 else ("", "", "")), *_consumer(consumer))
    return table


def _consumer(consumer: ConsumerLag) -> tuple[str, ...]:
    numbers = (
        consumer.lag_messages,
        consumer.pending,
        consumer.ack_pending,
        consumer.redelivered,
        consumer.ack_floor,
    )
    return (consumer.name, *map(str, numbers))


def _table(columns: Iterable[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in LEFT else "right", no_wrap=True, overflow="ellipsis")
    return table
