"""The shipped nginx configuration, run by the real nginx in front of a gateway, on free ports and in its own folder."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from ops.embedded import free_port
from ops.loopback.certificate import make_certificate
from tests.deployment import ROOT
from tests.gateway_server import until

NGINX: Final = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
SHIPPED: Final = ROOT / "ops" / "deploy" / "nginx" / "retold.conf"
MAIN: Final = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
{user}
events {{ worker_connections 1024; }}
http {{
  types {{ }}
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  include {folder}/retold.conf;
}}
"""
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@dataclass
class RunningNginx:
    """Where it is, and whom to trust."""

    url: str
    plain_url: str
    certificate: Path
    folder: Path
    pid: int

    @property
    def trust(self) -> ssl.SSLContext:
        """A client's context that knows its certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))


def adapt(text: str, *, gateway: str, port: int, plain_port: int, folder: Path, cache: Path) -> str:
    """The shipped file with other addresses and folders, and nothing else changed."""
    changes = {
        "server 127.0.0.1:8080;": f"server {gateway};",
        "listen [::]:80;": "",
        "listen [::]:443 ssl http2;": "",
        "listen 80;": f"listen 127.0.0.1:{plain_port};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "recordings.example.org": "localhost",
        "/etc/ssl/retold/fullchain.pem": str(folder / "certificate.pem"),
        "/etc/ssl/retold/privkey.pem": str(folder / "key.pem"),
        "/var/log/nginx/": f"{folder}/",
        "/var/cache/retold/;": f"{cache}/;",
    }
    for shipped, here in changes.items():
        assert shipped in text, shipped
        text = text.replace(shipped, here)
    return text


@contextlib.asynccontextmanager
async def running_nginx(
    folder: Path, *, gateway: str, cache: Path, tls: bool = True, plain: Path | None = None, **settings: str
) -> AsyncIterator[RunningNginx]:
    """Nginx in front of `gateway` (host:port); `settings` replace the values of directives, to make a test short."""
    folder.mkdir()
    certificate = _certificate(folder)
    port, plain_port = free_port(), free_port()
    text = adapt(SHIPPED.read_text(), gateway=gateway, port=port, plain_port=plain_port, folder=folder, cache=cache)
    for directive, value in settings.items():
        text, count = re.subn(rf"(\b{directive}) [^;]*;", rf"\1 {value};", text)
        assert count, directive
    if plain is not None:  # for comparison: the same files, by nginx alone
        text = text.replace("  location / {", f"  location /plain/ {{ alias {plain}/; }}\n  location / {{")
    if not tls:  # what is measured is sending
        text = text.replace(" ssl http2;", ";")
    (folder / "retold.conf").write_text(text)
    user = "user root;" if Path("/proc/self").stat().st_uid == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
    process = await asyncio.create_subprocess_exec(
        str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await until(lambda: _listens(port, process))
        yield RunningNginx(
            f"{'https' if tls else 'http'}://localhost:{port}",
            f"http://localhost:{plain_port}",
            certificate,
            folder,
            process.pid,
        )
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _certificate(folder: Path) -> Path:
    certificate, _ = make_certificate(folder)
    key = next(path for path in folder.iterdir() if path != certificate)
    certificate.rename(folder / "certificate.pem")
    key.rename(folder / "key.pem")
    return folder / "certificate.pem"


async def _listens(port: int, process: asyncio.subprocess.Process) -> bool:
    assert process.returncode is None, "nginx has ended"
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
