"""What capture exports: how each of its sessions goes, as its status says it, and how publishing goes for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from contracts.commands import LiveSession, Status
from contracts.jetstream.connection import Bus
from contracts.metrics import declared
from contracts.metrics.figures import Figures, Reading, connection_readings
from contracts.settings import Settings


def capture_figures(settings: Settings, bus: Bus, status: Callable[[], Status]) -> Figures:
    """The figures of one capture; `status` is asked anew for each reading."""
    figures = Figures()
    figures.read(connection_readings(bus, {"data": settings.data}))
    bus.on_ack = figures.histogram(declared.PUBLISH_ACK).observe
    figures.read(lambda: status_readings(status()))
    return figures


def status_readings(status: Status) -> Iterator[Reading]:
    """A status as readings; a session that ended has none."""
    yield Reading(declared.CAPTURE_READY, status.ready)
    yield Reading(declared.CAPTURE_SESSIONS, len(status.sessions))
    for live in status.sessions:
        yield from _session_readings(live)


def _session_readings(live: LiveSession) -> Iterator[Reading]:
    session = live.session
    for metric, value in (
        (declared.SESSION_UNACKED, live.unacked_batches),
        (declared.SESSION_UNSAVED, live.elapsed_s - live.saved_up_to_s),
        (declared.SESSION_RESENT, live.resent),
        (declared.SESSION_SPOOL, live.spool_bytes),
        (declared.SESSION_SPOOL_FAILURES, live.spool_failures),
        (declared.SESSION_DROPPED, live.dropped_batches),
        (declared.SESSION_HELD, live.held_packets),
        (declared.SESSION_UNHEARD, live.unheard_s or 0.0),
        (declared.SESSION_QUIET, live.last_packet_age_s),
        (declared.SESSION_DAVE, live.dave_version),
        (declared.SESSION_DAVE_READY, live.dave_ready or not live.speakers),  # alone, it needs none
        (declared.SESSION_EPOCH, live.dave_epoch),
        (declared.SESSION_DEAFENED, live.deafened),
        (declared.SESSION_TAKES, live.take),
    ):
        if value is not None:
            yield Reading(metric, value, (session,))
    for outcome, count in live.packets.items():
        yield Reading(declared.SESSION_PACKETS, count, (session, outcome))
    for quantile, seconds in (("0.5", live.ack_p50_s), ("0.99", live.ack_p99_s)):
        yield Reading(declared.SESSION_ACK, seconds, (session, quantile))
    for state, people in Counter(speaker.state for speaker in live.speakers).items():
        yield Reading(declared.SESSION_SPEAKERS, people, (session, state))
