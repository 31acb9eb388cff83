"""Where the NATS server is, who we are to it, and whom we trust: what every connection is made with, in one place.

A service is known to NATS by a key of its own (an NKEY: the server knows the public half, and what its holder may do)
and hears answers on inboxes of its own, `_INBOX_<user>`, so that no service reads another's. Whoever trusts a
certificate authority speaks TLS or nothing: nats-py alone would go on in the clear if the server did not ask for it.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import SplitResult, unquote

import msgspec

from contracts.errors import MalformedError, SettingsError
from contracts.jetstream.addresses import credentials_of, servers_of, without_password
from contracts.nkeys import NkeySeed
from contracts.settings import Settings, variable

PORT: Final = 4222
KEYS: Final = Path("nats") / "keys"  # below RETOLD_DATA
SUFFIX: Final = ".nk"


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A NATS server, or a cluster of them, and how to be let in.

    Attributes
    ----------
    url
        `nats://[user:password@]host[:port]`, or `tls://...`; several of a cluster with commas between.
    user
        Who we are; the name of our inboxes. Empty = nobody in particular.
    seed
        Our NKEY; None = the URL's password, or nothing.
    trust
        Context of TLS; None = the server's certificate needs no authority of its own.
    replicas
        Copies of the streams that are made; 0 = as there are of those that are there.
    """

    url: str
    user: str = ""
    seed: NkeySeed | None = None
    trust: ssl.SSLContext | None = None
    replicas: int = 0

    @classmethod
    def of(cls, settings: Settings, user: str) -> Self:
        """The server of the settings, for a user of the table in `contracts.permissions`.

        Raises
        ------
        SettingsError
            If a file that a setting names cannot be used.
        """
        return cls(
            url=settings.nats_url,
            user=user,
            seed=_read_seed(settings, user),
            trust=_read_trust(settings),
            replicas=settings.nats_replicas,
        )

    @property
    def urls(self) -> list[str]:
        """Each server's own."""
        return servers_of(self.url)

    @property
    def inbox_prefix(self) -> str:
        """What the subjects of our answers begin with."""
        return f"_INBOX_{self.user}" if self.user else "_INBOX"

    @property
    def nkey(self) -> str | None:
        """The public half of our NKEY."""
        return None if self.seed is None else self.seed.public

    @property
    def wants_tls(self) -> bool:
        """Whether nothing may be said in the clear."""
        return self.trust is not None or any(url.startswith("tls://") for url in self.urls)

    @property
    def said(self) -> str:
        """Its address, without the credentials that may stand in it."""
        return without_password(self.url)

    def context(self) -> ssl.SSLContext:
        """For TLS with this server."""
        return self.trust or ssl.create_default_context()

    def client_options(self) -> dict[str, Any]:
        """What nats-py's `connect` is told."""
        user, password = credentials_of(self.url)  # for servers, too, that only another of the cluster named
        options: dict[str, Any] = {"servers": self.urls, "user": user, "password": password}
        options["inbox_prefix"] = self.inbox_prefix
        if self.seed is not None:
            options["signature_cb"] = lambda nonce: self.seed.sign(nonce).encode()
        if self.wants_tls:
            options["tls"] = self.context()
        return options

    def credentials(self, url: SplitResult, nonce: str) -> dict[str, str]:
        """What CONNECT shows to the server at `url`, which sent `nonce`."""
        if self.seed is not None and nonce:
            return {"nkey": self.seed.public, "sig": self.seed.sign(nonce)}
        if url.password is not None:
            return {"user": unquote(url.username or ""), "pass": unquote(url.password)}
        return {"auth_token": unquote(url.username)} if url.username else {}


def _read_seed(settings: Settings, user: str) -> NkeySeed | None:
    """The seed of the setting; else the embedded server's, unless the URL says how one is let in; else none."""
    named = settings.nats_seed_file
    path = Path(named) if named else settings.data / KEYS / f"{user}{SUFFIX}"
    if not named and ("@" in settings.nats_url or not path.exists()):
        return None
    try:
        return NkeySeed.parse(path.read_text().strip())
    except (OSError, ValueError, MalformedError) as error:
        raise SettingsError([f"{variable('nats_seed_file')}: {path} holds no NKEY seed: {_why(error)}"]) from error


def _read_trust(settings: Settings) -> ssl.SSLContext | None:
    if not settings.nats_ca_file:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.nats_ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            [f"{variable('nats_ca_file')}: {settings.nats_ca_file} holds no certificate: {_why(error)}"]
        ) from error
    if settings.nats_cert_file:
        try:
            context.load_cert_chain(settings.nats_cert_file, settings.nats_key_file or None)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                [f"{variable('nats_cert_file')}: {settings.nats_cert_file} and its key cannot be used: {_why(error)}"]
            ) from error
    return context


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
