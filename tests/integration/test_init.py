"""`retold init`: what it makes, what it never touches again, and that servers and services run with it."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from contracts.jetstream.connection import connect
from contracts.jetstream.server import Server
from contracts.jetstream.streams import ensure_shared
from contracts.permissions import USERS
from contracts.settings import load_settings
from ops.cli.main import main
from ops.embedded import find_nats_server, free_port
from ops.setup.layout import Layout
from ops.setup.systemd import UNITS

READY_S = 15.0


def init(folder: Path, *arguments: str, **environ: str) -> tuple[list[str], str]:
    """What it made, and what it says to do next."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        for name in [name for name in os.environ if name.startswith("RETOLD_")]:
            patch.delenv(name)
        for name, value in environ.items():
            patch.setenv(name, value)
        patch.chdir(folder)
        assert main(["init", *arguments, "--json"]) == 0
    said = json.loads(out.getvalue())
    return said["made"], " ".join(said["next"])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_time_makes_nothing_and_changes_nothing(tmp_path: Path):
    """Keys, passwords, the store's key and the operator's own file are as they were; so is the configuration."""
    arguments = ("--for", "container", "--folder", str(tmp_path / "init"), "--tls", "nats")
    made, said = init(tmp_path, *arguments)
    layout = Layout(tmp_path / "init")
    assert sorted(made) == sorted(str(path) for path in layout.secrets())
    assert str(layout.store_key) in said
    (layout.conf.parent / "local.conf").write_text("debug: false\n")
    before = contents(tmp_path)
    again, _ = init(tmp_path, *arguments)
    assert again == []
    assert contents(tmp_path) == before


