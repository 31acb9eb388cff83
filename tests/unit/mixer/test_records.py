"""What is kept for a session's report, and the report."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np

from contracts.recipes import FOLLOWED_REPORT
from mixer.columns import STAMP
from mixer.engine import engine_string
from mixer.formats.ffmpeg import find_ffmpeg
from mixer.logfile import LogFile, write_log
from mixer.records import Records
from mixer.render import Order, render
from mixer.report import SpeakerReport, report_track
from mixer.timeline import Timeline
from tests.builders import Network, build_session, replay_of

SECONDS = 150.0
SKEW_PPM = 80
APART_MS = 0.3  # a batch that is published late is settled late: a slip may fall elsewhere


class Told(msgspec.Struct):
    speakers: tuple[SpeakerReport, ...]
    malformed_messages: int


def test_the_report_of_a_followed_session_is_that_of_its_tracks(tmp_path: Path):
    """Counted as it was heard, it says of everybody what a whole timeline says, the other alignment included."""
    built = build_session(SECONDS, 2, 0.4, 5, network=Network(jitter_ms=5, loss=0.03, skew_ppm=SKEW_PPM), speech=True)
    asyncio.run(write_log(tmp_path / "log", built.session, replay_of(built.messages)))
    ffmpeg = find_ffmpeg()
    order = Order(
        session=built.session,
        recipe=FOLLOWED_REPORT,
        log_end=len(built.messages),
        engine=engine_string(ffmpeg),
        ffmpeg=ffmpeg,
    )
    files = render(tmp_path / "log", order, tmp_path).files
    told = msgspec.json.decode(Path(files[0].path).read_bytes(), type=Told)
    with LogFile(tmp_path / "log") as file:
        session = file.fold()
        follow, hindsight = (Timeline(session.tracks, kind) for kind in ("follow", "hindsight"))
        whole = [report_track(track, follow.place(track), hindsight.place(track)) for track in session.tracks]
    assert [each.user_id for each in told.speakers] == sorted(person.user_id for person in built.people)
    for found, expected in zip(told.speakers, whole, strict=True):
        assert found.difference_ms is not None
        assert expected.difference_ms is not None
        assert abs(found.difference_ms - expected.difference_ms) <= APART_MS
        for name in ("outcomes", "lost", "loss", "talk_s", "late", "steps", "undecryptable"):
            assert getattr(found, name) == getattr(expected, name), name
        assert found.skew_ppm[0] is None or abs(found.skew_ppm[0] - SKEW_PPM) < SKEW_PPM
    assert not (tmp_path / "packets").exists()


def test_what_was_written_behind_a_state_is_cut_off(tmp_path: Path):
    """Files that a state does not know go, others are as long as it says."""
    stamps = np.zeros(3, dtype=STAMP)
    stamps["sequence"] = (1, 2, 3)
    records = Records(tmp_path)
    records.hear(1, 7, stamps)
    sizes = records.save()
    records.hear(1, 7, stamps)
    records.hear(1, 8, stamps)
    records.save()
    again = Records(tmp_path, sizes)
    assert again.rows((1, 7))["stamp"]["sequence"].tolist() == [1, 2, 3]
    assert len(again.rows((1, 8))) == 0
    again.hear(1, 7, stamps[:1])
    assert again.rows((1, 7))["stamp"]["sequence"].tolist() == [1, 2, 3, 1]
