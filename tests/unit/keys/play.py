"""
Play the processes around keys and exchange: real processes, real SEQPACKET sockets, one uid for everybody.

In: nothing.  Out: Process to start one of ours, Peer to speak as another, samples of what the agent would tell.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from control.binding.model import Asked, Binding, Destination, HeaderSigner, OciSigner, OciSource, Source, StaticSource
from control.credential import seal
from control.daemon import message as m
from control.daemon.config import read_config
from control.daemon.seal_io import key_of, open_seals
from control.daemon.socket_io import listen, seqpacket
from control.facts.model import ProcessKey
from control.identity.model import Identity
from control.units import ExecId, Pid, StartNs

T = TypeVar("T")
ISSUER_URL = "https://issuer.corp.example"
HOST = "identity.test-1.cloud.test"
DEADLINE_S = 20.0
"""Longest wait for anything; reached only when a test fails."""

_START = "import sys, msgspec; from control.daemon import {0}_io as p; sys.exit(p.run(msgspec.json.decode(sys.argv[1], type=p.{1})))"
"""Everything of the module but the confinement, which needs root."""


class Process:
    """One of our processes, started as the test's own user."""

    def __init__(self, module: str, setup: str, argument: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        self.beats, beat_fd = os.pipe()
        uid = os.geteuid()
        argument = {
            "beat_fd": beat_fd, "uids": dict.fromkeys(("agent", "keys", "exchange", "proxy", "public"), uid),
            "trust_domain": "corp.example", "issuer_url": ISSUER_URL, **argument,
        }  # fmt: skip
        self.stderr_read, stderr = os.pipe()
        self.child = subprocess.Popen(
            [sys.executable, "-c", _START.format(module, setup), json.dumps(argument)],
            pass_fds=(*fds, beat_fd), stderr=stderr, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())},
            cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(beat_fd)
        os.close(stderr)
        self.log = b""

    def beaten(self) -> bool:
        """Wait for the next beat; False when the process is gone."""
        ready, _, _ = select.select([self.beats], [], [], DEADLINE_S)
        return bool(ready) and bool(os.read(self.beats, 4096))

    def threads(self) -> int:
        """Count its threads."""
        return len(list(Path(f"/proc/{self.child.pid}/task").iterdir()))

    def stop(self) -> str:
        """Kill it and give what it wrote on stderr."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait()
        if self.stderr_read >= 0:
            while chunk := os.read(self.stderr_read, 65536):
                self.log += chunk
            os.close(self.stderr_read)
            os.close(self.beats)
            self.stderr_read = -1
        return self.log.decode()


class Peer:
    """The far end of a channel, spoken by the test one message at a time."""

    def __init__(self, sock: socket.socket, *, own: str, peer: str) -> None:
        sock.setblocking(True)
        sock.settimeout(DEADLINE_S)
        self.sock, self.own, self.peer = sock, own, peer
        self.seen: list[Any] = []
        """Everything heard, for searching secrets in it."""

    @classmethod
    def connected(cls, path: Path, *, own: str, peer: str, greets: str | None = None) -> "Peer":
        sock = seqpacket()
        sock.setblocking(True)
        sock.connect(str(path))
        made = cls(sock, own=own, peer=peer)
        made.send(m.Greeted(greets or own))
        return made

    def send(self, *messages: m.Message) -> None:
        for message in messages:
            self.sock.send(m.encode(message))

    def heard(self, kind: type[T] | tuple[type[Any], ...], when: Callable[[Any], bool] = lambda _: True) -> T:
        """Read on until a message of ``kind`` for which ``when`` holds; ConnectionResetError when the channel closes first."""
        until = time.monotonic() + DEADLINE_S
        while time.monotonic() < until:
            raw = self.sock.recv(m.MAX_MESSAGE)
            if not raw:
                raise ConnectionResetError
            message = m.decode(self.peer, self.own, raw)
            self.seen.append(message)
            if isinstance(message, kind) and when(message):
                return message  # type: ignore[return-value]
        raise TimeoutError(f"no {kind} was heard")

    def asks(self, message: m.Message) -> Any:
        """Send a *Wanted* message and give the message that carries its call."""
        self.send(message)
        return self.heard((m.Message,), lambda answer: getattr(answer, "call", None) == message.call)  # type: ignore[attr-defined]

    def closed(self) -> bool:
        """Wait until the far end has closed."""
        try:
            while self.sock.recv(m.MAX_MESSAGE):
                pass
        except ConnectionResetError:
            pass
        return True


def accepted(listener: socket.socket, *, own: str, peer: str) -> Peer:
    """Accept one connection of ``peer`` and hear its greeting."""
    listener.setblocking(True)
    listener.settimeout(DEADLINE_S)
    sock, _ = listener.accept()
    made = Peer(sock, own=own, peer=peer)
    made.heard(m.Greeted)
    return made


def own_listener(path: Path) -> socket.socket:
    """Bind as the supervisor does."""
    return listen(path, callers=())[0]


def unsealed(config_path: Path, file: Path) -> bytes:
    """Open a file of keys with the master of the installation that the configuration describes; as root."""
    config, errors = read_config(str(config_path), config_path.read_text())
    assert config is not None, errors
    seals = open_seals(config)
    try:
        raw = file.read_bytes()
        return seal.unseal(key_of(seals.keys_fd), file.name, raw).reveal() if seal.is_sealed(raw) else raw
    finally:
        os.close(seals.keys_fd)
        os.close(seals.secrets_fd)


# ---- what the agent would tell -----------------------------------------------------------------------------------------------------

IDENTITIES = (
    Identity("oci-cli", "spiffe://corp.example/ops/oci-cli", "prod", ()),
    Identity("backup", "spiffe://corp.example/ops/backup", "prod", ()),
)


def source(domain: str = "https://idcs-1.identity.cloud.test", roots: str = "", principal: str = "svc-oci-cli") -> Source:
    return Source("oci-prod-upst", OciSource(domain, "client-1", "/x", roots), "prod", 3600, "oci-prod", principal)


def binding(name: str, identity: str, *destinations: Destination, **more: Any) -> Binding:
    return Binding(name, identity, "oci-prod-upst", destinations, OciSigner(), **more)


API_HOST = "api.billing.test"


def static_source(name: str = "billing-key", ttl_cap_s: int = 3600) -> Source:
    return Source(name, StaticSource(file="/etc/credwire/secrets/billing"), "prod", ttl_cap_s)


def static_binding(name: str = "billing", identity: str = "oci-cli", host: str = API_HOST, **more: Any) -> Binding:
    told: dict[str, Any] = {"source": "billing-key", "signer": HeaderSigner("x-api-key")}
    return Binding(name, identity, destinations=(Destination(hosts=(host,)),), **(told | more))


BINDINGS = (
    binding("oci-cli-prod", "oci-cli", Destination(hosts=("*.test-1.cloud.test",), methods=("GET", "POST"), paths=("/20160918/users*",))),
    binding("oci-cli-buckets", "oci-cli", Destination(hosts=("objectstorage.test-1.cloud.test",))),
    binding("oci-cli-watched", "oci-cli", Destination(hosts=("watched.test-1.cloud.test",)), mode="observe"),
    binding("backup-prod", "backup", Destination(hosts=("backup.cloud.test",))),
)
PROCESS = ProcessKey(Pid(4242), StartNs(1), ExecId(1))


def policy(*sources: Source, revision: int = 7, bindings: tuple[Binding, ...] = BINDINGS) -> list[m.Message]:
    return [
        m.PolicyBegan(revision),
        *(m.PolicyIdentity(identity) for identity in IDENTITIES),
        *(m.PolicySource(s) for s in sources),
        *(m.PolicyBinding(b) for b in bindings),
        m.PolicyCommitted(revision),
    ]


def grant(grant_id: str = "g-1", **changes: Any) -> m.GrantIssued:
    told: dict[str, Any] = {"identity": "oci-cli", "bindings": ("oci-cli-prod", "oci-cli-buckets"), "process": PROCESS, "revision": 7}
    return m.GrantIssued(grant_id, **(told | changes))


def wanted_static(call: int = 1, *, grant: str = "g-1", binding: str = "billing", host: str = API_HOST) -> m.SignatureWanted:
    """What a client with a placeholder key asks."""
    headers = (("host", host), ("X-Api-Key", "placeholder"), ("x-api-key", "again"))
    return m.SignatureWanted(call, grant, binding, Asked(host, 443, "GET", "/v1/invoices"), "/v1/invoices?page=2", headers)


def wanted(call: int = 1, **changes: Any) -> m.SignatureWanted:
    """A truthful wish; ``changes`` make it a lie."""
    placeholder = 'Signature version="1",keyId="t/u/f",algorithm="rsa-sha256",headers="date (request-target) host",signature="AA=="'
    headers = (("host", HOST), ("date", "Thu, 01 Jan 1970 00:00:00 GMT"), ("authorization", placeholder))
    told: dict[str, Any] = {
        "grant": "g-1", "binding": "oci-cli-prod", "asked": Asked(HOST, 443, "GET", "/20160918/users"),
        "target": "/20160918/users?limit=5", "headers": headers,
    }  # fmt: skip
    return m.SignatureWanted(call, **(told | changes))
