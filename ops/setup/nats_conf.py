"""The configuration of a nats-server for Retold, as text: from the table of permissions and a handful of choices.

One template for all: the embedded server, a container, a systemd unit. Every user stands in the global account, where
an installation of any earlier version has its streams. `sync_interval` 1 s costs nothing measurable and bounds what a
power loss can take to what capture still holds; `js_ack_fc_v2` must be off, or nats-py dies of the longer subjects.

The disk is the limit of what is stored. Left to itself the server takes three quarters of what it has stored and what
is free as it starts: on a disk that others share, it may have stored more than that, and then takes nothing any more.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from contracts.permissions import SYSTEM_USER, USERS, Permissions

ANSWER_WITHIN: Final = "15m"  # forgetting a person takes as long as their sessions are
VARIABLE: Final = "$"
ROUTE_USER: Final = "route"
FILE_STORE: Final = "1PB"
MEMORY_STORE: Final = "512MB"  # of sound for listeners: two minutes of 500 rooms


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Files of TLS, PEM.

    Attributes
    ----------
    clients_ca
        Whoever connects has to show a certificate of this authority; empty = nobody has to.
    """

    certificate: str
    key: str
    clients_ca: str = ""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster that a server is one of.

    Attributes
    ----------
    listen
        `host:port` for the others.
    password
        Which they all know.
    routes
        `host:port` of each, this one's may be among them.
    """

    listen: str
    password: str
    routes: tuple[str, ...]


class ServerConf(msgspec.Struct, frozen=True, kw_only=True):
    """What differs between servers.

    Attributes
    ----------
    name
        Of the server, or `$NAME` of the variable in its environment that says it; each of a cluster has its own.
    listen, monitor
        `host:port` for clients, and for health checks, which asks for no password.
    store
        Folder of the streams, or `$NAME` of the variable in its environment that says it.
    users
        Public NKEY by name of the user.
    password
        Of a user `retold` who may do everything; empty = there is no such user.
    store_key
        File that defines `STORE_KEY`, by which the store is encrypted; empty = it is not.
    includes
        More files, read last.
    """

    name: str = "retold"
    listen: str
    monitor: str
    store: str
    users: Mapping[str, str]
    password: str = ""
    store_key: str = ""
    tls: Tls | None = None
    cluster: Cluster | None = None
    includes: tuple[str, ...] = ()

    def text(self) -> str:
        """The file."""
        return "\n".join(self._lines()) + "\n"

    def write(self, path: Path, *, mode: int) -> None:
        """Put it in place at once: a server that is started meanwhile finds the old one or the new one.

        What stands there already is left alone: a disk that is full would not take it again.
        """
        if path.exists() and path.read_text() == self.text():
            path.chmod(mode)
            return
        part = path.with_name(f".{path.name}.part")
        part.touch(mode=mode)
        part.chmod(mode)
        part.write_text(self.text())
        part.rename(path)

    def _lines(self) -> Iterable[str]:
        yield "# Written by `retold`: changes are lost when it writes it again."
        yield f"server_name: {_said(self.name)}"
        yield f"listen: {_quoted(self.listen)}"
        yield f"http: {_quoted(self.monitor)}"
        yield "max_payload: 1MB"
        if self.store_key:
            yield f"include {_quoted(self.store_key)}"
        yield "jetstream {"
        yield f"  store_dir: {_said(self.store)}"
        yield f"  max_memory_store: {MEMORY_STORE}"
        yield f"  max_file_store: {FILE_STORE}"
        yield "  sync_interval: 1s"
        if self.store_key:
            yield "  cipher: chachapoly"
            yield "  key: $STORE_KEY"
        yield "}"
        yield "feature_flags { js_ack_fc_v2: false }"
        if self.tls is not None:
            yield from _tls_lines(self.tls)
        if self.cluster is not None:
            yield from _cluster_lines(self.cluster)
        yield "authorization {"
        yield "  users: ["
        if self.password:
            yield f"    {{ user: retold, password: {_quoted(self.password)} }}"
        for name, permissions in USERS.items():
            if name in self.users:
                yield from _user_lines(name, self.users[name], permissions)
        yield "  ]"
        yield "}"
        if SYSTEM_USER in self.users:
            yield f"accounts {{ SYS: {{ users: [ {{ nkey: {self.users[SYSTEM_USER]} }} ] }} }}  # {SYSTEM_USER}"
            yield "system_account: SYS"
        yield from (f"include {_quoted(path)}" for path in self.includes)


def _user_lines(name: str, public: str, permissions: Permissions) -> Iterable[str]:
    yield f"    {{ # {name}"
    yield f"      nkey: {public}"
    if not permissions.whole:
        yield "      permissions: {"
        yield f"        publish: {{ allow: {_list(permissions.publish)}, deny: {_list(permissions.never)} }}"
        yield f"        subscribe: {{ allow: {_list((f'_INBOX_{name}.>', *permissions.subscribe))} }}"
        if permissions.answers:
            yield f"        allow_responses: {{ max: 1, expires: {_quoted(ANSWER_WITHIN)} }}"
        yield "      }"
    yield "    }"


def _tls_lines(tls: Tls) -> Iterable[str]:
    yield "tls {"
    yield f"  cert_file: {_quoted(tls.certificate)}"
    yield f"  key_file: {_quoted(tls.key)}"
    yield '  min_version: "1.2"'
    yield "  timeout: 5"
    if tls.clients_ca:
        yield f"  ca_file: {_quoted(tls.clients_ca)}"
        yield "  verify: true"
    yield "}"


def _cluster_lines(cluster: Cluster) -> Iterable[str]:
    routes = [f"nats://{ROUTE_USER}:{cluster.password}@{route}" for route in cluster.routes]
    yield "cluster {"
    yield "  name: retold"
    yield f"  listen: {_quoted(cluster.listen)}"
    yield "  no_advertise: true"  # clients are told where the servers are, not where they think they are
    yield f"  authorization {{ user: {ROUTE_USER}, password: {_quoted(cluster.password)} }}"
    yield f"  routes: {_list(routes)}"
    yield "}"


def _list(subjects: Iterable[str]) -> str:
    return "[" + ", ".join(map(_quoted, dict.fromkeys(subjects))) + "]"


def _said(text: str) -> str:
    """A text, or the variable that says it."""
    return text if text.startswith(VARIABLE) else _quoted(text)


def _quoted(text: str) -> str:
    return json.dumps(text)
