"""The whole path as a stranger meets it: `retold demo`, then the commands and links of the installation it holds.

Everything is real: the processes, nats-server, FFmpeg, HTTP, and discord.py against the loopback Discord.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from contracts.bundle import BundleReader
from contracts.packets import Outcome, decode_batch
from contracts.subjects import PacketSubject, parse
from tests.judge import EDGE_S, decode_file, verdicts

pytestmark = pytest.mark.long

SECONDS, SPEAKERS, SEED = 14, 4, 7
START_S, HOLD_S = 90, 600
MP3_PADDING_S = 0.05  # the encoder's delay and padding, where a player does not trim them
SHORT_S = 2 * EDGE_S
KNOWN_PAYLOADS = 40  # enough to find any block that was left behind
LEAST_PAYLOAD_BYTES = 40  # shorter ones could occur by chance
MIX_SHARE = 0.3  # of a track's own level: the mix may turn a voice down, never lose it


class Installation:
    """A demo that keeps serving, and what it printed."""

    def __init__(self, directory: Path, process: subprocess.Popen[str], result: dict[str, Any]) -> None:
        self.directory = directory
        self.process = process
        self.result = result
        self.session: str = result["session"]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """One more `retold` command against this installation."""
        environ = {**os.environ, "RETOLD_DATA": str(self.directory / "out" / "data")}
        return subprocess.run(
            [sys.executable, "-m", "ops.cli.main", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )

    def json(self, *arguments: str) -> Any:
        """A command's JSON."""
        return json.loads(self.run(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A demo with a newcomer and a leaver in mid-call, encrypted, that goes on serving."""
    directory = tmp_path_factory.mktemp("demo")
    with start_demo(
        directory, "--hold", str(HOLD_S), "--speakers", str(SPEAKERS), "--seconds", str(SECONDS)
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield Installation(directory, process, json.loads(line))
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def start_demo(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RETOLD_")}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "ops.cli.main", "demo", "--json", "--seed", str(SEED)),
            *("--out", str(directory / "out"), *arguments),
        ],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=(directory / "stderr").open("w"),
        text=True,
    )


def files(demo: Installation, kind: str) -> dict[str | None, Path]:
    """Downloaded files of a format, by speaker; None = the mix."""
    rows = [row for row in demo.result["artifacts"] if row["format"] == kind]
    return {row["user_id"]: demo.directory / "out" / row["name"] for row in rows}


def test_every_packet_that_was_sent_is_recorded(demo: Installation) -> None:
    """Nothing is lost, nothing is undecryptable, in an encrypted call that people join and leave."""
    packets = demo.result["packets"]
    assert packets["sent"] > SECONDS * 10
    assert packets == {"sent": packets["sent"], "recorded": packets["sent"], "undecryptable": 0, "lost": 0}


def test_the_result_says_what_it_should(demo: Installation) -> None:
    """The JSON has the fields that programs rely on, and the files are what it says."""
    assert set(demo.result) == {"session", "page_url", "plan", "packets", "artifacts", "timings_s"}
    assert len(demo.result["plan"]) == SPEAKERS
    assert len(demo.result["artifacts"]) == 1 + 2 * SPEAKERS
    for row in demo.result["artifacts"]:
        content = (demo.directory / "out" / row["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (row["bytes"], row["sha256"])


@pytest.mark.parametrize("kind", ["flac", "opus"])
def test_each_person_sounds_where_the_plan_says(demo: Installation, kind: str) -> None:
    """Second by second: sound where it is required, silence where it is forbidden, in every track."""
    tracks = files(demo, kind)
    for person in demo.result["plan"]:
        complaints = verdicts(decode_file(tracks[person["user_id"]]), [tuple(span) for span in person["spoke"]])
        assert not complaints, (person, complaints)


def test_all_tracks_have_equal_length(demo: Installation) -> None:
    """Every track is as long as the session, to the sample; the MP3 to its encoder's padding."""
    lengths = {len(decode_file(path)) for kind in ("flac", "opus") for path in files(demo, kind).values()}
    assert len(lengths) == 1
    durations = {row["duration_s"] for row in demo.result["artifacts"]}
    assert durations == {lengths.pop() / 48_000}
    mix = len(decode_file(files(demo, "mp3")[None])) / 48_000
    assert abs(mix - durations.pop()) < MP3_PADDING_S


def test_the_mix_holds_everybody(demo: Installation) -> None:
    """Wherever somebody speaks, the mix is about as loud as their track; where nobody does, it is silent."""
    mix = decode_file(files(demo, "mp3")[None])
    everybody = [tuple(span) for person in demo.result["plan"] for span in person["spoke"]]
    for person in demo.result["plan"]:
        track = decode_file(files(demo, "flac")[person["user_id"]])
        for start, stop in person["spoke"]:
            if stop - start < SHORT_S:
                continue  # of one or two frames nothing is left between the edges
            cut = slice(round(start * 48_000), round(stop * 48_000))
            alone = _together(track[cut, 0], mix[cut, 0])
            assert alone > MIX_SHARE, (person["name"], start, alone)
    forbidden = [complaint for complaint in verdicts(mix, everybody) if "forbidden" in complaint]
    assert not forbidden


def _together(track: np.ndarray, mix: np.ndarray) -> float:
    """How much of a track is in a mix: the gain that fits best, whatever else sounds."""
    length = min(len(track), len(mix))
    track, mix = track[:length].astype(np.float64), mix[:length].astype(np.float64)
    return float(np.dot(track, mix) / np.dot(track, track))


def test_links_open_only_what_they_name(demo: Installation) -> None:
    """A link serves ranges; tampered, wrong and expired ones get problem+json and nothing else."""
    row = demo.result["artifacts"][0]
    whole = (demo.directory / "out" / row["name"]).read_bytes()
    with httpx.Client() as client:
        head = client.head(row["url"])
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(whole)), b"")
        assert head.headers["etag"] == f'"{row["sha256"]}"'
        part = client.get(row["url"], headers={"Range": "bytes=100-299"})
        assert (part.status_code, part.content) == (206, whole[100:300])
        base, token, name = _split(row["url"])
        header, payload, signature = token.split(".")
        broken = f"{header}.{payload}.{signature[:-4]}AAAA"
        for bad in (broken, "x", f"{header}.{payload}."):
            refused = client.get(f"{base}/d/{bad}/{name}")
            assert refused.status_code in {401, 403, 404}
            assert refused.headers["content-type"].startswith("application/problem+json")
            assert token not in refused.text
        page_token = demo.result["page_url"].rpartition("/s/")[2]
        assert client.get(f"{base}/d/{page_token}/{name}").status_code in {401, 403, 404}
        page = client.get(demo.result["page_url"])
        assert page.status_code == 200
        assert "<audio" in page.text
        short = demo.json("link", demo.session, "--hours", "0.0003")["url"]
        assert client.get(short).status_code == 200
        deadline = time.monotonic() + 20
        while (answer := client.get(short)).status_code == 200:
            assert time.monotonic() < deadline, "a link of one second still opens"
            time.sleep(0.2)
        assert answer.status_code in {401, 403, 410}


