"""
A client of the test cloud that can do everything wrong on purpose.

In: a RunningCloud.  Out: an issuer with its key set behind TLS, assertions, UPSTs, signed requests, each with any part changed.
It signs with ``cryptography`` from Oracle's description; the cloud verifies with httpsig.
"""

import base64
import hashlib
import http.client
import http.server
import json
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.cloud.exchange import FORM_TYPE, GRANT, UPST
from tests.e2e.cloud.service import DOMAIN
from tests.e2e.cloud.tls_io import Authority, write_ca
from tests.e2e.lib.cloud import RunningCloud

IDENTITY = "identity.test-1.cloud.test"
STORAGE = "objectstorage.test-1.cloud.test"
SHORT = ("date", "(request-target)", "host")
LONG = (*SHORT, "content-length", "content-type", "x-content-sha256")
_TIMEOUT_S = 20
_IP_FREEBIND = 15
"""ip(7); the socket module does not name it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class _Connection(http.client.HTTPSConnection):
    """HTTPS to one address under another name."""

    def __init__(self, address: tuple[str, int], name: str, context: ssl.SSLContext) -> None:
        super().__init__(name, address[1], timeout=_TIMEOUT_S, context=context)
        self._address, self._name, self._tls = address, name, context

    def connect(self) -> None:
        raw = socket.create_connection(self._address, timeout=_TIMEOUT_S)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self._name)


def send(  # noqa: PLR0917  # a request in the order in which it stands on the wire
    cloud: RunningCloud, host: str, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"", *, sni: str = ""
) -> Reply:
    """Send exactly these headers, nothing added; TLS is verified against the cloud's CA under ``sni`` or ``host``."""
    connection = _Connection(cloud.addresses[0], sni or host, ssl.create_default_context(cafile=str(cloud.ca)))
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers if any(name.lower() == "host" for name, _ in headers) else [("host", host), *headers]:
            connection.putheader(name, value)
        connection.endheaders(body or None)
        reply = connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()


# -- the issuer


