"""Where the NATS server is and how one is let in, from the settings."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from contracts.errors import SettingsError
from contracts.jetstream.server import KEYS, Server
from contracts.nkeys import NkeySeed
from contracts.settings import Settings
from ops.loopback.certificate import make_certificate
from ops.setup.secrets import keep_secret, random_seed


def test_a_service_comes_by_the_key_beside_the_embedded_server(tmp_path: Path):
    """Its own, by its name; a nonce that it signs is verified by the public half."""
    seed = keep_secret(tmp_path / KEYS / "mixer.nk", random_seed)
    keep_secret(tmp_path / KEYS / "gateway.nk", random_seed)
    server = Server.of(Settings(data=tmp_path), "mixer")
    assert str(server.seed) == seed
    assert server.inbox_prefix == "_INBOX_mixer"
    shown = server.credentials(urlsplit(server.url), "a nonce")
    assert shown == {"nkey": NkeySeed.parse(seed).public, "sig": NkeySeed.parse(seed).sign("a nonce")}


def test_a_seed_that_is_named_wins_and_a_password_wins_over_one_that_lies_there(tmp_path: Path):
    """Whoever says how to be let in means it."""
    keep_secret(tmp_path / KEYS / "mixer.nk", random_seed)
    named = keep_secret(tmp_path / "elsewhere.nk", random_seed)
    by_password = Settings(data=tmp_path, nats_url="nats://u:p@nats:4222")
    assert Server.of(by_password, "mixer").seed is None
    shown = Server.of(by_password, "mixer").credentials(urlsplit(by_password.nats_url), "")
    assert shown == {"user": "u", "pass": "p"}
    chosen = Server.of(Settings(data=tmp_path, nats_seed_file=str(tmp_path / "elsewhere.nk")), "mixer")
    assert str(chosen.seed) == named


def test_files_that_cannot_be_used_are_told_by_the_setting_that_names_them(tmp_path: Path):
    """A seed that is none, an authority that is none, a certificate without its key."""
    (tmp_path / "no.nk").write_text("SUAB")
    (tmp_path / "no.pem").write_text("nothing")
    certificate, _ = make_certificate(tmp_path)
    for settings, name in (
        (Settings(nats_seed_file=str(tmp_path / "no.nk")), "RETOLD_NATS_SEED_FILE"),
        (Settings(nats_seed_file=str(tmp_path / "missing.nk")), "RETOLD_NATS_SEED_FILE"),
        (Settings(nats_ca_file=str(tmp_path / "no.pem")), "RETOLD_NATS_CA_FILE"),
        (Settings(nats_ca_file=str(tmp_path / "missing.pem")), "RETOLD_NATS_CA_FILE"),
        (Settings(nats_ca_file=str(certificate), nats_cert_file=str(tmp_path / "no.pem")), "RETOLD_NATS_CERT_FILE"),
    ):
        with pytest.raises(SettingsError, match=name):
            Server.of(settings, "mixer")


def test_the_address_that_is_said_holds_no_password():
    """In errors and logs; of each server of a cluster."""
    server = Server(url="nats://u:secret@one:4222,tls://u:secret@two:4222")
    assert server.urls == ["nats://u:secret@one:4222", "tls://u:secret@two:4222"]
    assert server.said == "nats://one:4222,tls://two:4222"
    assert server.wants_tls
    assert not Server(url="nats://one").wants_tls


def test_no_service_connects_past_its_key():
    """`settings.nats_url` alone would be anybody; `Server.of(settings, user)` is the way."""
    root = Path(__file__).parents[3]
    past = [
        str(path.relative_to(root))
        for folder in ("capture", "mixer", "gateway", "ops")
        for path in (root / folder).rglob("*.py")
        if "connect(settings.nats_url" in path.read_text() or "connect(self.settings.nats_url" in path.read_text()
    ]
    assert past == []
