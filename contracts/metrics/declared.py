"""Every metric that Retold exports, declared once, with its help.

`retold_*` are ours. JetStream's have the names of prometheus-nats-exporter, so that its dashboards and rules work, too.
What carries the label `session` is exported while that session runs, and goes with it: old sessions are sums.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec


class Declared(msgspec.Struct, frozen=True):
    """A metric: its name, its kind, what it says, its labels in order, and a histogram's upper bounds."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "summary"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, text: str, *labels: str) -> Declared:
    return Declared(name, "counter", text, labels)


def _gauge(name: str, text: str, *labels: str) -> Declared:
    return Declared(name, "gauge", text, labels)


# Every process
NATS_CONNECTED: Final = _gauge("retold_nats_connected", "Whether NATS is there.")
NATS_RECONNECTS: Final = _counter("retold_nats_reconnects_total", "Times that the connection to NATS came back.")
NATS_DENIED: Final = _gauge("retold_nats_denied", "Whether NATS refused something for want of permission.")
DISK_FREE: Final = _gauge("retold_disk_free_bytes", "Free on the disk of RETOLD_DATA, or of scratch files.", "place")

# Capture
CAPTURE_READY: Final = _gauge("retold_capture_ready", "Whether the bot is logged in and takes requests.")
CAPTURE_SESSIONS: Final = _gauge("retold_capture_sessions", "Sessions that this capture records.")
PUBLISH_ACK: Final = Declared(
    "retold_publish_ack_seconds",
    "histogram",
    "From the first sending of a message to JetStream until it was acknowledged.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)
SESSION_PACKETS: Final = _counter(
    "retold_session_packets_total",
    "Packets by outcome: recorded, undecryptable, lost, duplicates.",
    "session",
    "outcome",
)
SESSION_UNACKED: Final = _gauge("retold_session_unacked_messages", "Messages not acknowledged by JetStream.", "session")
SESSION_UNSAVED: Final = _gauge(
    "retold_session_unsaved_seconds", "How long ago the oldest thing was heard that is not in the log.", "session"
)
SESSION_RESENT: Final = _counter("retold_session_resent_total", "Messages sent again, by this capture.", "session")
SESSION_ACK: Final = Declared(
    "retold_session_publish_ack_seconds",
    "summary",
    "Publish-ack latency of the last few hundred messages, by quantile.",
    ("session", "quantile"),
)
SESSION_SPOOL: Final = _gauge("retold_session_spool_bytes", "Size of the session's spool on this disk.", "session")
SESSION_SPOOL_FAILURES: Final = _counter(
    "retold_session_spool_failures_total", "Messages that the spool's disk did not take.", "session"
)
SESSION_DROPPED: Final = _counter(
    "retold_session_dropped_total", "Messages that neither disk nor server took: they are lost.", "session"
)
SESSION_HELD: Final = _gauge("retold_session_held_packets", "Packets that wait for a key.", "session")
SESSION_UNHEARD: Final = _gauge(
    "retold_session_unheard_seconds",
    "Seconds since anything came while Discord says that somebody speaks; 0 while nobody does.",
    "session",
)
SESSION_QUIET: Final = _gauge("retold_session_quiet_seconds", "Seconds since the last packet of audio.", "session")
SESSION_SPEAKERS: Final = _gauge(
    "retold_session_speakers", "People in the call, by how they are heard now.", "session", "state"
)
SESSION_DAVE: Final = _gauge("retold_session_dave_version", "DAVE's protocol version; 0 = not encrypted.", "session")
SESSION_DAVE_READY: Final = _gauge(
    "retold_session_dave_ready", "Whether the recorder has the keys of the encrypted call, or needs none.", "session"
)
SESSION_EPOCH: Final = _gauge("retold_session_dave_epoch", "MLS epoch of the encrypted call.", "session")
SESSION_DEAFENED: Final = _gauge("retold_session_deafened", "Whether a moderator deafened the recorder.", "session")
SESSION_TAKES: Final = _gauge(
    "retold_session_take", "Number of the take, the voice connection, since the start.", "session"
)

# Mixer
RENDERS: Final = _counter(
    "retold_renders_total",
    "Deliveries of jobs ended: stored, found, retried, given_up, cancelled, returned.",
    "outcome",
)
RENDER_SECONDS: Final = Declared(
    "retold_render_seconds",
    "histogram",
    "From taking a job until its files were stored.",
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000),
)
RENDERING: Final = _gauge("retold_renders_under_way", "Jobs that this mixer works on.")
REDELIVERED: Final = _counter(
    "retold_renders_redelivered_total", "Jobs that this mixer got after somebody had had them."
)
FOLLOWED: Final = _gauge("retold_sessions_followed", "Running sessions that this mixer follows.")

