"""
keys and exchange as they are started for real: own uids, no capabilities, Landlock and seccomp on, and still able to do their work.

The control for each claim stands beside it: what the confined process cannot do, root or the right uid can.  Needs root.
"""

import http.client
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.credential import seal
from control.daemon import message as m
from control.daemon.config import Config, Paths
from control.daemon.seal_io import key_of, open_seals
from control.daemon.socket_io import listen
from control.reason import Reason
from control.secret import Secret
from tests.unit.exchange.issuer import Issuer, good
from tests.unit.keys import play

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="giving up root needs root")

UIDS = {"agent": 0, "keys": 72411, "exchange": 72412, "proxy": 72413, "public": 72414}
CLIENT_SECRET = "client-secret-of-the-test-4711"


class Started:
    """keys and exchange under their own uids, agent and proxy played."""

    def __init__(self, directory: Path) -> None:
        self.run = directory
        self.run.chmod(0o711)
        self.state = directory / "keys"
        self.state.mkdir(mode=0o700)
        os.chown(self.state, UIDS["keys"], UIDS["keys"])
        self.listeners = {name: listen(self.run / f"{name}.sock", callers=(*UIDS.values(), 65534))[0] for name in ("agent", "keys")}
        self.issuer = Issuer(directory, good)
        self.children: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        number = self.listeners["keys"].fileno()
        self.seals = open_seals(Config(paths=Paths(state=str(directory))))
        fd = self.seals.keys_fd
        self._start("keys", {"keys_listener": number, "keys_dir": str(self.state), "seal_fd": fd}, (number, fd))
        self._start("exchange", {}, ())

    def _start(self, role: str, argument: dict[str, Any], fds: tuple[int, ...]) -> None:
        beats, beat_fd = os.pipe()
        told = {
            "run": str(self.run), "beat_fd": beat_fd, "uids": UIDS, "trust_domain": "corp.example", "issuer_url": play.ISSUER_URL,
            "stale_s": 3600.0, **argument,
        }  # fmt: skip
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", f"control.daemon.{role}_io", json.dumps(told)], pass_fds=(*fds, beat_fd), stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd()), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        os.close(beat_fd)
        self.children[role] = (child, beats)

    def connected(self, role: str, uid: int) -> play.Peer:
        """Connect with ``uid``'s credentials, which is what SO_PEERCRED keeps."""
        os.seteuid(uid)
        try:
            return play.Peer.connected(self.run / "keys.sock", own=role, peer="keys")
        finally:
            os.seteuid(0)

    def stop(self) -> None:
        for child, beats in self.children.values():
            child.kill()
            child.wait()
            os.close(beats)
        os.close(self.seals.keys_fd)
        os.close(self.seals.secrets_fd)
        self.issuer.stop()
        for listener in self.listeners.values():
            listener.close()


@pytest.fixture
def started() -> Iterator[Started]:
    with tempfile.TemporaryDirectory() as directory:
        made = Started(Path(directory))
        yield made
        made.stop()


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_confined_processes_still_exchange_and_sign(started: Started) -> None:
    """The whole way with everything switched on; then who they are, as the kernel says it."""
    source = play.source(started.issuer.domain, started.issuer.roots)
    to_exchange = play.accepted(started.listeners["agent"], own="agent", peer="exchange")
    to_exchange.send(m.PolicyBegan(7), m.PolicySource(source, Secret(CLIENT_SECRET)), m.PolicyCommitted(7))
    agent = started.connected("agent", 0)
    agent.send(m.Beat(), *play.policy(source), play.grant())
    agent.heard(m.GrantTaken)
    proxy = started.connected("proxy", UIDS["proxy"])
    assert isinstance(proxy.asks(play.wanted(1)), m.RequestSigned)
    assert len(agent.asks(m.BundleWanted(2, "oci-cli")).pem) > 500
    for role, (child, _) in started.children.items():
        told = status_of(child.pid)
        assert set(told["Uid"].split()) == set(told["Gid"].split()) == {str(UIDS[role])}
        assert told["CapEff"] == told["CapPrm"] == told["CapBnd"] == "0000000000000000"
        assert told["NoNewPrivs"] == "1"
        assert told["Seccomp"] == "2"
    modes = {stat.S_IMODE(file.stat().st_mode) for file in started.state.iterdir()}
    assert modes == {0o600}
    assert {file.stat().st_uid for file in started.state.iterdir()} == {UIDS["keys"]}


