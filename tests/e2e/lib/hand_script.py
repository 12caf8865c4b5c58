#!/usr/bin/python3
"""
The hands of a test inside a process that credwire knows: does on the network exactly what it is told, byte for byte.

In: one JSON object per line on stdin, ``{"do": NAME, ...}``; bytes are latin-1 text.  Out: one JSON line for each.
Copied root-owned into the stage and exec'd there, so that the kernel sees its ``#!``.  Standard library only: it runs under the
distribution's python3, like the OCI CLI.
"""

import http.client
import io
import json
import os
import socket
import ssl
import sys
import threading
import time

TIMEOUT_S = 25.0


class Stream(io.BufferedReader):
    """What a connection sends us; http.client closes its file after each answer, the connection goes on."""

    def close(self) -> None:
        """Stay open."""

    def makefile(self, *_args: object) -> "Stream":
        """What http.client asks of a socket."""
        return self


class Source(io.RawIOBase):
    """Raw reads of a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self.sock.recv_into(buffer)


class Hands:
    """The open connections, by number."""

    def __init__(self) -> None:
        self.sockets: dict[int, socket.socket] = {}
        self.streams: dict[int, Stream] = {}
        self.opened = 0
        self.results: list[tuple[float, float, str]] = []
        self.loads: list[threading.Thread] = []
        self.stop = threading.Event()

    def keep(self, sock: socket.socket) -> int:
        """Number a socket."""
        self.opened += 1
        self.sockets[self.opened] = sock
        self.streams[self.opened] = Stream(Source(sock))
        return self.opened

    def connect(self, address: str, port: int = 443, timeout: float = TIMEOUT_S) -> int:
        """Open a TCP connection."""
        return self.keep(socket.create_connection((address, port), timeout))

    def tls(self, number: int, name: str, trust: "list[str]") -> dict:
        """Shake hands as a client of ``name``; say who vouched for it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for path in trust:
            context.load_verify_locations(path)
        # an end without close_notify is an error here: nobody shall take a cut answer for a whole one
        sock = context.wrap_socket(self.sockets[number], server_hostname=name, suppress_ragged_eofs=False)
        self.sockets[number], self.streams[number] = sock, Stream(Source(sock))
        told = sock.getpeercert() or {}
        issuer = {key: value for part in told["issuer"] for key, value in part}
        names = [name for kind, name in told.get("subjectAltName", ()) if kind == "DNS"]
        return {"issuer": issuer.get("commonName", ""), "names": names, "version": sock.version()}

    def open(self, name: str, address: str, trust: "list[str]", port: int = 443) -> int:
        """TCP and TLS."""
        number = self.connect(address, port)
        try:
            self.tls(number, name, trust)
        except BaseException:
            self.close(number)
            raise
        return number

    def send(self, number: int, data: str) -> int:
        """Send these bytes."""
        self.sockets[number].sendall(data.encode("latin-1"))
        return len(data)

    def answer(self, number: int, method: str = "GET") -> dict:
        """Read one HTTP answer."""
        response = http.client.HTTPResponse(self.streams[number], method=method)  # type: ignore[arg-type]
        response.begin()
        body = response.read()
        return {"status": response.status, "headers": {k.lower(): v for k, v in response.getheaders()}, "body": body.decode("latin-1")}

    def read(self, number: int, most: int) -> str:
        """Read up to ``most`` bytes, whatever is there first; nothing at the end."""
        return (self.streams[number].read1(most) or b"").decode("latin-1")

    def drain(self, number: int) -> dict:
        """Read to the end; say how many bytes came and how it ended."""
        count = 0
        try:
            while piece := self.streams[number].read1(65536):
                count += len(piece)
        except (OSError, ssl.SSLError) as error:
            return {"bytes": count, "end": type(error).__name__, "at": time.time()}
        return {"bytes": count, "end": "eof", "at": time.time()}

    def half_close(self, number: int) -> int:
        """Send no more."""
        self.sockets[number].shutdown(socket.SHUT_WR)
        return 0

    def peer(self, number: int) -> "list[object]":
        """Where the application believes to be connected."""
        return list(self.sockets[number].getpeername()[:2])

    def close(self, number: int) -> int:
        """Close."""
        self.streams.pop(number, None)
        self.sockets.pop(number).close()
        return 0

    # -- load

    def load(self, *, threads: int, **how: object) -> int:
        """Keep asking in the background; ``how`` as ``_asking`` wants it."""
        self.stop.clear()
        self.loads = [threading.Thread(target=self._asking, kwargs=how, daemon=True) for _ in range(threads)]
        for thread in self.loads:
            thread.start()
        return threads

    def results_so_far(self) -> "list[tuple[float, float, str]]":
        """Give (begun, ended, outcome) of each request since the last time."""
        taken, self.results = self.results, []
        return taken

    def rest(self) -> int:
        """End the load."""
        self.stop.set()
        for thread in self.loads:
            thread.join(TIMEOUT_S)
        return sum(thread.is_alive() for thread in self.loads)

    def _asking(self, *, name: str, path: str, address: str, trust: "list[str]", pause_s: float, per_connection: int) -> None:
        """Ask until told to rest: ``per_connection`` requests on each connection, ``pause_s`` between two."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        for file in trust:
            context.load_verify_locations(file)
        while not self.stop.is_set():
            begun = time.time()
            try:
                with socket.create_connection((address, 443), 10) as raw, context.wrap_socket(raw, server_hostname=name) as sock:
                    stream = Stream(Source(sock))
                    for _ in range(per_connection):
                        begun = time.time()
                        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: {name}\r\n\r\n".encode())
                        response = http.client.HTTPResponse(stream)  # type: ignore[arg-type]
                        response.begin()
                        response.read()
                        why = response.getheader("x-credwire-reason", "")
                        self.results.append((begun, time.time(), f"{response.status} {why}".strip()))
                        if self.stop.wait(pause_s) or response.getheader("connection", "") == "close":
                            break
            except (OSError, ssl.SSLError, http.client.HTTPException) as error:
                self.results.append((begun, time.time(), type(error).__name__))
                self.stop.wait(pause_s)

    # -- anything else

    def python(self, code: str, **given: object) -> object:
        """Run ``code`` in here; what it leaves in ``result`` is the answer."""
        scope: dict[str, object] = {"hands": self, "socket": socket, "os": os, "time": time, "ssl": ssl, **given}
        exec(code, scope)  # noqa: S102  # the test's own words, in the test's own process
        return scope.get("result")


def serve(hands: Hands) -> None:
    """Do what is asked, line by line, until stdin ends."""
    print(json.dumps({"ok": os.getpid()}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            told = {"ok": getattr(hands, asked.pop("do"))(**asked)}
        except Exception as error:
            told = {"error": type(error).__name__, "errno": getattr(error, "errno", None) or 0, "text": str(error)}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    serve(Hands())
