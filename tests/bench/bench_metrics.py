"""What being watched costs: capture's figures of a hundred rooms, on the event loop and beside it; a look at JetStream.

The floor of reading is asking each room for nothing but its id; that of writing is a line of text for each series.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from capture.figures import status_readings
from contracts.commands import LiveSession, LiveSpeaker, Status
from contracts.ids import new_id
from contracts.jetstream.connection import connect
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.metrics.figures import Figures
from contracts.streams import FOLLOW_CONSUMER, session_stream_name
from ops.embedded import EmbeddedServer
from ops.look import Lookout
from ops.monitor import Monitor

ROOMS: Final = 100
SESSIONS: Final = 300  # streams with a follower each
ROUNDS: Final = 5  # the best of them counts: the others carry the neighbours' load


def rows() -> Iterator[dict[str, Any]]:
    """Milliseconds of CPU."""
    status = Status(ready=True, sessions=tuple(_live() for _ in range(ROOMS)))
    figures = Figures()
    readings = list(status_readings(status))
    reading = _best_ms(lambda: list(status_readings(status)))
    bare = _best_ms(lambda: [live.session for live in status.sessions for _ in range(len(readings) // ROOMS)])
    yield _row("metrics: read 100 rooms, on the event loop", reading, bare)
    writing = _best_ms(lambda: figures._write(readings))
    lines = _best_ms(lambda: "".join(f"{metric.name}{{{labels}}} {value}\n" for metric, value, labels in readings))
    yield _row("metrics: write 100 rooms, beside it", writing, lines)
    by_monitor, by_api = asyncio.run(_looks())
    yield _row("metrics: look at 600 streams, 300 consumers, by /jsz", by_monitor, None)
    yield _row("metrics: the same, by JetStream's API", by_api, by_monitor)


async def _looks() -> tuple[float, float]:
    """CPU of a look by each source, both sides of the wire not counted together: this process' alone."""
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedServer(Path(folder)) as server, Monitor(server.monitor_url) as monitor:
            bus = await connect(server.url, name="bench")
            await ensure_shared(bus)
            for _ in range(SESSIONS):
                await create_session(bus, session := new_id())
                stream = session_stream_name(session)
                config = {"durable_name": FOLLOW_CONSUMER, "ack_policy": "all"}
                await bus.api(f"CONSUMER.CREATE.{stream}.{FOLLOW_CONSUMER}", {"stream_name": stream, "config": config})
            spent = [await _look_ms(Lookout(bus, source)) for source in (monitor, None)]
            await bus.close()
            return spent[0], spent[1]


async def _look_ms(lookout: Lookout) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        await lookout.look(ask_capture=False)
        best = min(best, time.process_time() - begun)
    return best * 1e3


def _best_ms(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        best = min(best, time.process_time() - begun)
    return best * 1e3


def _row(name: str, value: float, floor: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 2),
        "unit": "ms CPU",
        "floor": None if floor is None else round(floor, 2),
        "ratio": None if floor is None else round(value / floor, 1),
    }


def _live() -> LiveSession:
    return LiveSession(
        session=new_id(),
        guild_id="1",
        channel_id="2",
        elapsed_s=60.0,
        take=1,
        packets={"recorded": 3000, "undecryptable": 0, "lost": 0, "duplicates": 0},
        unacked_batches=0,
        held_packets=0,
        dave_version=1,
        last_packet_age_s=0.02,
        speakers=(LiveSpeaker(state="heard", user_id="1"), LiveSpeaker(state="quiet", user_id="2")),
    )
