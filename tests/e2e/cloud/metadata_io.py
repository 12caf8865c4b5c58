"""
The metadata service of one instance, with an authority that certifies it: IMDS v2 on loopback.

In: nothing.  Out: a Metadata that serves; ``answers`` can be made as wrong as a far side can be, ``asked`` is what came.
A request without ``Authorization: Bearer Oracle`` is refused, as the real one does it.
"""

import datetime
import http.server
import json
import threading
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

TENANCY = "ocid1.tenancy.oc99..credwiretest"
INSTANCE = "ocid1.instance.oc99.test-1.credwireinstance"
REGION = {"realmKey": "OC99", "realmDomainComponent": "cloud.test", "regionKey": "TST", "regionIdentifier": "test-1"}
_HOUR = datetime.timedelta(hours=1)


class InstanceAuthority:
    """A root, an intermediate below it, and leaves for instances."""

    def __init__(self) -> None:
        self._root_key, self._key = _rsa(), _rsa()
        root = _name("instance root")
        self.root = _issue(root, root, self._root_key, self._root_key, ca=1)
        self.intermediate = _issue(_name("instance intermediate"), root, self._key, self._root_key, ca=0)

    def leaf(
        self,
        *,
        tenancy: str = TENANCY,
        instance: str = INSTANCE,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        age: datetime.timedelta = _HOUR,
    ) -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
        """Certify an instance from an hour ago to ``2 h - age`` from now."""
        key = _rsa()
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, instance),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "opc-certtype:instance"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"opc-instance:{instance}"),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"opc-tenant:{tenancy}"),
            ]
        )
        return _issue(subject, self.intermediate.subject, key, self._key, usage=usage, age=age), key

    def roots(self) -> str:
        """PEM of the root, for the auth service."""
        return pem(self.root).decode()


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _issue(
    subject: x509.Name,
    issuer: x509.Name,
    key: rsa.RSAPrivateKey,
    signer: rsa.RSAPrivateKey,
    *,
    ca: int | None = None,
    usage: x509.ObjectIdentifier | None = None,
    age: datetime.timedelta = _HOUR,
) -> x509.Certificate:
    start = datetime.datetime.now(datetime.UTC) - age
    signs = ca is not None
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    use = x509.KeyUsage(**{name: name in (("key_cert_sign", "crl_sign") if signs else ("digital_signature",)) for name in names})
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(start + 2 * _HOUR)
        .add_extension(x509.BasicConstraints(ca=signs, path_length=ca), critical=True)
        .add_extension(use, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )  # fmt: skip
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("instance.cloud.test")]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def pem(what: x509.Certificate | rsa.RSAPrivateKey) -> bytes:
    """PEM, as the metadata service gives it."""
    if isinstance(what, x509.Certificate):
        return what.public_bytes(Encoding.PEM)
    return what.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


class Metadata:
    """The service; a context manager."""

    def __init__(self, authority: InstanceAuthority | None = None, **leaf: Any) -> None:
        """Serve a leaf of ``authority``, made with ``leaf``."""
        self.authority = authority or InstanceAuthority()
        self.answers: dict[str, tuple[int, bytes]] = {
            "/opc/v2/instance/region": (200, b"test-1"),
            "/opc/v2/instance/regionInfo": (200, json.dumps(REGION).encode()),
        }
        self.certify(**leaf)
        self.asked: list[str] = []
        self.more: dict[str, str] = {}
        """Further headers of every answer."""
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                service.asked.append(self.path)
                known = self.headers.get("authorization") == "Bearer Oracle"
                status, body = service.answers.get(self.path, (404, b"{}")) if known else (401, b"{}")
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                for name, value in service.more.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/opc/v2"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def certify(self, **leaf: Any) -> None:
        """Give the instance a new certificate and key."""
        certificate, key = self.authority.leaf(**leaf)
        self.answers |= {
            "/opc/v2/identity/cert.pem": (200, pem(certificate)),
            "/opc/v2/identity/key.pem": (200, pem(key)),
            "/opc/v2/identity/intermediate.pem": (200, pem(self.authority.intermediate)),
        }

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
