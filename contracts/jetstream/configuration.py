"""Definitions of streams and buckets in JetStream's own words, but for how many copies are kept."""

from __future__ import annotations

from typing import Any

from contracts import streams
from contracts.clock import NS_PER_SECOND


def stream_config(definition: streams.StreamDefinition) -> dict[str, Any]:
    """A definition as JetStream's own configuration."""
    return {
        "name": definition.name,
        "subjects": list(definition.subjects),
        "retention": definition.retention,
        "storage": definition.storage,
        "max_age": int(definition.max_age_s * NS_PER_SECOND),
        "duplicate_window": int(definition.duplicate_window_s * NS_PER_SECOND),
        "max_msgs_per_subject": definition.per_subject,
        "discard": "old",
        "allow_direct": not definition.append_only,
        "deny_delete": definition.append_only,
        "deny_purge": definition.append_only,
        "description": definition.description,
    }


def bucket_config(bucket: str) -> dict[str, Any]:
    """A key-value bucket as JetStream's own configuration."""
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "retention": "limits",
        "storage": "file",
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }


def object_bucket_config(session: str) -> dict[str, Any]:
    """A session's object bucket as JetStream's own configuration (ADR-20)."""
    return {
        "name": streams.object_stream_name(session),
        "subjects": [f"$O.{session}.C.>", f"$O.{session}.M.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "description": f"artifacts of session {session}",
    }
