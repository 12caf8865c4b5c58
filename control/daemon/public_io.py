"""
The public process: serves the issuer's discovery document and JWKS to whoever asks.

In: one JSON argument (PublicSetup); the snapshots that the agent writes to ``<run>/public``.  Out: HTTP/1.1 answers, one per connection.
Holds no key but the one of its own TLS certificate, talks to no other process of ours, and takes strangers' bytes: so everything about a
connection is bounded (docs/limits.md), and the listener is bound before privileges go.
"""

import asyncio
import os
import socket
import ssl
import sys
from pathlib import Path
from urllib.parse import urlsplit

import h11
import msgspec

from control.daemon.beat_io import beat
from control.daemon.confine_io import confine, scrub_environment
from control.daemon.log_io import log
from control.daemon.public import DOCUMENTS, answer

CONNECTIONS_MOST = 64
TOTAL_S = 10.0
"""From accept to the last byte, TLS handshake included."""
HEAD_MOST = 8 * 1024
DOCUMENT_MOST = 256 * 1024
_SPEAKER = "public"


class Served(msgspec.Struct, frozen=True):
    """The ``public`` part of the configuration."""

    address: str = "127.0.0.1"
    port: int = 8443
    certificate: str = ""
    """PEM chain; empty together with ``key`` means plain HTTP, behind somebody else's TLS."""
    key: str = ""


class PublicSetup(msgspec.Struct, frozen=True):
    """What the supervisor tells; other fields of the common part are none of ours."""

    run: str
    beat_fd: int
    uids: dict[str, int]
    public: Served
    issuer_url: str = ""
    """Its path, if it has one, stands before the documents' names."""
    total_s: float = TOTAL_S


class Public:
    """The process: a listener and the snapshots."""

    def __init__(self, setup: PublicSetup, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._setup, self._listener, self._tls = setup, listener, tls
        self._directory = Path(setup.run) / "public"
        self._prefix = urlsplit(setup.issuer_url).path.rstrip("/")
        self._read: dict[str, tuple[tuple[int, int, int], bytes]] = {}
        """Name to (inode, size, mtime) and content."""
        self._slots = asyncio.Semaphore(CONNECTIONS_MOST)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Run until killed; ends when the supervisor's pipe is gone."""
        acceptor = asyncio.create_task(self._accept())
        try:
            await beat(self._setup.beat_fd)
        except BrokenPipeError:
            log(_SPEAKER, "supervisor-gone")
        finally:
            acceptor.cancel()

    async def _accept(self) -> None:
        """Accept while there is room; the rest waits in the kernel's backlog."""
        loop = asyncio.get_running_loop()
        while True:
            await self._slots.acquire()
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # no descriptors left, or the caller is gone already
                self._slots.release()
                log(_SPEAKER, "accept-failed", detail=error.strerror)
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._connection(sock))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()

    async def _connection(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._setup.total_s):
                reader = asyncio.StreamReader(limit=HEAD_MOST)
                protocol = asyncio.StreamReaderProtocol(reader)
                transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=self._tls)
                writer = asyncio.StreamWriter(transport, protocol, reader, loop)
                try:
                    await self._converse(reader, writer)
                    writer.close()
                    await writer.wait_closed()
                finally:
                    transport.abort()
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            pass  # strangers come, stall and go; counting them is all that could be done, and says nothing
        finally:
            sock.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MOST)
        try:
            request = await _request(http, reader)
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            text = b"the request is not well-formed, or its head is too large\n"
            await self._send(http, writer, (status, [("content-length", str(len(text)))], text), "GET")
            return
        if request is not None:
            method, target = request.method.decode("ascii"), request.target.decode("ascii", "replace")
            await self._send(http, writer, answer(method, target, self._snapshots(), self._prefix), method)

    async def _send(
        self, http: h11.Connection, writer: asyncio.StreamWriter, told: tuple[int, list[tuple[str, str]], bytes], method: str
    ) -> None:
        status, headers, body = told
        out = http.send(h11.Response(status_code=status, headers=[*headers, ("connection", "close")])) or b""
        if method != "HEAD":
            out += http.send(h11.Data(data=body)) or b""
        writer.write(out + (http.send(h11.EndOfMessage()) or b""))
        await writer.drain()

    def _snapshots(self) -> dict[str, bytes]:
        """Read what changed since the last request; the agent replaces each file as a whole."""
        found = {}
        for name in DOCUMENTS.values():
            try:
                with open(os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123
                    facts = os.fstat(file.fileno())
                    stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                    if name not in self._read or self._read[name][0] != stamp:
                        self._read[name] = (stamp, file.read(DOCUMENT_MOST))
            except OSError:
                self._read.pop(name, None)
                continue
            found[name] = self._read[name][1]
        return found


async def _request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """Read one head; None when the caller left.  A body is not waited for: the connection closes after the answer."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(HEAD_MOST))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None


def listen(served: Served) -> socket.socket:
    """Bind the listener; needs CAP_NET_BIND_SERVICE for a low port, so before privileges go."""
    family = socket.AF_INET6 if ":" in served.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((served.address, served.port))
    listener.listen(CONNECTIONS_MOST)
    listener.setblocking(False)
    return listener


def tls_of(served: Served) -> ssl.SSLContext | None:
    """Load certificate and key while they can be read.  None means plain HTTP."""
    if not served.certificate:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(served.certificate, served.key or None)
    return made


def run(setup: PublicSetup, listener: socket.socket, tls: ssl.SSLContext | None) -> int:
    """Serve as whoever we are; gives the exit code."""

    async def serve() -> None:
        await Public(setup, listener, tls).serve()

    log(_SPEAKER, "public-ready", address=setup.public.address, port=listener.getsockname()[1], tls=tls is not None)
    asyncio.run(serve())
    return 0


def main() -> int:
    """Entry of the public process: argv[1] is PublicSetup."""
    setup = msgspec.json.decode(sys.argv[1], type=PublicSetup)
    directory = Path(setup.run) / "public"
    directory.mkdir(mode=0o755, exist_ok=True)  # the rule below is made from what is there
    try:
        listener, tls = listen(setup.public), tls_of(setup.public)
    except (OSError, ssl.SSLError) as error:
        log(_SPEAKER, "public-not-started", detail=str(error))
        return 1
    uid = setup.uids["public"]
    scrub_environment()
    for line in confine("public", uid, uid, readable=[directory], parent=os.getppid()):
        log(_SPEAKER, "not-here", what=line)
    return run(setup, listener, tls)


if __name__ == "__main__":
    sys.exit(main())
