"""`retold up` as its operator meets it: without a token, with a port that is taken, with nats-server killed."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ops.embedded import free_port
from tests.processes import RETOLD, environ, free_ports, left_below, start, until

pytestmark = pytest.mark.long

START_S = 40  # on a busy machine
END_S = 15
QUICK_S = 30  # a wrong setting is known before anything is waited for; the machine may be busy
AWAY_S = 30  # services try again every quarter of a second


class Up:
    """A running `retold up` without a token."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.metrics_port = free_ports(4)
        self.process = start(
            folder,
            "up",
            RETOLD_METRICS_PORT=str(self.metrics_port),
            RETOLD_DATA=str(self.data),
            RETOLD_GATEWAY_PORT=str(port),
            RETOLD_PUBLIC_URL=self.url,
        )

    @property
    def nats_pid(self) -> int:
        return int((self.data / "nats" / "nats.pid").read_text())

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def metrics(self, number: int) -> str:
        """What the process with the `number`th port for figures says."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.metrics_port + number}/metrics").text
        except httpx.HTTPError:
            return ""

    def log(self) -> str:
        return (self.folder / "stdout").read_text() + (self.folder / "stderr").read_text()

    def json(self, *arguments: str) -> object:
        """A command's JSON, without a setting that says where."""
        command = [*RETOLD, *arguments, "--json"]
        done = subprocess.run(command, env=environ(self.folder), capture_output=True, check=False, timeout=30)
        return json.loads(done.stdout) if done.returncode == 0 else None


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One for the module, ended in order at its end."""
    running = Up(tmp_path_factory.mktemp("up"))
    try:
        until(running.ready, "the gateway is ready", seconds=START_S)
        yield running
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(END_S) == 0
        assert not left_below(running.data)
        assert "Traceback" not in running.log()
    finally:
        running.process.kill()


def test_without_a_token_everything_runs_but_capture(up: Up) -> None:
    """A demo's data can be looked at again without a Discord account; what is missing is said."""
    assert "Without RETOLD_DISCORD_TOKEN it does not record" in up.log()
    assert not any(" capture " in command for command in left_below(up.data).values())
    assert up.json("sessions", "ls") == []


def test_every_process_has_figures_on_a_port_of_its_own(up: Up) -> None:
    """Capture's (there is none here), the mixer's, JetStream's; the gateway has its port anyway."""
    assert not up.metrics(0)
    until(lambda: "retold_renders_under_way 0.0" in up.metrics(1), "the mixer tells", seconds=START_S)
    until(lambda: "jetstream_server_total_streams" in up.metrics(2), "the exporter tells", seconds=START_S)
    assert "retold_storage_room_bytes" in up.metrics(2)  # it knows the server's monitoring address
    until(lambda: 'retold_keeper_steps_total{step="erase"} 0.0' in up.metrics(3), "the keeper tells", seconds=START_S)
    assert "retold_gateway_keys 1.0" in httpx.get(f"{up.url}/metrics").text


def test_lag_finds_what_runs_and_asks_its_server_once(up: Up) -> None:
    """Without a setting: the monitoring address comes from what runs."""
    told = up.json("lag")
    assert isinstance(told, dict)
    assert told["rooms"] == []
    assert told["capture"] is None
    assert told["server"]["version"]
    assert {"JOBS", "RENDERS"} <= {stream["stream"] for stream in told["streams"]}


def test_a_killed_nats_server_is_started_again(up: Up) -> None:
    """On the same port, with the same data; the services find it by themselves, and the log says so."""
    before = up.nats_pid
    os.kill(before, signal.SIGKILL)
    until(lambda: "nats_restarted" in up.log(), "it is started again", seconds=AWAY_S)
    assert up.nats_pid != before
    until(up.ready, "the gateway found it again", seconds=AWAY_S)
    assert up.json("sessions", "ls") == []
    assert up.process.poll() is None


def test_commands_find_what_runs_still_when_the_newest_has_ended(up: Up, tmp_path: Path) -> None:
    """A runs, B comes and goes: commands without settings are for A again."""
    settings = {"RETOLD_DATA": str(tmp_path / "data"), "RETOLD_GATEWAY_PORT": str(free_port())}
    newest = start(tmp_path, "up", **settings, XDG_RUNTIME_DIR=str(up.folder))
    try:
        until((tmp_path / "data" / "running.json").exists, "the newest runs", seconds=START_S)
        newest.send_signal(signal.SIGTERM)
        assert newest.wait(END_S) == 0
    finally:
        newest.kill()
    assert up.json("sessions", "ls") == []


def test_a_port_that_is_taken_is_told_at_once(tmp_path: Path) -> None:
    """Which one, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = quick_end(tmp_path, "up", code=1, RETOLD_GATEWAY_PORT=str(port))
    assert f"port {port}" in told
    assert "RETOLD_GATEWAY_PORT=" in told
    assert "Retold runs" not in told


@pytest.mark.parametrize("command", ["up", "demo"])
@pytest.mark.parametrize(("name", "value"), [("RETOLD_FFMPEG", "/nonexistent"), ("RETOLD_GATEWAY_HOST", "nonsense")])
def test_a_setting_that_a_service_cannot_run_with_ends_everything(
    tmp_path: Path, command: str, name: str, value: str
) -> None:
    """With the service's own words on stderr, and the exit code of wrong settings."""
    told = quick_end(tmp_path, command, code=2, **{name: value, "RETOLD_GATEWAY_PORT": str(free_port())})
    assert f"retold: {name}: {value}" in told


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/folder"])
def test_a_demo_proves_first_that_it_can_deliver(tmp_path: Path, out: str) -> None:
    """A folder that cannot be is told before anybody talks."""
    (tmp_path / "file").touch()
    assert "cannot write" in quick_end(tmp_path, "demo", "--out", str(tmp_path / out), code=1)


def quick_end(folder: Path, *command: str, code: int, **settings: str) -> str:
    """What a command that cannot run says; it ends soon, and nothing of it stays."""
    data = folder / "data"
    begun = time.monotonic()
    process = start(folder, *command, RETOLD_DATA=str(data), **settings)
    try:
        assert process.wait(START_S) == code
    finally:
        process.kill()
    assert time.monotonic() - begun < QUICK_S
    assert not left_below(data)
    told = (folder / "stderr").read_text()
    assert "Traceback" not in told
    return told


def test_lag_watches_a_terminal_until_ctrl_c(up: Up) -> None:
    """It draws on a screen of its own, no line too long, and leaves the terminal as it was."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    watching = subprocess.Popen(
        [*RETOLD, "lag", "--watch"],
        env={**environ(up.folder), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = bytearray()

    def shows_the_disk() -> bool:
        if select.select([ours], [], [], 0.1)[0]:
            drawn.extend(os.read(ours, 1 << 16))
        return b"room for" in drawn

    try:
        until(shows_the_disk, "the view is there", seconds=START_S, but=drawn.decode)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(END_S) == 1  # as every command that is interrupted
        drawn.extend(os.read(ours, 1 << 16))
    finally:
        watching.kill()
        os.close(ours)
    assert b"\x1b[?1049h" in drawn
    assert drawn.rstrip().endswith((b"\x1b[?1049l\x1b[?25h", b"\x1b[?25h\x1b[?1049l"))
    assert b"Traceback" not in drawn