@pytest.mark.parametrize(
    ("role", "uid"), [("agent", UIDS["proxy"]), ("exchange", UIDS["proxy"]), ("proxy", UIDS["exchange"]), ("proxy", 65534)]
)
def test_a_role_is_its_uids_alone(started: Started, role: str, uid: int) -> None:
    """A proxy that greets as the agent or as exchange, and anybody else who greets as a proxy, is not heard; the proxy's own uid is."""
    assert started.connected(role, uid).closed()
    own = started.connected("proxy", UIDS["proxy"])
    own.heard(m.Greeted)
    refused = own.asks(play.wanted(1))
    assert isinstance(refused, m.Refused)
    assert refused.reason is Reason.DAEMON_DOWN


def test_the_kernel_guards_its_memory_and_files(started: Started) -> None:
    """Another uid can neither read the keys nor look into the process."""
    proxy = started.connected("proxy", UIDS["proxy"])
    proxy.heard(m.Greeted)  # so it is up and confined
    child, _ = started.children["keys"]
    files = list(started.state.iterdir())
    assert files
    os.seteuid(UIDS["proxy"])
    try:
        for path in (files[0], Path(f"/proc/{child.pid}/mem"), Path(f"/proc/{child.pid}/environ")):
            with pytest.raises(PermissionError):
                path.open("rb")
    finally:
        os.seteuid(0)
    key = key_of(started.seals.keys_fd)
    opened = [seal.unseal(key, file.name, file.read_bytes()).reveal() for file in files]
    assert any(b"PRIVATE KEY" in content for content in opened)
    assert not any(b"PRIVATE KEY" in file.read_bytes() for file in files)


def test_confined_keys_reads_its_sealing_key_and_keeps_no_descriptor_of_it(started: Started) -> None:
    """Landlock and seccomp let it read the memfd; afterwards the memfd is closed, and no process of another uid ever had it."""
    started.connected("proxy", UIDS["proxy"]).heard(m.Greeted)
    assert seal.is_sealed((started.state / "issuer-es256.pem").read_bytes())
    links = {role: [_link(f) for f in Path(f"/proc/{child.pid}/fd").iterdir()] for role, (child, _) in started.children.items()}
    assert all(links.values())
    assert not [link for of_role in links.values() for link in of_role if "memfd:credwire" in link]
    own = Path(f"/proc/self/fd/{started.seals.keys_fd}").readlink()
    assert "memfd:credwire-keys" in str(own)  # the control


def test_confined_keys_asks_for_a_static_secret_and_uses_it(started: Started) -> None:
    """The whole way of an API key with everything switched on."""
    agent = started.connected("agent", 0)
    told = play.policy(play.static_source(), bindings=(play.static_binding(),))
    agent.send(m.Beat(), *told, play.grant(bindings=("billing",)))
    agent.heard(m.GrantTaken)
    proxy = started.connected("proxy", UIDS["proxy"])
    proxy.send(play.wanted_static(1))
    asked = agent.heard(m.SecretWanted)
    agent.send(m.SecretShown(asked.call, Secret("api-key-4711")))
    assert proxy.heard((m.RequestSigned, m.Refused)).set == (("x-api-key", "api-key-4711"),)


def _link(fd: Path) -> str:
    """What a descriptor leads to; empty when its owner closed it since it was listed, as keys does with a channel that ended."""
    try:
        return str(fd.readlink())
    except FileNotFoundError:
        return ""


def test_keys_has_no_network(started: Started) -> None:
    """No descriptor of an Internet family is open in it; that it can make none is tests/attack/test_confine.py."""
    started.connected("proxy", UIDS["proxy"]).heard(m.Greeted)
    child, _ = started.children["keys"]
    links = [link for f in Path(f"/proc/{child.pid}/fd").iterdir() if (link := _link(f))]
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    assert inodes
    internet = "".join(Path(f"/proc/{child.pid}/net/{name}").read_text() for name in ("tcp", "tcp6", "udp", "udp6"))
    with socket.create_server(("127.0.0.1", 0)) as control:
        own = str(Path(f"/proc/self/fd/{control.fileno()}").readlink())[8:-1]
        assert own in Path("/proc/self/net/tcp").read_text()
    assert not [inode for inode in inodes if f" {inode} " in internet]


def test_the_public_process_serves_after_it_gave_everything_up(started: Started) -> None:
    """Certificate, key and port are taken as root, the snapshots are read as its own uid; the certificate's key it cannot open again."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    pem = started.run / "issuer.pem"
    pem.chmod(0o600)
    started._start("public", {"public": {"address": "127.0.0.1", "port": port, "certificate": str(pem)}}, ())
    child, beats = started.children["public"]
    assert os.read(beats, 1)
    (started.run / "public" / "jwks").write_bytes(b"{}")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(cadata=started.issuer.roots)
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=tls, timeout=play.DEADLINE_S)
    connection.request("GET", "/jwks")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"{}")
    connection.close()
    told = status_of(child.pid)
    assert set(told["Uid"].split()) == {str(UIDS["public"])}
    assert told["Seccomp"] == "2"
