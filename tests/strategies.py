"""Hypothesis strategies for the values that cross wires."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from contracts import events
from contracts.bundle import BundleMessage
from contracts.ids import ALPHABET, ID_LENGTH
from contracts.packets import Outcome, Packet, PacketBatch
from contracts.recipes import DEEP, HELD, MOST_KBPS, MP3_KBPS, Recipe

u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
snowflakes = st.integers(0, 2**64 - 1).map(str)
ids = st.text(ALPHABET, min_size=ID_LENGTH, max_size=ID_LENGTH)
tracks = st.builds(
    events.TrackCount,
    take=st.integers(1, 9),
    ssrc=u32,
    batches=st.integers(0, 10**6),
    outcomes=st.dictionaries(st.sampled_from(Outcome).map(lambda outcome: outcome.name), st.integers(0, 10**6)),
    user_id=st.none() | snowflakes,
    duplicates=st.integers(0, 10**6),
    lost=st.integers(0, 10**6),
)
_identity = {"id": ids, "session": ids, "at_ns": i64, "unix_ns": i64}
_take = {**_identity, "take": st.integers(1, 99)}
facts = st.one_of(
    st.builds(events.PanelPosted, **_identity, channel_id=snowflakes, message_id=snowflakes),
    st.builds(events.NoticeSpoken, **_identity, language=text),
    st.builds(events.ConsentRuled, **_identity, mode=st.sampled_from(["notice", "opt-out", "opt-in"])),
    st.builds(events.SpeakerWithheld, **_identity, user_id=snowflakes, why=text),
    st.builds(events.SpeakerAdmitted, **_identity, user_id=snowflakes),
    st.builds(events.PersonForgotten, **_identity, user_id=snowflakes, messages=u32, packets=u32, kept_sha256=text),
    st.builds(
        events.SessionStarted,
        **_identity,
        guild_id=snowflakes,
        guild_name=text,
        channel_id=snowflakes,
        channel_name=text,
        name=text,
        started_by=st.none() | snowflakes,
        boot_id=text,
        boottime_ns=i64,
        recorder=text,
    ),
    st.builds(
        events.TakeOpened,
        **_take,
        cause=text,
        channel_id=snowflakes,
        ssrc=u32,
        mode=text,
        dave_version=st.integers(0, 2),
    ),
    st.builds(events.TakeClosed, **_take, cause=text),
    st.builds(
        events.EpochChanged,
        **_take,
        epoch=u32,
        dave_version=st.integers(0, 2),
        members=st.lists(snowflakes, max_size=5).map(tuple),
        privacy_code=text,
    ),
    st.builds(events.SpeakerJoined, **_take, user_id=snowflakes, name=text, bot=st.booleans()),
    st.builds(events.SpeakerLeft, **_take, user_id=snowflakes),
    st.builds(events.SpeakerIdentified, **_take, ssrc=u32, user_id=snowflakes, name=text, by=text),
    st.builds(events.NoteAdded, **_identity, text=text, author=text),
    st.builds(
        events.SessionEnded,
        **_identity,
        cause=text,
        tracks=st.lists(tracks, max_size=3).map(tuple),
        ended_by=st.none() | snowflakes,
        ignored=st.dictionaries(text, st.integers(0, 10**6), max_size=3),
    ),
)
packets = st.builds(
    Packet,
    sequence=u16,
    timestamp=u32,
    arrival_us=st.integers(-(10**9), 10**9),
    payload=st.binary(max_size=60),
    outcome=st.sampled_from(Outcome),
    level=st.integers(-1, 127),
)
batches = st.builds(
    PacketBatch,
    take=st.integers(1, 99),
    ssrc=u32,
    number=u32,
    base_ns=st.integers(-(10**12), 2**55 - 1),
    packets=st.lists(packets, max_size=25).map(tuple),
)
people = st.lists(snowflakes, max_size=4)


def _recipe(
    start: int, length: int | None, kbps: int | None, choices: tuple[int | None, int, str], **fields: Any
) -> Recipe:
    """A recipe that makes sense: a range that is not empty, quality and container where there are any."""
    quality, bits, container = choices
    output, kind = fields["output"], fields["format"]
    kbps = kbps if (output, kind) in MOST_KBPS else None
    if kind == "mp3" and kbps is not None:
        kbps = min(MP3_KBPS, key=lambda rate: abs(rate - kbps))
    return Recipe(
        start_tick=start,
        stop_tick=length and start + length,
        bitrate_kbps=kbps,
        vbr_quality=quality if kind == "mp3" and kbps is None else None,
        bits=bits if kind in DEEP else 16,
        container=container if output == "tracks" and kind in HELD.get(container, ()) else "files",
        **fields,
    )


session_ids = st.text(ALPHABET, min_size=16, max_size=16)
recipes = st.builds(
    _recipe,
    output=st.sampled_from(["mix", "tracks"]),
    format=st.sampled_from(["flac", "opus", "mp3", "wav", "m4a", "dat", "json"]),
    people=st.none() | people.map(tuple),
    mute=people.map(tuple),
    gain_db=st.dictionaries(snowflakes, st.floats(-60, 30) | st.just(0.0) | st.integers(-60, 30), max_size=3),
    start=st.integers(0, 10**9),
    length=st.none() | st.integers(1, 10**9),
    kbps=st.none() | st.integers(16, 256),
    choices=st.tuples(st.none() | st.integers(0, 9), st.sampled_from([16, 24]), st.sampled_from(["files", *HELD])),
    loudness=st.sampled_from([None, "followed", "exact", "off"]),
    levelling=st.none() | st.booleans(),
    gate_db=st.none() | st.floats(-90, -10) | st.integers(-90, -10),
    silence=st.sampled_from(["keep", "trim"]),
    chapters=st.booleans(),
    alignment=st.sampled_from([None, "follow", "hindsight", "arrival"]),
)
messages = st.builds(BundleMessage, subject=text, message_id=text, data=st.binary(max_size=200))