def _split(url: str) -> tuple[str, str, str]:
    base, _, rest = url.partition("/d/")
    token, _, name = rest.partition("/")
    return base, token, name


def test_the_same_mix_again_is_the_same_file(demo: Installation, tmp_path: Path) -> None:
    """The same recipe gives the same bytes, another recipe another file."""
    again = demo.json("mix", demo.session, "--format", "mp3", "--out", str(tmp_path))
    assert again["artifacts"][0]["sha256"] == demo.result["artifacts"][0]["sha256"]
    ada = demo.result["plan"][0]["name"]
    other = demo.json("mix", demo.session, "--mute", ada, "--out", str(tmp_path / "other"))
    assert other["artifacts"][0]["sha256"] != again["artifacts"][0]["sha256"]
    part = demo.json("mix", demo.session, "--format", "wav", "--from", "2", "--to", "0:05", "--out", str(tmp_path))
    assert part["artifacts"][0]["duration_s"] == 3.0
    assert len(decode_file(tmp_path / part["artifacts"][0]["name"])) == 3 * 48_000


def test_lag_shows_what_each_stream_holds(demo: Installation) -> None:
    """Streams with messages, the mixers' consumer with its lag, and capture's own state."""
    lag = demo.json("lag")
    streams = {stream["stream"]: stream for stream in lag["streams"]}
    assert streams[f"REC_{demo.session}"]["messages"] > SECONDS
    mixers = [consumer for consumer in streams["JOBS"]["consumers"] if consumer["name"] == "mixers"]
    assert [consumer["lag_messages"] for consumer in mixers] == [0]
    assert lag["capture"]["ready"] is True
    assert f"REC_{demo.session}" in demo.run("lag").stdout


