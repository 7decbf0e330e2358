"""Authorities and certificates for tests over the network."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SIGNS = x509.KeyUsage(
    digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
    key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
)  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Signs certificates, and writes each with its key into a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = directory / f"{name}.crt"
        self._name = _name(name)
        self.path.write_bytes(self._signed(self._name, self._key, days=10, authority=True))

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: float, authority: bool = False,
        names: tuple[x509.GeneralName, ...] = (),
    ) -> bytes:  # fmt: skip
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        # What a strict check of RFC 5280 wants: Python's default from 3.13 on.
        own, signer = key.public_key(), self._key.public_key()
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        if authority:
            builder = builder.add_extension(SIGNS, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def revoke(self, *certificates: str, days: float = 5) -> bytes:
        """A list of revoked certificates, given by their paths; it expires after so many days."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name).last_update(now - timedelta(days=30))
        builder = builder.next_update(now + timedelta(days=days))
        for path in certificates:
            serial = x509.load_pem_x509_certificate(Path(path).read_bytes()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - timedelta(days=1))
            builder = builder.add_revoked_certificate(revoked.build())
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(x509.CRLNumber(1), critical=False).add_extension(signer, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(
        self, name: str, *, days: float = 5, file: str = "", address: str = "127.0.0.1"
    ) -> tuple[str, str]:  # fmt: skip
        """Write a certificate for a DNS name, localhost and an address; return the paths of certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = (x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(address)))
        certificate = self.directory / f"{file or name}.crt"
        private = self.directory / f"{file or name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        certificate.write_bytes(self._signed(_name(name), key, days=days, names=own))
        return str(certificate), str(private)
