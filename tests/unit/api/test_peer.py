"""Who is at the other end: what the kernel froze, and whether it still holds."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from control.api import peer_io
from control.api.peer_io import Peer
from control.api.roles import Rules, name_of_peer, peer_name
from control.api.view import Caller, Role


@pytest.fixture
def listening(tmp_path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen(4)
        yield sock


def connected(listening: socket.socket) -> tuple[subprocess.Popen[str], socket.socket]:
    """A child that connects, and execs a shell when told to."""
    program = (
        "import os, socket, sys\n"
        f"s = socket.socket(socket.AF_UNIX); s.connect({listening.getsockname()!r})\n"
        "sys.stdin.readline(); os.execv('/bin/sh', ['sh', '-c', 'echo execed; read line'])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return child, listening.accept()[0]


@pytest.mark.parametrize("option", [peer_io.SO_PEERPIDFD, 9999], ids=["6.5 and later", "before 6.5"])
def test_peer_is_known_until_it_execs(listening: socket.socket, monkeypatch: pytest.MonkeyPatch, option: int) -> None:
    """Uid, groups and pid are the child's; after its exec the peer is another program, with and without SO_PEERPIDFD."""
    monkeypatch.setattr(peer_io, "SO_PEERPIDFD", option)
    child, sock = connected(listening)
    with child, sock:
        assert child.stdin and child.stdout
        peer = Peer(sock)
        assert (peer.pid, peer.uid) == (child.pid, os.geteuid())
        assert peer.gids == {os.getegid(), *os.getgroups()}
        assert peer.unchanged()
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout.readline() == "execed\n"
        assert not peer.unchanged()
        child.kill()
        peer.close()
        assert not peer.unchanged()


def test_peer_that_ended_is_nobody(listening: socket.socket) -> None:
    """A caller that is gone before it is looked at is an error, not a guess."""
    child, sock = connected(listening)
    with sock:
        child.kill()
        child.communicate()
        with pytest.raises(OSError, match=r"ended|No such"):
            Peer(sock)


def test_roles_follow_uid_and_groups() -> None:
    """Root and the admin group change, the view group looks, others do nothing; the highest role counts."""
    rules = Rules(admin_gids=frozenset({70}), view_gids=frozenset({71}))
    assert rules.role(0, frozenset({5})) is Role.ADMIN
    assert rules.role(1001, frozenset({5, 70, 71})) is Role.ADMIN
    assert rules.role(1001, frozenset({5, 71})) is Role.VIEW
    assert rules.role(1001, frozenset({0})) is Role.NONE


def test_name_of_a_relay_reads_back() -> None:
    """The name says role, uid and pid, fits a Unix address, and comes back from what gRPC shows; other peers have none."""
    name = peer_name(Caller(Role.VIEW, 4294967294, 4194304), "0123456789abcdef")
    assert name == "credwire/view/4294967294/4194304/0123456789abcdef"
    assert len(name) < 107
    assert name_of_peer(f"unix-abstract:{name}") == name
    assert name_of_peer("unix:") == name_of_peer("ipv4:127.0.0.1:5") == ""