class Issuer:
    """Signs assertions and serves its key set on one address, behind TLS with a CA of its own."""

    def __init__(self, directory: Path, name: str = "issuer.corp.test", address: str = "127.0.0.1") -> None:
        """``address`` need not be there yet: the far end of a cloud's veth pair comes up with the cloud."""
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.kid, self.url = "key-1", f"https://{name}"
        self.keys: list[dict[str, Any]] = [self.jwk(self.key, self.kid)]
        self.answer: tuple[int, bytes] | None = None
        """Instead of the key set: status and body."""
        self.fetched = 0
        authority = Authority("issuer CA")
        self.roots = write_ca(authority, directory)
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetched += 1
                status, body = issuer.answer or (200, json.dumps({"keys": issuer.keys}).encode())
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            def server_bind(self) -> None:
                self.socket.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
                super().server_bind()

        self._server = Server((address, 0), Handler)
        self._server.socket = authority.server_context(name).wrap_socket(self._server.socket, server_side=True)
        self.jwks = f"{self.url}:{self._server.server_port}/jwks"
        self.resolve = {name: address}
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @staticmethod
    def jwk(key: rsa.RSAPrivateKey, kid: str) -> dict[str, Any]:
        """The public JWK of ``key``."""
        public: dict[str, Any] = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        return {"kty": "RSA", "n": public["n"], "e": public["e"], "kid": kid, "use": "sig", "alg": "RS256"}

    def assertion(self, *, key: rsa.RSAPrivateKey | None = None, kid: str | None = None, **changed: Any) -> str:
        """A good assertion for ``ops/oci-cli``, with claims changed (None: left out)."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": "spiffe://corp.test/ops/oci-cli", "aud": "oci-test", "iat": now, "exp": now + 300, **changed}
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, key or self.key, algorithm="RS256", headers={"kid": kid or self.kid})

    def trust(self, **changed: Any) -> dict[str, Any]:
        """A good trust in this issuer, with fields changed."""
        good = {
            "name": "credwire",
            "issuer": self.url,
            "active": True,
            "publicKeyEndpoint": self.jwks,
            "publicKeyEndpointRoots": str(self.roots),
            "oauthClients": ["exchange-app"],
            "allowImpersonation": True,
            "audience": "oci-test",
            "clockSkewSeconds": 5,
            "impersonationServiceUsers": [{"rule": "sub eq spiffe://corp.test/ops/oci-cli", "value": "svc-oci-cli"}],
            "jwksCacheSeconds": 0,
        }
        return {**good, **changed}

    def cloud_config(self, **changed: Any) -> dict[str, Any]:
        """A configuration of a cloud that trusts this issuer, with fields changed."""
        good = {
            "clients": [{"id": "exchange-app", "secret": "exchange-secret"}, {"id": "other-app", "secret": "other-secret"}],
            "trusts": [self.trust()],
            "users": [{"name": "svc-oci-cli"}, {"name": "alice", "serviceUser": False}, {"name": "svc-gone", "active": False}],
            "resolve": self.resolve,
            "openHosts": ["open.cloud.test"],
        }
        return {**good, **changed}

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


# -- the exchange


def spki(key: rsa.RSAPrivateKey) -> str:
    """base64 of the DER public key, as the exchange wants it."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def exchange(
    cloud: RunningCloud,
    assertion: str,
    key: rsa.RSAPrivateKey,
    *,
    client: str = "exchange-app:exchange-secret",
    method: str = "POST",
    content_type: str = FORM_TYPE,
    **changed: str | None,
) -> Reply:
    """Ask for a UPST, with form fields changed (None: left out)."""
    form: dict[str, str | None] = {
        "grant_type": GRANT,
        "requested_token_type": UPST,
        "subject_token": assertion,
        "subject_token_type": "jwt",
        "public_key": spki(key),
        **changed,
    }
    body = urllib.parse.urlencode({name: value for name, value in form.items() if value is not None}).encode()
    headers = [("content-type", content_type), ("content-length", str(len(body)))]
    if client:
        headers.append(("authorization", f"Basic {base64.b64encode(client.encode()).decode()}"))
    return send(cloud, DOMAIN, method, "/oauth2/v1/token", headers, body)


# -- signed requests


@dataclass(slots=True)
class Signed:
    """A request as it will be signed; change the parts before or after ``headers()`` to make it wrong."""

    key: rsa.RSAPrivateKey
    key_id: str
    host: str = IDENTITY
    method: str = "GET"
    target: str = "/20160918/users"
    body: bytes = b""
    names: Sequence[str] = ()
    """Signed headers; empty means those that the method wants."""
    fields: dict[str, str] = field(default_factory=dict)
    """Header values in place of the good ones."""
    algorithm: str = "rsa-sha256"

    def headers(self) -> list[tuple[str, str]]:
        """All headers to send, Authorization last."""
        values = {"date": formatdate(usegmt=True), "host": self.host}
        if self.method in ("POST", "PUT", "PATCH"):
            digest = base64.b64encode(hashlib.sha256(self.body).digest()).decode()
            values |= {"content-length": str(len(self.body)), "content-type": "application/json", "x-content-sha256": digest}
        values |= self.fields
        names = self.names or (LONG if "x-content-sha256" in values else SHORT)
        told = {**values, "(request-target)": f"{self.method.lower()} {self.target}"}
        text = "\n".join(f"{name}: {told[name]}" for name in names)
        signature = base64.b64encode(self.key.sign(text.encode(), padding.PKCS1v15(), SHA256())).decode()
        authorization = (
            f'Signature algorithm="{self.algorithm}",headers="{" ".join(names)}",keyId="{self.key_id}",signature="{signature}",version="1"'
        )
        return [*values.items(), ("authorization", authorization)]

    def send(self, cloud: RunningCloud) -> Reply:
        """Send it as signed."""
        return send(cloud, self.host, self.method, self.target, self.headers(), self.body)
