"""Services of docker-compose.yml as plain processes: no Docker, the same settings.

Each gets a folder as its root with exactly the files its image copies, volumes as links, the image's and the compose
file's environment, and imports of nothing that its requirements do not name. Only addresses are moved to loopback, and
what only a newer version of a program understands is left out.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import STDOUT, Process
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from ops.embedded import find_nats_server
from tests.busybox import busybox_path
from tests.deployment import ROOT, mounts, read_image, seconds

PACKAGES: Final = {"contracts", "capture", "mixer", "gateway", "ops", "tests"}
PROGRAMS: Final = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin"
# In a service's process: what is installed here, but not in its image, cannot be imported.
ISOLATION: Final = """
import sys

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is not in the image", name=name)

sys.meta_path.insert(0, Absent)
"""


class Container:
    """A service of the compose file as a process.

    Parameters
    ----------
    ports
        Where each address `service:port` of the compose network is on loopback, by name.
    """

    def __init__(self, name: str, service: dict[str, Any], folder: Path, ports: Mapping[str, int]) -> None:
        self.name = name
        self.grace_s = seconds(service.get("stop_grace_period", "10s"))
        self.root = folder / "roots" / name
        self.log = folder / f"{name}.log"
        self._image = read_image(ROOT / service["build"]["dockerfile"])
        self._command = [*self._image.entrypoint, *(service.get("command") or self._image.command)]
        self._health = service.get("healthcheck", {}).get("test", ["CMD", *self._image.health])[1:]
        self._stop = signal.Signals[service.get("stop_signal", "SIGTERM")]
        self._ports = ports
        self._mounts = mounts(service)
        self._volumes = folder / "volumes"
        self._made: set[Path] = set()
        self.environ = self._environ(service)
        self._process: Process | None = None
        self._busybox: str | None = None

    def build(self) -> None:
        """Lay out its files."""
        self.root.mkdir(parents=True)
        for source, target in self._image.copies:
            place = self._inside(target)
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            elif not source.startswith("requirements/"):
                place.write_text(self._moved((ROOT / source).read_text()))
        for target, volume in sorted(self._mounts.items()):
            place = self._inside(target)
            if volume:
                (self._volumes / volume).mkdir(parents=True, exist_ok=True)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(self._volumes / volume)
            else:
                place.mkdir(parents=True)
        isolation = self.root / "isolation"
        isolation.mkdir()
        (isolation / "sitecustomize.py").write_text(ISOLATION.format(absent=self._absent()))
        if self.name == "prometheus":
            self._find_targets()
        self._busybox = busybox_path(self.root / "busybox") if self.name == "nats" else None
        self._made = {path for path in self.root.rglob("*") if path.is_file()}

    async def start(self, more: Mapping[str, str]) -> None:
        """Run its command."""
        self._process = await self._run(self._command, os.fspath(self.log), self.environ | dict(more))

    async def done(self) -> int:
        """The exit code, when it ends by itself."""
        assert self._process is not None
        return await self._process.wait()

    async def healthy(self) -> bool:
        """Whether its health check succeeds."""
        if self._health[0] == "wget" and shutil.which("wget") is None:
            return await answers(self._mapped(self._health)[-1])
        environ = dict(self.environ)
        if self.name == "nats":
            if self._busybox is None:
                return await answers(f"http://127.0.0.1:{self._ports['monitor']}/healthz?js-server-only=true")
            assert self._process is not None
            environ["NATS_MONITOR"], environ["NATS_PID"] = f"127.0.0.1:{self._ports['monitor']}", str(self._process.pid)
            environ["PATH"] = self._busybox
        process = await self._run(self._health, os.devnull, environ)
        return await process.wait() == 0

    async def stop(self) -> int:
        """The exit code after its stop signal, within the grace period."""
        assert self._process is not None
        assert self._process.returncode is None, self.log.read_text()
        self._process.send_signal(self._stop)
        async with asyncio.timeout(self.grace_s):
            return await self._process.wait()

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    def written_outside_mounts(self) -> set[str]:
        """Files in its root that its image does not have: with a read-only root it would have failed."""
        kept = tuple(target[1:] for target in self._mounts)
        files = {path for path in self.root.rglob("*") if path.is_file()} - self._made
        return {str(path) for path in files if not str(path.relative_to(self.root)).startswith(kept)}

    async def _run(self, command: list[str], output: str, environ: dict[str, str]) -> Process:
        with open(output, "ab") as log:  # noqa: ASYNC230, PTH123 - a test's log
            return await asyncio.create_subprocess_exec(
                *self._mapped(command),
                cwd=self.root / "app" if (self.root / "app").exists() else self.root,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(self.root / "isolation"), **environ},
                stdout=log,
                stderr=STDOUT,
                start_new_session=True,
            )

    def _mapped(self, command: list[str]) -> list[str]:
        """The command with this machine's programs, addresses and paths."""
        program, *arguments = (self._moved(self._placed(text)) for text in command)
        match program:
            case "nats-server":
                moved = ("-a", "127.0.0.1", "-p", str(self._ports["nats"]), "-m", str(self._ports["monitor"]))
                return [str(find_nats_server()), *arguments, *moved]
            case "prometheus":
                return [program, *arguments, f"--web.listen-address=127.0.0.1:{self._ports['prometheus']}"]
            case "python":
                return [sys.executable, *arguments]
            case _:
                return [shutil.which(program, path=PROGRAMS) or program, *arguments]

    def _placed(self, text: str) -> str:
        """A path of the container, also behind a `=`, as it is here."""
        before, equals, path = text.rpartition("=")
        first = {"/".join(place.split("/")[:2]) for place in (*self._mounts, "/etc")}
        return before + equals + str(self._inside(path)) if "/".join(path.split("/")[:2]) in first else text

    def _moved(self, text: str) -> str:
        """Addresses of the compose network on loopback, and nginx's folders below the root."""
        own = {"nats": {8222: "monitor"}, "nginx": {8080: "nginx"}, "prometheus": {9090: "prometheus"}}
        for port, name in {**own.get(self.name, {}), 9464: self.name}.items():
            if name in self._ports:
                text = text.replace(f"127.0.0.1:{port}/", f"127.0.0.1:{self._ports[name]}/")
        if self.name == "nginx" and "http {" in text:
            text = re.sub(r"^ *(zone|resolver) .*\n", "", text, flags=re.MULTILINE).replace(" resolve;", ";")
            text = text.replace("server gateway:8080;", f"server 127.0.0.1:{self._ports['gateway']};")
            text = text.replace("listen 8080;", f"listen 127.0.0.1:{self._ports['nginx']};")
            for path in ("/tmp/", "/var/cache/retold/"):  # noqa: S108  # of the container
                text = text.replace(f" {path}", f" {self.root}{path}")
            for stream in ("stdout", "stderr"):
                text = text.replace(f"/dev/{stream}", f"{self.root}/tmp/{stream}")  # noqa: S108  # as above
            text = ("user root;\n" if os.getuid() == 0 else "") + text
        return text

    def _find_targets(self) -> None:
        """Names are not looked up here."""
        path = self._inside("/etc/prometheus/prometheus.yml")
        configuration = yaml.safe_load(path.read_text())
        del configuration["alerting"]  # it is of another profile
        for job in configuration["scrape_configs"]:
            (asked,) = job.pop("dns_sd_configs")
            (name,) = asked["names"]
            assert asked["port"] == (8080 if name == "gateway" else 9464)
            job["static_configs"] = [{"targets": [f"127.0.0.1:{self._ports[name]}"]}]
        path.write_text(yaml.safe_dump(configuration))

    def _environ(self, service: dict[str, Any]) -> dict[str, str]:
        environ = {**self._image.environ, **service["environment"]}
        environ.pop("PATH", None)
        here = {
            "RETOLD_NATS_URL": f"nats://127.0.0.1:{self._ports['nats']}",
            "RETOLD_NATS_MONITOR_URL": f"http://127.0.0.1:{self._ports['monitor']}",
            "RETOLD_METRICS_HOST": "127.0.0.1",
            "RETOLD_METRICS_PORT": str(self._ports.get(self.name, 0)),
            "RETOLD_GATEWAY_PORT": str(self._ports["gateway"]),
            "RETOLD_TRUSTED_PROXIES": "127.0.0.1",
        }
        for name, value in environ.items():
            if name in here:
                environ[name] = here[name]
            elif value.startswith("/"):
                environ[name] = str(self._inside(value))
        return environ

    def _absent(self) -> set[str]:
        """Modules of this environment that neither its requirements nor its Dockerfile bring."""
        named: set[str] = set()
        for source, _ in self._image.copies:
            if source.startswith("requirements/"):
                named |= set(re.findall(r"^([\w.-]+)==", (ROOT / source).read_text(), re.MULTILINE))
        copied = {source for source, _ in self._image.copies}
        installed = packages_distributions().items()
        return (PACKAGES - copied) | {
            module
            for module, owners in installed
            if module not in PACKAGES and not any(re.sub(r"[-_.]+", "-", owner).lower() in named for owner in owners)
        }

    def _inside(self, path: str) -> Path:
        return self.root / path.removeprefix("/")


async def answers(url: str) -> bool:
    """Whether an address answers well."""
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(url)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
