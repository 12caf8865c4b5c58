"""
A small HTTPS server that plays an identity domain, well-behaved or hostile.

In: what to answer.  Out: a listening server of its own thread; what it was asked, in ``asked``.
The answers are whole byte strings, so that they can be as wrong as a far side can make them.
"""

import base64
import datetime as dt
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_public_key
from cryptography.x509.oid import NameOID

Asked = dict[str, Any]
"""``head`` (text) and ``form`` (name to value)."""
Answer = Callable[[Asked], bytes | None]
"""None: hold the connection and say nothing."""


def authority() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
    return key, _certificate(name, name, key.public_key(), key, [x509.BasicConstraints(ca=True, path_length=None)])


def _certificate(subject: x509.Name, issuer: x509.Name, public: Any, signer: Any, extensions: list[Any]) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public).serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(hours=1))
    )  # fmt: skip
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(signer, hashes.SHA256())


class Issuer:
    """One server on 127.0.0.1; its certificate is for that address unless ``names`` says otherwise."""

    def __init__(self, directory: Path, answer: Answer, names: list[x509.GeneralName] | None = None) -> None:
        root_key, root = authority()
        key = ec.generate_private_key(ec.SECP256R1())
        san = x509.SubjectAlternativeName(names or [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        own = _certificate(x509.Name([]), root.subject, key.public_key(), root_key, [san])
        chain = directory / "issuer.pem"
        chain.write_bytes(own.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.roots = root.public_bytes(Encoding.PEM).decode()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(chain)
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.domain = f"https://127.0.0.1:{self.listener.getsockname()[1]}"
        self._held: list[ssl.SSLSocket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                raw, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            raw.settimeout(20)
            try:
                self._one(self.tls.wrap_socket(raw, server_side=True))
            except OSError:
                raw.close()  # the far side did not like us, which is what some tests want

    def _one(self, sock: ssl.SSLSocket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            received += sock.recv(65536) or b"\r\n\r\n"
        head, _, body = received.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
        while len(body) < length:
            body += sock.recv(65536)
        asked = {"head": head.decode(), "form": {k: v[0] for k, v in parse_qs(body.decode()).items()}}
        self.asked.append(asked)
        told = self.answer(asked)
        if told is None:
            self._held.append(sock)
            return
        sock.sendall(told)
        sock.unwrap() if told.endswith(b"}") else None
        sock.close()

    def stop(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join()
        for sock in self._held:
            sock.close()


def http(body: bytes, status: str = "200 OK", content_type: str = "application/json", more: str = "", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {size}\r\n{more}\r\n".encode() + body


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def upst(asked: Asked, sub: str = "svc-oci-cli", life_s: float = 3600) -> str:
    """A token bound to the key that was sent, as Oracle makes it."""
    key = load_der_public_key(base64.b64decode(asked["form"]["public_key"]))
    assert isinstance(key, rsa.RSAPublicKey)
    numbers = key.public_numbers()
    jwk = {"kty": "RSA", "e": "AQAB", "n": b64(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big"))}
    claims = {"sub": sub, "exp": int(time.time() + life_s), "jwk": json.dumps(jwk)}
    return f"{b64(b'{}')}.{b64(json.dumps(claims).encode())}.{b64(b'signature')}"


def good(asked: Asked) -> bytes:
    return http(json.dumps({"token": upst(asked)}).encode())
