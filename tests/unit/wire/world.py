"""
A whole worker in this process, with real TLS on both sides, and an agent and a keys that speak the real messages.

In: what the test wants them to say.  Out: sockets to talk through, and what agent, keys and destination saw.
The worker runs on uvloop in a thread of its own; the test's client and the destination block, as plain programs do.
The listener is 127.0.0.1:P, the destination 127.0.0.2:P: one port, as when the kernel redirects.
"""

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from control.binding.model import Destination
from control.daemon import message as m
from control.daemon.channel_io import Channel
from control.daemon.proxy_io import Proxy
from control.daemon.socket_io import listen
from control.reason import Reason
from control.wire.limits import DEFAULT, Limits

HOST = "api.cloud.test"
NEAR, FAR = "127.0.0.1", "127.0.0.2"
BINDING, IDENTITY = "cli-prod", "cli"

FAST = replace(
    DEFAULT, hello_s=1.0, head_s=1.0, idle_s=5.0, body_idle_s=2.0, answer_s=2.0, sign_s=2.0, leaf_s=2.0, handshake_s=2.0,
    upstream_connect_s=1.0, splice_connect_s=1.0, tick_s=0.02, linger_s=0.5,
)  # fmt: skip


class Authority:
    """A CA that signs for names."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), ca=True, host=None)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def leaf(self, public_key: Any, host: str) -> bytes:
        """Certify a key for a host; PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        return self._sign(subject, public_key, ca=False, host=host).public_bytes(serialization.Encoding.PEM)

    def _sign(self, subject: x509.Name, public_key: Any, *, ca: bool, host: str | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=12))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def server_context(authority: Authority, host: str, directory: Path) -> ssl.SSLContext:
    """Make a destination's context."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = directory / f"{host}.pem"
    pem.write_bytes(
        authority.leaf(key.public_key(), host)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


class Far:
    """A destination: each connection runs ``script`` in a thread; raw TCP where ``context`` is None."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext | None, script: Callable[["Peer"], None]) -> None:
        self.script, self.context = script, context
        self.connections = 0
        self.failures: list[BaseException] = []
        self.listener = socket.create_server((address, port))
        self.open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        self.open.append(sock)
        try:
            if self.context is not None:
                sock = self.context.wrap_socket(sock, server_side=True)
                self.open.append(sock)
            self.script(Peer(sock))
        except (OSError, EOFError) as error:
            self.failures.append(error)
        finally:
            sock.close()

    def close(self) -> None:
        """Stop listening and drop every connection."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for sock in self.open:
            with contextlib.suppress(OSError):
                sock.close()


@dataclass
class Message:
    """One request or answer as it stood on the wire."""

    first: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.fields if key.lower() == name]

    def one(self, name: str) -> str:
        """The one value of a header."""
        (value,) = self.all(name)
        return value

    @property
    def status(self) -> int:
        """Status of an answer."""
        return int(self.first.split(" ")[1])


class Peer:
    """Reads and writes HTTP on a blocking socket, believing nothing and repairing nothing."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""

    def send(self, data: bytes) -> "Peer":
        """Write everything."""
        self.sock.sendall(data)
        return self

    def line(self) -> bytes:
        """Read to the next CRLF."""
        while b"\r\n" not in self.buffer:
            self._fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        while len(self.buffer) < size:
            self._fill()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def rest(self) -> bytes:
        """Read to the end."""
        with contextlib.suppress(EOFError):
            while True:
                self._fill()
        data, self.buffer = self.buffer, b""
        return data

    def _fill(self) -> None:
        data = self.sock.recv(1 << 18)
        if not data:
            raise EOFError(f"closed after {self.buffer[:80]!r}")
        self.buffer += data

    def head(self) -> Message:
        """Read one head."""
        first = self.line().decode("latin-1")
        return Message(first, self._fields())

    def _fields(self) -> list[tuple[str, str]]:
        fields = []
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            fields.append((name, value.strip()))
        return fields

    def body(self, message: Message) -> Message:
        """Read the body that belongs to a head."""
        if message.all("transfer-encoding"):
            parts = []
            while size := int(self.line(), 16):
                parts.append(self.exactly(size))
                assert self.exactly(2) == b"\r\n"
            message.body = b"".join(parts)
            message.trailers = self._fields()
        elif message.all("content-length"):
            message.body = self.exactly(int(message.one("content-length")))
        return message

    def message(self, *, bodiless: bool = False) -> Message:
        """Read one whole message, skipping interim ones."""
        while True:
            message = self.head()
            if not message.first.startswith("HTTP/1.1 1"):
                return message if bodiless else self.body(message)


