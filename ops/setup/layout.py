"""What `retold init` lays out below one folder: a folder for each service, which can be given to that one alone.

nats/nats.conf     the server's configuration, written anew each time: permissions follow the version
nats/store.conf    the key of the encrypted store; without it every recording is lost
nats/local.conf    the operator's own additions, never touched
nats/route.password  of a cluster: what its servers know each other by
nats/server.*      with TLS: the server's certificate and key
<user>/nats.nk     the NKEY of capture, mixer, gateway, monitor, keeper, operator
<user>/ca.pem      with TLS: whom they trust
authority/         with TLS: the authority, which nobody needs who only runs
grafana/password   of Grafana's user `admin`
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from contracts.permissions import SYSTEM_USER, USERS
from ops.setup.certificates import Authority
from ops.setup.nats_conf import Cluster, ServerConf, Tls
from ops.setup.secrets import FOLDER_MODE, OWNER_ONLY, keep_secret, random_secret, store_key_line
from ops.setup.users import make_users

CONF_MODE: Final = 0o640
ROUTE_PORT: Final = 6222
LOCAL: Final = "# Yours: included at the end of nats.conf, and never touched. A `cluster { }`, for instance.\n"


class Layout(msgspec.Struct, frozen=True):
    """The files below a folder."""

    folder: Path

    @property
    def conf(self) -> Path:
        """The server's configuration."""
        return self.folder / "nats" / "nats.conf"

    @property
    def store_key(self) -> Path:
        """The key of the store."""
        return self.folder / "nats" / "store.conf"

    @property
    def grafana_password(self) -> Path:
        """Of the user `admin`."""
        return self.folder / "grafana" / "password"

    def seed(self, user: str) -> Path:
        """A user's NKEY; that of the server's own account lies with the operator's."""
        if user == SYSTEM_USER:
            return self.folder / "operator" / "system.nk"
        return self.folder / user / "nats.nk"

    def secrets(self) -> list[Path]:
        """What a backup needs and nobody else may see."""
        return [self.store_key, self.grafana_password, *map(self.seed, (*USERS, SYSTEM_USER))]

    def make(
        self,
        *,
        listen: str,
        store: str,
        tls_hosts: Sequence[str] = (),
        monitor: str = "127.0.0.1:8222",
        cluster: Sequence[str] = (),
    ) -> list[Path]:
        """Make what is missing, and write the configuration; what was made.

        Parameters
        ----------
        listen
            `host:port` for clients.
        store
            Folder of the streams, as the server sees it.
        tls_hosts
            Names and addresses by which the server is known; none = it speaks in the clear.
        monitor
            `host:port` for health checks and figures, which asks for no password.
        cluster
            Names of the servers that are one cluster, by this one configuration: NATS_NAME says which each is.
        """
        before = {path for path in self.secrets() if path.exists()}
        for folder in (self.folder, self.folder / "nats"):
            folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE)
        users = make_users(self.seed)
        keep_secret(self.store_key, store_key_line)
        keep_secret(self.grafana_password, random_secret)
        local = self.conf.with_name("local.conf")
        if not local.exists():
            local.write_text(LOCAL)
        conf = ServerConf(
            name="$NATS_NAME" if cluster else "retold",
            listen=listen,
            monitor=monitor,
            store=store,
            users=users,
            store_key=self.store_key.name,
            tls=self._make_tls(tls_hosts) if tls_hosts else None,
            cluster=self._make_cluster(cluster) if cluster else None,
            includes=(local.name,),
        )
        conf.write(self.conf, mode=CONF_MODE)
        return [path for path in self.secrets() if path not in before]

    def _make_cluster(self, servers: Sequence[str]) -> Cluster:
        return Cluster(
            listen=f"0.0.0.0:{ROUTE_PORT}",
            password=keep_secret(self.conf.with_name("route.password"), random_secret),
            routes=tuple(f"{server}:{ROUTE_PORT}" for server in servers),
        )

    def _make_tls(self, hosts: Sequence[str]) -> Tls:
        authority = Authority(self.folder / "authority")
        authority.ensure()
        certificate, key = authority.issue_server(self.conf.parent, hosts)
        for user in USERS:
            shutil.copy(authority.certificate, self.seed(user).with_name("ca.pem"))
        key.chmod(OWNER_ONLY)
        return Tls(certificate=certificate.name, key=key.name)  # beside nats.conf, where the server is started
