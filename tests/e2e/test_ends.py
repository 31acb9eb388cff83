"""However a demo is ended, and at whatever stage: within seconds, in order, and nothing of it runs on."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.processes import RETOLD, environ, left_below, start, until

pytestmark = pytest.mark.long

START_S = 60  # for a stage to come, on a busy machine
END_S = 12  # 10 s is the promise; the machine may be busy
KILLED_S = 20  # services look for their parent once a second, then finish
SPOKEN_BYTES = 2000  # in the spool: people talk
# Makes the terminal on our stdin the controlling one, so that closing it hangs us up as a closed window does.
ON_TERMINAL = "import fcntl,os,sys,termios; fcntl.ioctl(0,termios.TIOCSCTTY,0); os.execv(sys.argv[1],sys.argv[1:])"


def demo(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return start(folder, "demo", "--speakers", "1", "--seconds", "5", "--out", str(folder / "out"), *arguments)


def said(folder: Path) -> str:
    return (folder / "stderr").read_text()


def reached(folder: Path, stage: str) -> bool:
    """Whether a demo is in a stage."""
    match stage:
        case "start":
            return "Retold demo" in said(folder)
        case "join":
            return "start everything" in said(folder)
        case "talk":
            files = [path for path in (folder / "out/data/spool").rglob("*") if path.is_file()]
            return sum(path.stat().st_size for path in files) > SPOKEN_BYTES
        case "render":
            return "the bot records" in said(folder)
        case _:
            return "Page, while this runs" in said(folder)


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [
        pytest.param("start", signal.SIGINT, 1, marks=pytest.mark.soak),
        pytest.param("join", signal.SIGINT, 1, marks=pytest.mark.soak),
        ("talk", signal.SIGTERM, 1),
        pytest.param("render", signal.SIGHUP, 1, marks=pytest.mark.soak),
        ("hold", signal.SIGHUP, 0),
    ],
)
def test_a_signal_ends_everything_at_every_stage(tmp_path: Path, stage: str, number: int, code: int) -> None:
    """Within seconds, with 1 as exit code unless all was delivered, without a traceback, with nothing left running."""
    process = demo(tmp_path, "--hold", "600")
    try:
        until(lambda: reached(tmp_path, stage), f"the demo comes to {stage}", seconds=START_S)
        process.send_signal(number)
        ended = process.wait(END_S)
        delivered = "download through signed links" in said(tmp_path)  # a render may be quicker than the signal
        assert ended == code or (delivered and ended == 0), said(tmp_path)
    finally:
        process.kill()
    assert not left_below(tmp_path)
    assert "Traceback" not in said(tmp_path)


def test_a_demo_that_was_killed_leaves_nothing_running(tmp_path: Path) -> None:
    """Its services and its nats-server notice by themselves."""
    process = demo(tmp_path)
    until(lambda: reached(tmp_path, "talk"), "people talk", seconds=START_S)
    process.kill()
    process.wait()
    until(lambda: not left_below(tmp_path), "all has ended", seconds=KILLED_S, but=lambda: left_below(tmp_path))


def test_closing_the_terminal_ends_everything(tmp_path: Path) -> None:
    """A window that is closed takes the whole demo along."""
    ours, theirs = pty.openpty()
    command = [*RETOLD, "demo", "--speakers", "1", "--seconds", "5", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", ON_TERMINAL, *command],
        env=environ(tmp_path),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = bytearray()

    def look() -> None:
        with contextlib.suppress(OSError):
            while len(seen) < 1 << 20 and b"Serving" not in seen:
                seen.extend(os.read(ours, 4096))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        looking.join(START_S)
        assert b"Serving until Ctrl-C" in seen, seen
        os.close(ours)
        assert process.wait(END_S) == 0
    finally:
        process.kill()
    assert not left_below(tmp_path)