# Keeper
KEEPER_STEPS: Final = _counter(
    "retold_keeper_steps_total", "What this keeper did: warn, spare, delete, erase, archive.", "step"
)
SESSIONS_DAMAGED: Final = _gauge(
    "retold_sessions_damaged", "Sessions whose log lacks something that its end promised, as far as this keeper read."
)
ARCHIVE_FAILURES: Final = _counter(
    "retold_keeper_archive_failures_total", "Times that the archive could not be reached, or took no more."
)

# Gateway
REQUESTS: Final = _counter(
    "retold_gateway_requests_total", "Requests answered, by route and status.", "route", "status"
)
SENT_BYTES: Final = _counter(
    "retold_gateway_sent_bytes_total", "Bytes of bodies sent by this process, by route.", "route"
)
REQUEST_SECONDS: Final = _counter(
    "retold_gateway_request_seconds_total", "Time from request to last byte, by route.", "route"
)
HANDED_OVER: Final = _counter("retold_gateway_handed_over_total", "Downloads left to nginx (X-Accel-Redirect).")
TRANSFERS: Final = _gauge("retold_gateway_transfers", "Downloads and event streams under way.")
MIXES: Final = _gauge("retold_gateway_mixes", "Render jobs of visitors under way.")
KEYS: Final = _gauge("retold_gateway_keys", "Public keys that open links.")

# `retold metrics`: the directory, the queue, the disk
SESSION_INFO: Final = _gauge(
    "retold_session_info", "A running session: its room and server; always 1.", "session", "room", "guild"
)
SESSIONS_STORED: Final = _gauge("retold_sessions_stored", "Sessions in the log, running ones included.")
SESSIONS_ABANDONED: Final = _gauge(
    "retold_sessions_abandoned", "Sessions that have not ended, and that nobody records."
)
KEPT: Final = _gauge("retold_keeper_works", "Whether a keeper works: without one nothing goes by age, or is erased.")
ARCHIVE_AWAY: Final = _gauge("retold_archive_away", "Whether the keeper cannot reach the archive in S3.")
STORED_BYTES: Final = _gauge("retold_stored_bytes", "What is stored, by kind: log, files, other.", "kind")
ROOM_BYTES: Final = _gauge("retold_storage_room_bytes", "What JetStream may still store, by its limit and its disk.")
STORAGE_LEFT: Final = _gauge("retold_storage_left_seconds", "Time until that is full, at the pace of the last week.")
JOBS_QUEUED: Final = _gauge("retold_jobs_queued", "Render jobs in the queue, those under way included.")
JOB_OLDEST: Final = _gauge("retold_job_oldest_seconds", "Age of the oldest render job; 0 if there is none.")
FROZEN: Final = _gauge(
    "retold_nats_frozen_streams", "Streams that nats-server writes no more, as its disk was full; 1 if it gave up all."
)
GIVEN_UP: Final = _gauge("retold_renders_given_up", "Dead letters: renders of the last day that were given up.")
ADVISORIES: Final = _counter(
    "retold_advisories_total", "Advisories of NATS since this exporter started, by kind.", "kind"
)