def answer(body: bytes = b"ok", status: str = "200 OK", *fields: str) -> bytes:
    """Make a plain answer."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class World:
    """Everything around one worker."""

    def __init__(self, directory: Path, *, limits: Limits = FAST, hosts: tuple[str, ...] = (HOST,), egress: str = "open") -> None:
        self.directory, self.limits = directory, limits
        self.client_ca, self.far_ca = Authority("binding ca"), Authority("cloud ca")
        self.far_context = server_context(self.far_ca, HOST, directory)
        listener = socket.create_server((NEAR, 0))
        self.port: int = listener.getsockname()[1]
        self.destination = Destination(hosts, ports=(self.port,), networks=("127.0.0.0/8",), upstream_roots=self.far_ca.pem)
        self.egress = egress
        self.observed: tuple[tuple[str, Destination], ...] = ()
        self.peer = FAR
        # what the others say
        self.verdict: Callable[[], Reason] = lambda: Reason.GRANTED
        self.opener = 1
        """The process that opens the next connection."""
        self.whose: Callable[[int], m.Message | None] = self.granted
        self.sign: Callable[[m.SignatureWanted], m.Message | None] = self.signed
        self.mint: Callable[[m.LeafWanted], m.Message | None] = self.minted
        # what they saw
        self.notes: list[m.ProxyNoted] = []
        self.wanted: list[m.SignatureWanted] = []
        self.leaves: list[m.LeafWanted] = []
        self.closed: list[str] = []
        self.grants: list[str] = []
        self.changed = threading.Condition()
        self.channels: dict[str, Channel] = {}
        self._sockets: dict[str, socket.socket] = {}
        self._fars: list[Far] = []
        self._clients: list[socket.socket] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        self.until(lambda: set(self.channels) == {"agent", "keys"} and self.proxy.may_inject() is Reason.GRANTED)

    # -- the loop's thread

    def _run(self, listener: socket.socket) -> None:
        uvloop.run(self._main(listener))

    async def _main(self, listener: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        for role in ("agent", "keys"):
            self._listen(role)
        self.proxy = Proxy(
            self.loop,
            run=self.directory,
            worker=0,
            still=lambda _: self.verdict(),
            opener=lambda _: self.opener,
            limits=self.limits,
            stale_s=0.5,
        )
        self.beating = True
        beats = self.loop.create_task(self._beat())
        self.proxy.start([listener])
        self._ready.set()
        await self._stop.wait()
        beats.cancel()
        await self.proxy.stop(0.0)
        listener.close()
        for role in ("agent", "keys"):
            self._unlisten(role)

    async def _beat(self) -> None:
        while True:
            if self.beating and (agent := self.channels.get("agent")) is not None:
                agent.send(m.Beat())
            await asyncio.sleep(0.05)

    def _listen(self, role: str) -> None:
        sock = self._sockets[role] = listen(self.directory / f"{role}.sock", callers=())[0]
        self.loop.add_reader(sock.fileno(), self._accept, role, sock)

    def _unlisten(self, role: str) -> None:
        sock = self._sockets.pop(role, None)
        if sock is not None:
            self.loop.remove_reader(sock.fileno())
            sock.close()
        channel = self.channels.pop(role, None)
        if channel is not None:
            channel.close()

    def _accept(self, role: str, sock: socket.socket) -> None:
        accepted, _ = sock.accept()
        heard = self._agent_heard if role == "agent" else self._keys_heard
        channel = Channel(self.loop, accepted, peer="proxy", own=role, on_message=heard, on_closed=lambda *_: None)
        channel.send(m.Greeted(role))
        self.channels[role] = channel
        self._tell()

    def _agent_heard(self, channel: Channel, message: Any, fds: list[int]) -> None:
        for fd in fds:
            socket.socket(fileno=fd).close()
        match message:
            case m.ConnectionAccepted():
                assert len(fds) == 1
                self._say(channel, self.whose(message.call))
            case m.ConnectionClosed():
                self.closed.append(message.grant)
            case m.ProxyNoted():
                self.notes.append(message)
        self._tell()

    def _keys_heard(self, channel: Channel, message: Any, fds: list[int]) -> None:
        match message:
            case m.LeafWanted():
                self.leaves.append(message)
                self._say(channel, self.mint(message))
            case m.SignatureWanted():
                self.wanted.append(message)
                self._say(channel, self.sign(message))
        self._tell()

    @staticmethod
    def _say(channel: Channel, message: m.Message | None) -> None:
        if message is not None:
            channel.send(message)

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    # -- what agent and keys say unless the test wants otherwise

    def granted(self, call: int) -> m.Message:
        """The connection is our identity's."""
        self.grants.append(f"grant-{len(self.grants) + 1}")
        pairs = ((BINDING, self.destination),)
        return m.ConnectionGranted(call, self.grants[-1], IDENTITY, self.egress, 1, self.peer, self.port, pairs, self.observed)

    def passed(self, call: int) -> m.Message:
        """The connection is nobody's."""
        return m.ConnectionPassed(call, Reason.IDENTITY_NONE, self.peer, self.port)

    def watched(self, call: int) -> m.Message:
        """The connection is our identity's, which has bindings in mode observe only."""
        self.grants.append(f"grant-{len(self.grants) + 1}")
        return m.ConnectionPassed(call, Reason.DESTINATION_UNKNOWN, self.peer, self.port, self.grants[-1], self.observed)

    def signed(self, wanted: m.SignatureWanted) -> m.Message:
        """Replace the placeholder, and hold the client to the hash it announced."""
        announced = {k.lower(): v for k, v in wanted.headers}.get("x-content-sha256", "")
        return m.RequestSigned(wanted.call, ("authorization",), (("authorization", f"Signed {len(self.wanted)}"),), announced)

    def minted(self, wanted: m.LeafWanted) -> m.Message:
        """Certify the worker's key."""
        key = serialization.load_der_public_key(wanted.public_key_der)
        return m.LeafMinted(wanted.call, self.client_ca.leaf(key, wanted.name), time.time() + 40000)

    # -- what tests do

    def far(self, script: Callable[[Peer], None], *, address: str = FAR, tls: bool = True, context: ssl.SSLContext | None = None) -> Far:
        """Start a destination."""
        far = Far(address, self.port, (context or self.far_context) if tls else None, script)
        self._fars.append(far)
        return far

    def echo(self) -> Far:
        """Start a destination that answers every request with 200 and what it got."""

        def script(peer: Peer) -> None:
            while True:
                request = peer.message()
                peer.send(answer(request.body, "200 OK", f"x-first: {request.first}", *(f"x-got-{k}: {v}" for k, v in request.fields)))

        return self.far(script)

    def tcp(self) -> socket.socket:
        """Connect to the listener, as a redirected client does."""
        sock = socket.create_connection((NEAR, self.port), timeout=10)
        self._clients.append(sock)
        return sock

    def tls(self, host: str = HOST, *, trust: str | None = None) -> Peer:
        """Connect and shake hands as a client that trusts the binding's CA."""
        context = ssl.create_default_context(cadata=trust or self.client_ca.pem)
        sock = context.wrap_socket(self.tcp(), server_hostname=host)
        self._clients.append(sock)
        return Peer(sock)

    def do(self, action: Callable[[], Any]) -> Any:
        """Run something on the worker's loop."""

        async def run() -> Any:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def withdraw(self, grant: str, reason: Reason) -> None:
        """Let the agent take a grant back."""
        self.do(lambda: self.channels["agent"].send(m.GrantWithdrawn(grant, reason)))

    def stop_role(self, role: str) -> None:
        """Let agent or keys die."""
        self.do(lambda: self._unlisten(role))
        self.until(lambda: getattr(self.proxy, role) is None)

    def start_role(self, role: str) -> None:
        """Let it come back."""
        self.do(lambda: self._listen(role))
        self.until(lambda: role in self.channels and (role == "keys" or self.proxy.may_inject() is not Reason.DAEMON_DOWN))

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for a condition: looked at when something was heard, and now and then for what nobody announces."""
        end = time.monotonic() + 10
        with self.changed:
            while not true():
                assert time.monotonic() < end, "the condition did not come"
                self.changed.wait(0.02)

    def noted(self, event: str, reason: Reason = Reason.GRANTED) -> m.ProxyNoted:
        """Wait for a note."""
        self.until(lambda: any(n.event == event and n.reason == reason for n in self.notes))
        return next(n for n in self.notes if n.event == event and n.reason == reason)

    def close(self) -> None:
        """End everything."""
        for sock in self._clients:
            with contextlib.suppress(OSError):
                sock.close()
        for far in self._fars:
            far.close()
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def world(directory: Path, **how: Any) -> Iterator[World]:
    """A World that ends."""
    made = World(directory, **how)
    try:
        yield made
    finally:
        made.close()


def get(path: str = "/things", *fields: str, host: str = HOST, port: int) -> bytes:
    """Make a GET."""
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}:{port}", *fields]).encode() + b"\r\n\r\n"


def post(body: bytes, *fields: str, method: str = "POST", path: str = "/things", port: int) -> bytes:
    """Make a POST with a length."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def hello_of(host: str) -> bytes:
    """A real hello, made by OpenSSL."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=host).do_handshake()
    return outgoing.read()
