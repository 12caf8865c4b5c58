"""H2, H16: somebody else answers for a bound name.  Nothing is sent before the far side is verified for that name.  Needs root."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from control.reason import Reason
from tests.e2e.cloud.tls_io import Authority
from tests.e2e.lib.scene import IDENTITY, USERS, Scene, refused


@contextmanager
def _server(address: str, context: ssl.SSLContext | None) -> Iterator[list[bytes]]:
    """Answer on port 443 of ``address``; everything that arrives is kept."""
    heard: list[bytes] = []
    with socket.create_server((address, 443)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                sock.settimeout(3)
                try:
                    with sock if context is None else context.wrap_socket(sock, server_side=True) as talk:
                        heard.append(talk.recv(65536))
                        talk.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                except OSError:
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.mark.parametrize("kind", ["foreign CA", "foreign name", "no TLS"])
def test_an_impostor_gets_nothing(scene: Scene, kind: str) -> None:
    """A bound name at an address where another CA, another name of a CA, or plain HTTP answers: 502, no byte of a request leaves."""
    context = None
    if kind != "no TLS":
        context = Authority("impostor").server_context(IDENTITY if kind == "foreign CA" else "elsewhere.example")
    scene.fresh_lease("victim")  # a new revision: no verified connection is kept for it yet
    with _server(scene.stage.subnet.here4, context) as heard, scene.watch() as seen, scene.hand("victim") as hand:
        answer = hand.request(IDENTITY, "GET", USERS, address=scene.stage.subnet.here4)
        refused(scene, seen, answer, 502, Reason.UPSTREAM_UNVERIFIED)
        assert not [data for data in heard if b"Signature" in data or USERS.encode() in data]
        assert hand.request(IDENTITY, "GET", USERS).status == 200