# JetStream, as prometheus-nats-exporter has them
_STREAM: Final = ("account", "stream_name")
_CONSUMER: Final = ("account", "stream_name", "consumer_name")
STREAM_MESSAGES: Final = _gauge("jetstream_stream_total_messages", "Messages in the stream.", *_STREAM)
STREAM_BYTES: Final = _gauge("jetstream_stream_total_bytes", "Bytes in the stream.", *_STREAM)
STREAM_FIRST: Final = _gauge("jetstream_stream_first_seq", "First sequence number in the stream.", *_STREAM)
STREAM_LAST: Final = _gauge("jetstream_stream_last_seq", "Last sequence number in the stream.", *_STREAM)
STREAM_CONSUMERS: Final = _gauge("jetstream_stream_consumer_count", "Consumers of the stream.", *_STREAM)
STREAM_SUBJECTS: Final = _gauge("jetstream_stream_subject_count", "Subjects in the stream.", *_STREAM)
CONSUMER_PENDING: Final = _gauge("jetstream_consumer_num_pending", "Messages not delivered yet.", *_CONSUMER)
CONSUMER_ACK_PENDING: Final = _gauge(
    "jetstream_consumer_num_ack_pending", "Messages delivered and not acknowledged.", *_CONSUMER
)
CONSUMER_REDELIVERED: Final = _gauge(
    "jetstream_consumer_num_redelivered", "Messages under way that were delivered more than once.", *_CONSUMER
)
CONSUMER_WAITING: Final = _gauge("jetstream_consumer_num_waiting", "Requests that wait for messages.", *_CONSUMER)
CONSUMER_DELIVERED: Final = _gauge(
    "jetstream_consumer_delivered_stream_seq", "Stream sequence of the last message delivered.", *_CONSUMER
)
CONSUMER_ACK_FLOOR: Final = _gauge(
    "jetstream_consumer_ack_floor_stream_seq", "Stream sequence up to which all is acknowledged.", *_CONSUMER
)
SERVER_STREAMS: Final = _gauge("jetstream_server_total_streams", "Streams.")
SERVER_CONSUMERS: Final = _gauge("jetstream_server_total_consumers", "Consumers.")
SERVER_MESSAGES: Final = _gauge("jetstream_server_total_messages", "Messages in all streams.")
SERVER_BYTES: Final = _gauge("jetstream_server_total_message_bytes", "Bytes in all streams.")
SERVER_MAX_STORAGE: Final = _gauge("jetstream_server_max_storage", "What JetStream may store, bytes.")
SERVER_MAX_MEMORY: Final = _gauge("jetstream_server_max_memory", "What JetStream may keep in memory, bytes.")
ACCOUNT_STORAGE: Final = _gauge("jetstream_account_storage_used", "Bytes that the account stores.", "account")
VARZ: Final = {
    "connections": _gauge("gnatsd_varz_connections", "Connections to the server."),
    "subscriptions": _gauge("gnatsd_varz_subscriptions", "Subscriptions."),
    "slow_consumers": _gauge("gnatsd_varz_slow_consumers", "Connections cut because they read too slowly."),
    "in_msgs": _gauge("gnatsd_varz_in_msgs", "Messages that came to the server."),
    "out_msgs": _gauge("gnatsd_varz_out_msgs", "Messages that left it."),
    "in_bytes": _gauge("gnatsd_varz_in_bytes", "Bytes that came."),
    "out_bytes": _gauge("gnatsd_varz_out_bytes", "Bytes that left."),
    "mem": _gauge("gnatsd_varz_mem", "Resident memory of the server, bytes."),
    "cpu": _gauge("gnatsd_varz_cpu", "The server's share of a core, percent."),
    "stats_storage": _gauge("gnatsd_varz_jetstream_stats_storage", "Bytes stored in files."),
    "stats_memory": _gauge("gnatsd_varz_jetstream_stats_memory", "Bytes stored in memory."),
    "config_max_storage": _gauge("gnatsd_varz_jetstream_config_max_storage", "The limit for files, bytes."),
    "config_max_memory": _gauge("gnatsd_varz_jetstream_config_max_memory", "The limit for memory, bytes."),
}


def every() -> list[Declared]:
    """All of them."""
    ours = [value for value in globals().values() if isinstance(value, Declared)]
    return [*ours, *VARZ.values()]
