"""
The cloud's own certificate authority and one TLS context per name.

In: names and a directory.  Out: ``ca.pem`` in that directory (what ``upstreamRoots`` and a client's bundle name) and a context that answers
each SNI with a leaf for exactly that name.  Private keys exist in this process only.
"""

import datetime
import os
import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = datetime.timedelta(days=2)
_BACKDATED = datetime.timedelta(hours=1)


class Authority:
    """A CA made now; it dies with the process."""

    def __init__(self, name: str = "credwire test cloud CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (
            self._builder(subject, subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(sign=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def _builder(self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def pem(self) -> bytes:
        """The CA certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def leaf(self, name: str) -> tuple[bytes, bytes]:
        """Give (certificate, private key) PEM for one DNS name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
        certificate = (
            self._builder(subject, self.certificate.subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), private

    def server_context(self, name: str) -> ssl.SSLContext:
        """Make a TLS 1.2+ server context with a fresh leaf for ``name``; HTTP/1.1 only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        certificate, private = self.leaf(name)
        fd = os.memfd_create("leaf", os.MFD_CLOEXEC)  # load_cert_chain takes paths only
        try:
            os.write(fd, certificate + private)
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        return context


def _key_usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


class NamedContexts:
    """One context per name; ``front`` picks by SNI and refuses names that are not ours."""

    def __init__(self, authority: Authority, names: Iterable[str]) -> None:
        self._by_name = {name: authority.server_context(name) for name in names}
        self._names = {id(context): name for name, context in self._by_name.items()}
        self.front = authority.server_context("no-such-name.invalid")
        self.front.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        chosen = self._by_name.get((name or "").lower())
        if chosen is None:
            return int(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)
        connection.context = chosen
        return None

    def name_of(self, context: ssl.SSLContext) -> str:
        """The name that the client asked for in its ClientHello."""
        return self._names.get(id(context), "")


def write_ca(authority: Authority, directory: Path) -> Path:
    """Write ``ca.pem``, readable by all, swapped in whole."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "ca.pem"
    fresh = directory / f".ca.pem.{os.getpid()}"
    fresh.write_bytes(authority.pem())
    fresh.chmod(0o644)
    fresh.replace(path)
    return path
