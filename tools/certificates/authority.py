"""A certification authority in a folder, and the keys and certificates that it has made."""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
#: A certificate with less than this left is made anew.
RENEW = timedelta(days=7)
#: Clocks differ.
EARLIER = timedelta(hours=1)
NAME = re.compile(r"[A-Za-z0-9._-]{1,63}")


class Unusable(Exception):
    """What is in the folder cannot be read, or a name cannot be in a certificate."""


class Authority:
    """The authority in ``folder``, made if it is not there.

    Args:
        folder: where everything is; made with mode 0700 if missing.
        days: how long new certificates are valid.

    Attributes:
        made: names of the files made, in order.

    Raises:
        Unusable: there is an authority that cannot be read, or half of one, or it has ended.
    """

    def __init__(self, folder: Path, days: int = 365) -> None:
        self.folder = folder
        self.days = days
        self.made: list[str] = []
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, certificate = folder / "ca.key", folder / "ca.crt"
        if key.exists() != certificate.exists():
            raise Unusable(f"{folder} has one of ca.key and ca.crt, not both: remove it, or bring the other back")
        if not key.exists():
            self._make()
        try:
            loaded = serialization.load_pem_private_key(key.read_bytes(), None)
            self.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        except (ValueError, TypeError, OSError) as error:
            raise Unusable(f"the authority in {folder} cannot be used: {error}") from error
        if loaded.public_key() != self.certificate.public_key():
            raise Unusable(f"{key} is not the key of {certificate}")
        end = self.certificate.not_valid_after_utc
        if end < datetime.now(UTC) + RENEW:
            raise Unusable(f"the authority in {folder} ends on {end:%Y-%m-%d}: remove it")
        if not isinstance(loaded, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
            raise Unusable(f"{key} cannot sign certificates")
        self._key = loaded

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        # The name says which one it is, should there be several.
        serial = x509.random_serial_number()
        name = _subject(f"ryu_vmm test authority {serial:x}"[:40])
        builder = self._builder(name, name, key, serial, 10 * self.days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        self._write("ca", key, builder.sign(key, hashes.SHA256()))

    def issue(self, file: str, name: str, *usage: x509.ObjectIdentifier, hosts: tuple[str, ...] = ()) -> bool:
        """Make ``file.key`` and ``file.crt`` unless they are there and good; whether they were made.

        Args:
            file: name of the files without ending.
            name: common name, and DNS name if there are no ``hosts``.
            usage: SERVER or CLIENT: a certificate of one kind does not pass for the other; or both.
            hosts: DNS names and addresses instead.

        Raises:
            Unusable: a name is not 1 to 63 letters, digits, dots, underscores or hyphens.
        """
        for text in (name, *hosts):
            if not NAME.fullmatch(text) and not _address(text):
                raise Unusable(f"{text!r} cannot be in a certificate: letters, digits, dots, underscores, hyphens")
        alternatives = [_alternative(host) for host in hosts or (name,)]
        if self._good(file, name, usage, alternatives):
            return False
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        builder = self._builder(_subject(name), self.certificate.subject, key, serial, self.days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        signs = dict.fromkeys(_USAGES, False) | {"digital_signature": True}
        builder = builder.add_extension(x509.KeyUsage(**signs), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        self._write(file, key, builder.sign(self._key, hashes.SHA256()))
        return True

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, serial: int, days: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        authority = key if issuer == subject else self._key
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - EARLIER)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        )

    def _good(
        self, file: str, name: str, usage: tuple[x509.ObjectIdentifier, ...], alternatives: list[x509.GeneralName]
    ) -> bool:
        try:
            found = x509.load_pem_x509_certificate((self.folder / f"{file}.crt").read_bytes())
            key = serialization.load_pem_private_key((self.folder / f"{file}.key").read_bytes(), None)
            found.verify_directly_issued_by(self.certificate)
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            usages = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return False
        return (
            key.public_key() == found.public_key()
            and found.subject == _subject(name)
            and list(names) == alternatives
            and list(usages) == list(usage)
            and found.not_valid_after_utc > datetime.now(UTC) + min(RENEW, timedelta(days=self.days) / 2)
        )

    def _write(self, file: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self._replace(f"{file}.key", text, 0o600)
        self._replace(f"{file}.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    def _replace(self, name: str, content: bytes, mode: int) -> None:
        """Never half a file, and no moment in which others may read a key."""
        new = self.folder / f".{name}.new"
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
        new.replace(self.folder / name)
        self.made.append(name)


_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _alternative(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if _address(host) else x509.DNSName(host)
