"""TLS to a real nats-server: both connections of a service speak it, trust only whom they were told, and never less."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from contracts.errors import UnavailableError
from contracts.ids import new_id
from contracts.jetstream import connection
from contracts.jetstream.connection import connect
from contracts.jetstream.objects import find_artifact, put_artifact, read_artifact
from contracts.jetstream.server import Server
from contracts.jetstream.streams import create_session, ensure_shared
from contracts.settings import load_settings
from ops.embedded import find_nats_server, free_port
from ops.setup.certificates import Authority
from ops.setup.nats_conf import ServerConf, Tls
from ops.setup.users import make_users
from tests.golden import ARTIFACT

USER = "operator"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal is final here; a service would try for five seconds."""
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 1.0)


class GuardedServer:
    """A nats-server with TLS, and the authority that vouches for it."""

    def __init__(self, folder: Path, *, asks_clients: bool) -> None:
        self.folder = folder
        self.port = free_port()
        self.authority = Authority(folder)
        self.authority.ensure()
        certificate, key = self.authority.issue_server(folder, ("localhost",))
        conf = ServerConf(
            listen=f"127.0.0.1:{self.port}",
            monitor=f"127.0.0.1:{free_port()}",
            store=str(folder / "store"),
            users=make_users(lambda user: folder / f"{user}.nk"),
            tls=Tls(
                certificate=str(certificate),
                key=str(key),
                clients_ca=str(self.authority.certificate) if asks_clients else "",
            ),
        )
        conf.write(folder / "nats.conf", mode=0o600)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with (self.folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                str(find_nats_server()), "-c", str(self.folder / "nats.conf"), stdout=log, stderr=log
            )
        try:
            async with asyncio.timeout(15):
                while b"Server is ready" not in (self.folder / "log").read_bytes():
                    await asyncio.sleep(0.02)
            yield
        finally:
            process.terminate()
            await process.wait()

    def server(self, *, host: str = "localhost", scheme: str = "nats", **settings: Path) -> Server:
        """What a service's settings make of it."""
        environ = {
            "RETOLD_NATS_URL": f"{scheme}://{host}:{self.port}",
            "RETOLD_NATS_SEED_FILE": str(self.folder / f"{USER}.nk"),
            **{f"RETOLD_NATS_{name.upper()}": str(path) for name, path in settings.items()},
        }
        return Server.of(load_settings(environ), USER)


async def test_both_connections_speak_tls(tmp_path: Path):
    """Facts go over one, a file's bytes come back over the other, to the last byte."""
    guarded = GuardedServer(tmp_path, asks_clients=False)
    async with guarded.running():
        assert await _round_trip(guarded.server(ca_file=guarded.authority.certificate), tmp_path)


async def test_a_server_that_asks_for_a_certificate_gets_ours(tmp_path: Path):
    """With it both connections are let in, without it neither."""
    guarded = GuardedServer(tmp_path, asks_clients=True)
    certificate, key = guarded.authority.issue_client(tmp_path, "mixer")
    trusted = guarded.authority.certificate
    async with guarded.running():
        own = guarded.server(ca_file=trusted, cert_file=certificate, key_file=key)
        assert await _round_trip(own, tmp_path)
        with pytest.raises(UnavailableError):
            await connect(guarded.server(ca_file=trusted), name="test")


async def test_who_is_vouched_for_by_somebody_else_is_not_spoken_to(tmp_path: Path):
    """Another authority, another name, and the system's authorities: no connection, and the reason is told."""
    guarded = GuardedServer(tmp_path, asks_clients=False)
    other = Authority(tmp_path / "other")
    other.ensure()
    async with guarded.running():
        for server in (
            guarded.server(ca_file=other.certificate),
            guarded.server(ca_file=guarded.authority.certificate, host="127.0.0.1"),
            guarded.server(scheme="tls"),
        ):
            with pytest.raises(UnavailableError, match=r"(?i)certificate"):
                await connect(server, name="test")


async def test_nothing_is_shown_to_a_server_without_tls(tmp_path: Path):
    """Somebody in between who takes TLS out of the greeting learns no key, no password and no subject."""
    heard = bytearray()

    async def strip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","nonce":"abc","auth_required":true,"headers":true,"max_payload":9}\r\n')
        heard.extend(await reader.read())
        writer.close()

    guarded = GuardedServer(tmp_path, asks_clients=False)
    between = await asyncio.start_server(strip, "127.0.0.1", guarded.port)
    async with between:
        server = guarded.server(ca_file=guarded.authority.certificate)
        with pytest.raises(UnavailableError, match="offers no TLS"):
            await connect(server, name="test")
    assert not bytes(heard)


async def _round_trip(server: Server, folder: Path) -> bool:
    bus = await connect(server, name="test")
    try:
        session = new_id()
        await ensure_shared(bus)
        await create_session(bus, session)
        data = bytes(range(256)) * 3000
        (folder / "file").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        described = msgspec.structs.replace(ARTIFACT, session=session, sha256=digest, bytes=len(data))
        await put_artifact(bus, described, folder / "file")
        stored = await find_artifact(bus, session, described.name)
        assert stored is not None
        return b"".join([piece async for piece in read_artifact(bus, stored)]) == data
    finally:
        await bus.close()
