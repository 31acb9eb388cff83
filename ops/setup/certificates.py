"""A certificate authority for NATS' TLS, and what it signs: for installations that have none of their own.

`authority.pem` and its key, a server's pair and clients' pairs, PEM. Made once; a server's is made again when it runs
out soon or its names change, by the same authority, so that nobody has to be told.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ops.setup.secrets import keep_secret

AUTHORITY_DAYS: Final = 3650
LEAF_DAYS: Final = 825
RENEW_DAYS: Final = 90
CLOCK_SKEW: Final = dt.timedelta(hours=1)


class Authority(msgspec.Struct, frozen=True):
    """An authority whose files lie in a folder."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """What others trust it by."""
        return self.folder / "authority.pem"

    def ensure(self) -> None:
        """Make it, if it is not there."""
        key = _load_key(self.folder / "authority.key")
        if not self.certificate.exists():
            name = _name("Retold NATS authority")
            builder = _builder(name, name, key, AUTHORITY_DAYS)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
            _write(self.certificate, builder.sign(key, hashes.SHA256()))

    def issue_server(self, folder: Path, hosts: Sequence[str]) -> tuple[Path, Path]:
        """Certificate and key of a server, known by these names and addresses."""
        names: list[x509.GeneralName] = [_general(host) for host in hosts]
        alternative = x509.SubjectAlternativeName(names)
        return self._issue(folder, "server", hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, alternative)

    def issue_client(self, folder: Path, user: str) -> tuple[Path, Path]:
        """Certificate and key that a client shows."""
        return self._issue(folder, "client", user, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _issue(
        self,
        folder: Path,
        stem: str,
        common_name: str,
        purpose: x509.ObjectIdentifier,
        alternative: x509.SubjectAlternativeName | None,
    ) -> tuple[Path, Path]:
        certificate, private = folder / f"{stem}.pem", folder / f"{stem}.key"
        key = _load_key(private)
        if not _holds(certificate, alternative):
            issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            builder = _builder(_name(common_name), issuer.subject, key, LEAF_DAYS)
            builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
            if alternative is not None:
                builder = builder.add_extension(alternative, critical=False)
            _write(certificate, builder.sign(_load_key(self.folder / "authority.key"), hashes.SHA256()))
        return certificate, private


def _holds(path: Path, alternative: x509.SubjectAlternativeName | None) -> bool:
    """Whether a certificate is there, goes on for a while, and has these names."""
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    if certificate.not_valid_after_utc - dt.datetime.now(dt.UTC) < dt.timedelta(days=RENEW_DAYS):
        return False
    if alternative is None:
        return True
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == alternative


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A private key; made now if there is none."""
    pem = keep_secret(path, _new_key)
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} holds no key on an elliptic curve")
    return key


def _new_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode().strip()


def _write(path: Path, certificate: x509.Certificate) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    part.rename(path)