def test_every_secret_is_its_owners_alone(tmp_path: Path):
    """Files 0600 in folders 0700; no secret stands in a file that others may read."""
    init(tmp_path, "--for", "container", "--folder", str(tmp_path / "init"), "--tls", "nats")
    layout = Layout(tmp_path / "init")
    for path in [*layout.secrets(), layout.conf.with_name("server.key"), layout.folder / "authority" / "authority.key"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path
    secrets = [path.read_text().strip() for path in layout.secrets()]
    shown = [path for path in layout.folder.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert layout.conf in shown
    assert not [path for path in shown if any(secret in path.read_text() for secret in secrets)]


async def test_a_server_runs_with_it_and_lets_every_user_in(tmp_path: Path):
    """Encrypted, with TLS; each user by its own key."""
    port = free_port()
    layout = Layout(tmp_path / "init")
    layout.make(listen=f"127.0.0.1:{port}", store="$NATS_STORE", tls_hosts=("localhost",))
    command = [str(find_nats_server()), "--config", str(layout.conf), "-m", str(free_port())]
    with (tmp_path / "log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(
            *command, cwd=layout.conf.parent, env={"NATS_STORE": str(tmp_path / "store")}, stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(READY_S):
            while b"Server is ready" not in (tmp_path / "log").read_bytes():
                assert server.returncode is None, (tmp_path / "log").read_text()
                await asyncio.sleep(0.02)
        assert b"ChaCha20" in (tmp_path / "log").read_bytes()
        for user in USERS:
            settings = load_settings(
                {
                    "RETOLD_NATS_URL": f"nats://localhost:{port}",
                    "RETOLD_NATS_SEED_FILE": str(layout.seed(user)),
                    "RETOLD_NATS_CA_FILE": str(layout.seed(user).with_name("ca.pem")),
                }
            )
            bus = await connect(Server.of(settings, user), name=user)
            if user in {"capture", "mixer"}:
                await ensure_shared(bus)
            await bus.check_permissions()
            await bus.close()
    finally:
        server.terminate()
        await server.wait()


def test_for_compose_it_asks_for_the_token_and_keeps_the_file(tmp_path: Path):
    """`.env` with the token of the environment; one that is there is never written again."""
    made, said = init(tmp_path)
    assert made == [".env"]
    assert "RETOLD_DISCORD_TOKEN" in said
    (tmp_path / ".env").write_text("RETOLD_DISCORD_TOKEN=mine\n")
    assert init(tmp_path)[0] == []
    assert (tmp_path / ".env").read_text() == "RETOLD_DISCORD_TOKEN=mine\n"
    (tmp_path / ".env").unlink()
    init(tmp_path, RETOLD_DISCORD_TOKEN="given")  # noqa: S106  # of the test
    assert "RETOLD_DISCORD_TOKEN=given\n" in (tmp_path / ".env").read_text()
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


@pytest.mark.parametrize("tls", [(), ("--tls", "nats.example.org")], ids=["plain", "tls"])
def test_units_run_real_commands_with_settings_that_exist(tmp_path: Path, tls: tuple[str, ...]):
    """Every ExecStart is a program that is there, every setting known, every credential a file that was made."""
    init(tmp_path, "--for", "systemd", "--root", str(tmp_path), *tls)
    units = sorted((tmp_path / "etc/systemd/system").glob("*.service"))
    assert len(units) == 7
    for unit in units:
        assert "@" not in unit.read_text().replace("@system-service", "").replace("@...@", ""), unit
        service = read_unit(unit)
        (command,) = service["ExecStart"]
        program, *arguments = command.split()
        assert os.access(program, os.X_OK)
        if arguments[0] == "-m":
            assert importlib.util.find_spec(f"{arguments[1]}.__main__" if len(arguments) == 2 else arguments[1])
            assert arguments[2:] in ([], ["keeper"], ["metrics"])
        if program == "/bin/sh":
            assert importlib.util.find_spec(re.search(r"-m ([\w.]+) ", command)[1])
        environ = dict(line.split("=", 1) for line in service.get("Environment", []))
        load_settings({name: value for name, value in environ.items() if name.startswith("RETOLD_")})
        for credential in service.get("LoadCredential", []):
            assert (tmp_path / credential.split(":")[1][1:]).is_file(), credential
        if tls and "RETOLD_NATS_URL" in environ:
            assert environ["RETOLD_NATS_URL"] == "tls://nats.example.org:4222"
            assert environ["RETOLD_NATS_CA_FILE"] == "%d/ca.pem"


def test_the_command_line_finds_what_the_units_run(tmp_path: Path):
    """By a file of settings that names the operator's key, at the address that the services use."""
    init(tmp_path, "--for", "systemd", "--root", str(tmp_path), "--listen", "127.0.0.1:5222")
    lines = (tmp_path / "etc/retold/operator/retold.env").read_text().splitlines()
    settings = load_settings(dict(line.split("=", 1) for line in lines))
    assert settings.nats_url == "nats://127.0.0.1:5222"
    assert (tmp_path / settings.nats_seed_file[1:]).is_file()
    unit = (tmp_path / "etc/systemd/system/retold-gateway.service").read_text()
    assert f"RETOLD_NATS_URL={settings.nats_url}\n" in unit


def test_units_hold_their_services_in():
    """A user of its own, a system that cannot be written, no new rights, limited memory, a new start after a death."""
    users = set()
    for unit in UNITS.glob("*.service"):
        service = read_unit(unit)
        for name, value in {
            "ProtectSystem": "strict",
            "ProtectHome": "yes",
            "NoNewPrivileges": "yes",
            "PrivateTmp": "yes",
            "PrivateDevices": "yes",
            "CapabilityBoundingSet": "",
            "Restart": "always",
        }.items():
            if name != "Restart" or service.get("Type") != ["oneshot"]:  # a timer starts it again
                assert service[name] == [value], (unit, name)
        assert service["MemoryMax"]
        assert service["TimeoutStopSec"]
        users |= set(service["User"])
    assert len(users) == 6
    assert users == {line.split()[1] for line in (UNITS / "retold.sysusers").read_text().splitlines() if line[0] == "u"}


def test_only_capture_is_given_the_token(tmp_path: Path):
    """And the others are not given its seed, either."""
    init(tmp_path, "--for", "systemd", "--root", str(tmp_path))
    holders = [
        unit.name for unit in (tmp_path / "etc/systemd/system").glob("*.service") if "discord.env" in unit.read_text()
    ]
    assert holders == ["retold-capture.service"]
    for unit in (tmp_path / "etc/systemd/system").glob("retold-*.service"):
        own = unit.stem.removeprefix("retold-").replace("metrics", "monitor")
        given = {line.split(":")[1].split("/")[-2] for line in read_unit(unit).get("LoadCredential", [])}
        assert given == ({own} if own != "thaw" else set())


def test_systemd_itself_accepts_the_units(tmp_path: Path):
    """Where its analyser is installed; its own measure of exposure is under 3 of 10 for each."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze here")
    init(tmp_path, "--for", "systemd", "--root", str(tmp_path), "--tls", "nats.example.org")
    units = sorted(str(path) for path in (tmp_path / "etc/systemd/system").iterdir())
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "retold" in line]
    assert complaints == []
    command = [analyze, "security", "--offline=true", "--threshold=30", "--no-pager"]
    for unit in units:
        if unit.endswith(".service"):
            exposed = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
            assert exposed.returncode == 0, exposed.stdout + exposed.stderr


def read_unit(path: Path) -> dict[str, list[str]]:
    """[Service] of a unit: every value of each name."""
    strict = configparser.RawConfigParser(strict=False)
    strict.read_string(path.read_text().replace("@TLS@", "#"))
    assert set(strict.sections()) <= {"Unit", "Service", "Install"}
    found: dict[str, list[str]] = {}
    inside = False
    for line in path.read_text().replace("@TLS@", "#").splitlines():
        if line.startswith("["):
            inside = line == "[Service]"
        elif inside and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found
