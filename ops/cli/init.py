"""`retold init`: keys and configuration of an installation. What is there is kept; secrets are never written again."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from contracts.service import EXIT_DONE
from contracts.settings import variable
from ops.cli.files import FileError
from ops.cli.output import emit, say
from ops.embedded import STORE_KEY, find_nats_server
from ops.setup.layout import Layout
from ops.setup.secrets import keep_secret, store_key_line
from ops.setup.systemd import Systemd

TOKEN: Final = variable("discord_token")
START: Final = (
    "systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload && systemctl enable --now retold.target"
)
LISTEN: Final = "127.0.0.1:4222"
ENV: Final = """\
# For docker-compose.yml beside it. Only the token is required; the README lists every other setting.
{token}={value}
# {public_url}=https://recordings.example.org
# {log_level}=info
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `init`."""
    init = commands.add_parser("init", help="make keys and configuration for Docker Compose, systemd, or `retold up`")
    init.add_argument(
        "--for",
        dest="target",
        choices=("compose", "systemd", "up", "container"),
        default="compose",
        help="what will run it; `container` is what docker-compose.yml calls",
    )
    init.add_argument("--folder", type=Path, help="where to; a default for each target")
    init.add_argument("--root", type=Path, default=Path("/"), help="systemd: the root of the machine's files")
    init.add_argument("--listen", default="", metavar="HOST:PORT", help="where the NATS server listens")
    init.add_argument("--tls", action="append", default=[], metavar="HOST", help="TLS for NATS, known as HOST")
    init.add_argument(
        "--cluster", action="append", default=[], metavar="SERVER", help="container: each NATS server of a cluster"
    )
    init.add_argument("--json", action="store_true", help="print JSON")
    init.set_defaults(run=_init)


async def _init(arguments: argparse.Namespace) -> int:
    targets = {"compose": _compose, "systemd": _systemd, "up": _up, "container": _container}
    try:
        made, next_steps = targets[arguments.target](arguments)
    except OSError as error:
        raise FileError(error.filename or arguments.folder or "", error) from error
    if arguments.json:
        emit({"made": [str(path) for path in made], "next": next_steps})
    for path in made:
        say(f"made {path}")
    if not made:
        say("Nothing to make: all of it is there.")
    for step in next_steps:
        say(step)
    return EXIT_DONE


def _compose(arguments: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """The file that docker-compose.yml reads; keys are made by its service `init`, in volumes."""
    path = (arguments.folder or Path()) / ".env"
    if path.exists():
        made = []
        ready = any(line.startswith(f"{TOKEN}=") and line.strip() != f"{TOKEN}=" for line in _lines(path))
    else:
        token = os.environ.get(TOKEN, "")
        text = ENV.format(token=TOKEN, value=token, public_url=variable("public_url"), log_level=variable("log_level"))
        keep_secret(path, text.strip)
        made, ready = [path], bool(token)
    steps = [] if ready else [f"Put your bot's token into {path}, behind {TOKEN}=."]
    return made, [*steps, "Next: docker compose up --build --detach --wait"]


def _container(arguments: argparse.Namespace) -> tuple[list[Path], list[str]]:
    layout = Layout(arguments.folder or Path("/init"))
    made = layout.make(
        listen=arguments.listen or "0.0.0.0:4222",
        store="$NATS_STORE",
        tls_hosts=arguments.tls,
        cluster=arguments.cluster,
        monitor="0.0.0.0:8222",  # figures for `retold metrics`, on a network that leads nowhere and publishes nothing
    )
    return made, [f"A backup needs {layout.store_key}: without it no recording can be opened."] if made else []


def _up(arguments: argparse.Namespace) -> tuple[list[Path], list[str]]:
    """The key of an embedded server's store: one that is not encrypted is, at its next start."""
    path = (arguments.folder or Path(os.environ.get(variable("data"), "retold-data"))) / "nats" / STORE_KEY
    made = [] if path.exists() else [path]
    keep_secret(path, store_key_line)
    steps = [f"A backup needs {path}: without it no recording can be opened.", "Next: retold up"]
    return made, steps if made else steps[1:]


def _systemd(arguments: argparse.Namespace) -> tuple[list[Path], list[str]]:
    root: Path = arguments.root
    folder = arguments.folder or root / "etc" / "retold"
    layout = Layout(folder)
    units = Systemd(root=root, folder=folder, python=Path(sys.executable), nats_server=find_nats_server())
    listen = arguments.listen or LISTEN
    made = layout.make(listen=listen, store="/var/lib/retold/nats", tls_hosts=arguments.tls)
    made += units.install(listen=listen, tls_host=arguments.tls[0] if arguments.tls else "")
    token = units.token_file
    return made, [
        f"Put your bot's token into {token}, and your settings into {units.settings_file}.",
        f"A backup needs {layout.store_key}: without it no recording can be opened.",
        f"Next: {START}",
        f"Then, as root: env $(cat {units.command_line_file}) retold record start ...",
    ]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
