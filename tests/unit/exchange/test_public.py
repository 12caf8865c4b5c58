"""The public process: two documents for everybody, and nothing else for anybody (attacks: C7)."""

import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.daemon.public import DOCUMENTS, answer
from tests.unit.exchange.issuer import Issuer, good
from tests.unit.keys import play

SNAPSHOTS = {"jwks": b'{"keys": []}', "openid-configuration": b'{"issuer": "x"}'}


def test_only_two_targets_and_two_methods_are_answered() -> None:
    """Pure: status by method and target."""
    for target, name in DOCUMENTS.items():
        assert answer("GET", target, SNAPSHOTS)[::2] == (200, SNAPSHOTS[name])
    assert answer("GET", "/jwks", {})[0] == 503
    assert answer("GET", "/credwire/jwks", SNAPSHOTS, "/credwire")[::2] == (200, SNAPSHOTS["jwks"])
    assert answer("GET", "/jwks", SNAPSHOTS, "/credwire")[0] == 404
    for target in ("/", "/jwks/", "/../jwks", "/%6awks", "/public/jwks", "*", "http://x/jwks"):
        assert answer("GET", target, SNAPSHOTS)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get"):
        assert answer(method, "/jwks", SNAPSHOTS)[0] == 405


_START = (
    "import sys, msgspec; from control.daemon import public_io as p;"
    "s = msgspec.json.decode(sys.argv[1], type=p.PublicSetup); sys.exit(p.run(s, p.listen(s.public), p.tls_of(s.public)))"
)


class Stage:
    """One public process over TLS, with a certificate that the test's root signed."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        donor = Issuer(directory, good)  # for its certificate
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.load_verify_locations(cadata=donor.roots)
        donor.stop()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.directory = directory / "public"
        self.directory.mkdir()
        monkeypatch.setattr(play, "_START", _START)
        served = {"address": "127.0.0.1", "port": self.port, "certificate": str(directory / "issuer.pem")}
        self.process = play.Process("public", "PublicSetup", {"run": str(directory), "public": served, "total_s": 1.0})
        assert self.process.beaten()

    def publish(self, name: str, content: bytes) -> None:
        fresh = self.directory / f".{name}.new"
        fresh.write_bytes(content)
        fresh.rename(self.directory / name)

    def get(self, target: str, method: str = "GET") -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=play.DEADLINE_S)
        try:
            connection.request(method, target)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def raw(self, content: bytes) -> bytes:
        plain = socket.create_connection(("127.0.0.1", self.port), play.DEADLINE_S)
        received = b""
        with self.tls.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
            try:
                sock.sendall(content)
                while chunk := sock.recv(65536):
                    received += chunk
            except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
                pass  # refused in the middle of what was sent
        return received


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.process.stop()


def test_snapshots_are_served_as_they_change(stage: Stage) -> None:
    """503 before the agent wrote them, then each version as it was written; links are not followed."""
    assert stage.get("/jwks")[0] == 503
    stage.publish("jwks", b"one")
    assert stage.get("/jwks") == (200, b"one")
    stage.publish("jwks", b"two")
    assert stage.get("/jwks") == (200, b"two")
    assert stage.get("/jwks", "HEAD") == (200, b"")
    assert stage.get("/jwks", "POST")[0] == 405
    assert stage.get("/issuer.pem")[0] == 404
    (stage.directory / "jwks").unlink()
    (stage.directory / "jwks").symlink_to(stage.directory.parent / "issuer.pem")
    assert stage.get("/jwks")[0] == 503


def test_strangers_are_bounded(stage: Stage) -> None:
    """Garbage, endless heads, plain HTTP and silence end; the process lives on, also with more idle callers than it serves."""
    stage.publish("jwks", b"one")
    assert b" 400 " in stage.raw(b"\x00\x01\x02\r\n\r\n")
    assert stage.raw(b"GET /jwks HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 100_000)[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")
    began = time.monotonic()
    assert stage.raw(b"GET /jwks HTTP/1.1\r\n") == b""
    assert time.monotonic() - began < 10
    idle = [socket.create_connection(("127.0.0.1", stage.port)) for _ in range(80)]
    try:
        assert stage.get("/jwks") == (200, b"one")
    finally:
        for sock in idle:
            sock.close()
    assert stage.process.child.poll() is None
