"""`retold load` as a user runs it: rooms of its own, a capture of its own, and figures that add up."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ops.loopback.crowd import CrowdSpec

pytestmark = pytest.mark.long

RUN_S = 90


def test_every_packet_of_every_room_is_recorded() -> None:
    """Four rooms, two of which have two speakers: what was sent is acknowledged, and each process has its price."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", "load", "--rooms", "4", "--speakers", "1.5", "--seconds", "3", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["sent"] == 6 * (3 * 50 + 5)
    assert (result["recorded"], result["missing"], result["undecryptable"], result["lost"]) == (result["sent"], 0, 0, 0)
    for name in ("capture", "nats_server", "crowd"):
        assert result[name]["us_per_packet"] > 0
        assert result[name]["rss_bytes"] > 1_000_000


@pytest.mark.parametrize(("speakers", "people"), [(1.3, 13), (0.5, 10), (2.0, 20), (3.7, 37)])
def test_a_crowd_has_as_many_speakers_as_asked(speakers: float, people: int) -> None:
    """On average over the rooms; a room is never empty."""
    rooms = list(CrowdSpec(rooms=10, speakers=speakers).specs())
    assert sum(len(room.plan.people) for room in rooms) == people
    assert len({room.guild_id for room in rooms}) == len({room.channel_id for room in rooms}) == 10
    everybody = [person.user_id for room in rooms for person in room.plan.people]
    assert len(set(everybody)) == len(everybody)
