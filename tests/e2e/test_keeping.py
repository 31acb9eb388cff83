"""Keeping sessions as an operator does: `retold up` with an archive, and the command line beside it."""

from __future__ import annotations

import contextlib
import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.cli.main import main
from ops.embedded import free_port
from tests.processes import environ, left_below, start, until
from tests.s3 import S3, running_s3

FIRST = Path(__file__).parents[1] / "data" / "bundles" / "first.retold"
pytestmark = pytest.mark.soak  # everything is started; what it does is tried piece by piece elsewhere
START_S = END_S = DEADLINE_S = 40  # on a busy machine
GRACE_HOURS = 6 / 3600


class Up:
    """A running `retold up` without a token, with an archive and a grace of seconds."""

    def __init__(self, folder: Path, s3: S3) -> None:
        self.folder, self.data = folder, folder / "data"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self.settings = {
            **s3.environ,
            "RETOLD_DATA": str(self.data),
            "RETOLD_GATEWAY_PORT": str(port),
            "RETOLD_PUBLIC_URL": self.url,
            "RETOLD_GRACE_HOURS": f"{GRACE_HOURS:.6f}",
            "RETOLD_AUTO_RENDER": "false",
        }
        self.process = start(folder, "up", **self.settings)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def run(self, *arguments: str) -> tuple[int, str]:
        """A command of the same operator's: its exit code, and what it says. In this process, to be quicker."""
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
            for name, value in environ(self.folder, **self.settings).items():
                patch.setenv(name, value)
            try:
                code = main(arguments)
            except SystemExit as error:
                code = int(str(error.code))
        return code, said.getvalue()

    def json(self, *arguments: str) -> Any:
        """Its JSON."""
        code, said = self.run(*arguments, "--json")
        assert code == 0
        return json.loads(said)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_s3() as s3:
        running = Up(tmp_path_factory.mktemp("up"), s3)
        try:
            until(running.ready, "the gateway is ready", seconds=START_S)
            yield running
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(END_S) == 0
            assert not left_below(running.data)
            log = (running.folder / "stdout").read_text() + (running.folder / "stderr").read_text()
            assert "Traceback" not in log
        finally:
            running.process.kill()


def kept(up: Up, session: str, *options: str) -> dict[str, Any] | None:
    """What the list says of how a session is kept."""
    found = [each for each in up.json("sessions", "ls", *options) if each["session"] == session]
    return found[0].get("keeping", {}) if found else None


def test_a_session_is_archived_fetched_pinned_deleted_brought_back_and_erased(up: Up):
    """Every verb, with the keeper that `retold up` runs; the link follows each within a moment."""
    session = up.json("sessions", "import", str(FIRST))["session"]
    assert kept(up, session) == {}
    page = up.run("link", session, "--may-delete")[1].strip()
    assert httpx.get(page).status_code == 200
    assert up.json("sessions", "archive", session)["keeping"]["archived"]["messages"] > 0
    until(lambda: httpx.get(page, timeout=DEADLINE_S).status_code == 200, "it comes back", seconds=DEADLINE_S)
    assert "archived" not in (kept(up, session) or {})
    up.json("sessions", "archive", session)
    assert up.json("mix", session, "--tracks", "--format", "opus")["artifacts"]  # the mixer has it fetched
    up.json("sessions", "archive", session)
    assert "archived" not in up.json("sessions", "fetch", session)["keeping"]
    assert up.json("sessions", "pin", session)["keeping"]["pinned"]
    assert "pinned" not in up.json("sessions", "unpin", session)["keeping"]
    up.json("sessions", "delete", session)
    assert httpx.get(page).status_code == 410
    assert kept(up, session) is None
    assert kept(up, session, "--deleted") is not None
    up.json("sessions", "undelete", session)
    assert httpx.get(page).status_code == 200
    deleted = httpx.post(f"{page}/delete", data={"confirm": "erase"}, headers={"accept": "text/html"})
    assert (deleted.status_code, httpx.get(page).status_code) == (200, 410)
    assert httpx.post(f"{page}/undelete").status_code == 303
    assert httpx.get(page).status_code == 200
    up.json("sessions", "delete", session)
    until(lambda: kept(up, session, "--deleted") is None, "its grace is over", seconds=DEADLINE_S)
    assert httpx.get(page).status_code == 410
    assert up.run("sessions", "undelete", session)[0] == 1
    assert up.json("sessions", "import", str(FIRST))["session"] == session  # on purpose, it may come again


def test_a_backup_by_the_command_line_and_what_an_erasure_reaches(up: Up, tmp_path: Path):
    """To a folder and to S3, checked; an erasure at once names both; a server's own limit is set and shown."""
    up.run("sessions", "import", str(FIRST))
    session = up.json("sessions", "ls")[0]["session"]
    backup = str(tmp_path / "backup")
    for where in (backup, "s3"):
        assert up.json("backup", where)["written"] == 1
        assert up.json("backup", where)["unchanged"] == 1
        assert up.json("backup", where, "--check")["problems"] == []
    erased = up.json("sessions", "delete", "--now", session)
    assert sorted(erased["erased"]) == sorted(["the server", backup, "s3://recordings/retold/backup"])
    assert erased["left"] == []
    assert up.json("restore", backup)["restored"] == 0
    guild = "222222222222222222"
    assert up.json("guilds", "keep", guild, "2w")["keep_days"] == 14
    assert {"guild_id": guild, "name": "", "keep_days": 14} in up.json("guilds", "ls")
    assert up.run("guilds", "keep", guild, "2h")[0] == 2