def test_wrong_use_is_told_clearly(demo: Installation) -> None:
    """Unknown sessions, people, formats and times end with a sentence and the right exit code."""
    assert demo.run("sessions", "show", "0" * 16, check=False).returncode == 1
    nobody = demo.run("mix", demo.session, "--mute", "Nobody", check=False)
    assert nobody.returncode == 1
    assert "Nobody" in nobody.stderr
    assert demo.run("mix", demo.session, "--from", "x", check=False).returncode == 2
    assert demo.run("record", "stop", "--guild", "1", check=False).returncode == 1
    backwards = demo.run("mix", demo.session, "--from", "5", "--to", "2", check=False)
    assert (backwards.returncode, "--to" in backwards.stderr) == (1, True)


def test_files_that_cannot_be_written_are_told(demo: Installation, tmp_path: Path) -> None:
    """A full device, a folder as file, a file as folder: one sentence and exit code 1, nothing replaced or left."""
    (tmp_path / "file").touch()
    attempts = (
        ("sessions", "export", demo.session, "/dev/full"),
        ("sessions", "export", demo.session, str(tmp_path)),
        ("mix", demo.session, "--out", str(tmp_path / "file")),
        ("mix", demo.session, "--out", "/proc/folder"),
    )
    for attempt in attempts:
        done = demo.run(*attempt, check=False)
        assert (done.returncode, "cannot write" in done.stderr) == (1, True), (attempt, done.stderr)
        assert "Traceback" not in done.stderr
    assert Path("/dev/full").is_char_device()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert demo.json("sessions", "export", demo.session, "/dev/null")["messages"] > SECONDS
    assert Path("/dev/null").is_char_device()


def test_export_delete_import_gives_the_same_bytes(demo: Installation, tmp_path: Path) -> None:
    """After export, delete and import the same recipes give the same bytes; no speech is readable on the disk."""
    bundle = tmp_path / "session.retold"
    demo.json("sessions", "export", demo.session, str(bundle))
    payloads = known_payloads(bundle)
    assert len(found_in(tmp_path, payloads)) == KNOWN_PAYLOADS, "the search must be able to find them"
    assert not found_in(demo.directory / "out" / "data", payloads), "new stores are encrypted"
    demo.json("sessions", "delete", "--now", demo.session)
    gone = httpx.get(demo.result["artifacts"][0]["url"])
    assert gone.status_code in {404, 410}
    assert demo.session not in demo.run("sessions", "ls").stdout
    assert demo.json("sessions", "import", str(bundle))["session"] == demo.session
    assert demo.run("sessions", "import", str(bundle), check=False).returncode == 1
    before = {(row["format"], row["user_id"]): row["sha256"] for row in demo.result["artifacts"]}
    after = {}
    for arguments in (("--format", "mp3"), ("--tracks", "--format", "flac"), ("--tracks", "--format", "opus")):
        rows = demo.json("mix", demo.session, *arguments)["artifacts"]
        after |= {(row["format"], row["user_id"]): row["sha256"] for row in rows}
    assert after == before


def known_payloads(bundle: Path) -> list[bytes]:
    """Opus frames of the session, from all of its length."""
    found = []
    with bundle.open("rb") as file:
        for message in BundleReader(file).messages():
            if isinstance(parse(message.subject), PacketSubject):
                packets = decode_batch(message.data).packets
                found += [packet.payload for packet in packets if packet.outcome is Outcome.VOICE]
    long = list(dict.fromkeys(payload for payload in found if len(payload) >= LEAST_PAYLOAD_BYTES))
    return long[:: max(1, len(long) // KNOWN_PAYLOADS)][:KNOWN_PAYLOADS]


def found_in(directory: Path, payloads: list[bytes]) -> set[bytes]:
    """Which payloads stand in any file below a directory."""
    contents = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    return {payload for payload in payloads if any(payload in content for content in contents)}


@pytest.mark.soak
def test_a_call_without_encryption_is_recorded_as_well(tmp_path: Path) -> None:
    """DAVE off, two people, one of whom comes late; the demo ends by itself."""
    with start_demo(tmp_path, "--no-dave", "--speakers", "2", "--seconds", "6") as process:
        assert process.stdout is not None
        output = process.stdout.read()
        assert process.wait(START_S) == 0, (tmp_path / "stderr").read_text()
    result = json.loads(output)
    packets = result["packets"]
    assert packets == {"sent": packets["sent"], "recorded": packets["sent"], "undecryptable": 0, "lost": 0}
    tracks = {row["user_id"]: tmp_path / "out" / row["name"] for row in result["artifacts"] if row["format"] == "flac"}
    for person in result["plan"]:
        assert not verdicts(decode_file(tracks[person["user_id"]]), [tuple(span) for span in person["spoke"]])
