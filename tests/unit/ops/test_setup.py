"""Secrets are made once; the server's configuration is the table of permissions, quoted."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from contracts.permissions import USERS
from ops.embedded import find_nats_server
from ops.setup.nats_conf import ServerConf, Tls
from ops.setup.secrets import keep_secret, random_seed, store_key_line
from ops.setup.users import EVERY, make_users


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path):
    """The second call reads what the first wrote; nothing else is left in the folder."""
    path = tmp_path / "below" / "secret"
    first = keep_secret(path, lambda: "one")
    assert keep_secret(path, lambda: "two") == first == "one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_secret_that_cannot_be_made_leaves_no_file(tmp_path: Path):
    """A disk that is full does not leave half a key behind, which the next start would take for a whole one."""

    def full() -> str:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        keep_secret(tmp_path / "secret", full)
    assert not (tmp_path / "secret").exists()


def test_every_user_has_a_key_of_its_own(tmp_path: Path):
    """And keeps it."""
    users = make_users(lambda user: tmp_path / user / "nats.nk")
    assert set(users) == set(EVERY)
    assert len(set(users.values())) == len(EVERY)
    assert make_users(lambda user: tmp_path / user / "nats.nk") == users


@pytest.mark.parametrize("tls", [False, True])
def test_nats_server_itself_accepts_the_file(tmp_path: Path, *, tls: bool):
    """With encryption, with TLS, with a password that looks like a number."""
    folder = tmp_path / "with a 'quote'"
    folder.mkdir()
    keep_secret(folder / "store.conf", store_key_line)
    conf = ServerConf(
        listen="127.0.0.1:4222",
        monitor="127.0.0.1:8222",
        store=str(folder / "store"),
        users=make_users(lambda user: folder / f"{user}.nk"),
        password="2k",  # noqa: S106  # NATS would read 2000
        store_key="store.conf",
        tls=_certificate(folder) if tls else None,
    )
    conf.write(folder / "nats.conf", mode=0o640)
    assert stat.S_IMODE((folder / "nats.conf").stat().st_mode) == 0o640
    command = [str(find_nats_server()), "-t", "-c", str(folder / "nats.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert random_seed()[:2] == "SU"
    assert all(f"# {user}" in conf.text() for user in USERS)


def _certificate(folder: Path) -> Tls:
    from ops.loopback.certificate import make_certificate  # noqa: PLC0415  # only one of the cases needs it

    certificate, _ = make_certificate(folder)
    key = next(path for path in folder.glob("*.pem") if path != certificate)
    return Tls(certificate=str(certificate), key=str(key))
