"""Who may write on a redirected connection: its owner, and processes bound to the owner's identity."""

import socket

import pytest

from bpf.abi import KernelFilter, KernelReason
from tests.kernel.lab_io import Client, Lab

FORK_AND_SEND = """
import errno
def in_child(act, flags=None):
    r, w = os.pipe()
    child = os.fork()
    if not child:
        code = 0
        try:
            act()
        except OSError as error:
            code = error.errno
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
REFUSED = (13, 32)
"""EACCES at the dropped send; EPIPE once the socket is poisoned"""


def connected(lab: Lab, *, bound: bool) -> tuple[Client, socket.socket]:
    """A client with a redirected connection, and our end of it."""
    lab.rule_exe()
    client = lab.client()
    client.run(FORK_AND_SEND)
    assert client.connect("127.9.8.7", 443) == 0
    if bound:
        lab.bind(client.pid, identity=5)
    sock = lab.accept()
    sock.settimeout(3)
    return client, sock


@pytest.mark.parametrize(
    "send",
    [
        "s.sendall(b'x' * 5)",
        "os.write(s.fileno(), b'x' * 5)",
        "s.sendmsg([b'xx', b'xxx'])",
        "s.sendfile(open('/proc/self/exe', 'rb'), 0, 5)",
    ],
    ids=["send", "write", "sendmsg", "sendfile"],
)
def test_owner_may_send(lab: Lab, send: str) -> None:
    """The owner's bytes arrive, pending or bound."""
    client, sock = connected(lab, bound=False)
    with sock:
        client.run(send)
        assert len(sock.recv(16)) == 5
        lab.bind(client.pid)
        client.run(send)
        assert len(sock.recv(16)) == 5


def test_bound_fork_may_send(lab: Lab) -> None:
    """A child that took over its parent's verdict writes on the parent's connection."""
    client, sock = connected(lab, bound=True)
    with sock:
        assert client.run("result = in_child(lambda: s.sendall(b'child'))") == 0
        assert sock.recv(16) == b"child"


def test_pending_fork_may_not_send(lab: Lab) -> None:
    """As long as nobody attested the owner, only the owner itself may write."""
    client, sock = connected(lab, bound=False)
    with sock:
        lab.refusals()
        assert client.run("result = in_child(lambda: s.sendall(b'child'))") in REFUSED
        refusal = lab.refusals()[0]
        assert (refusal.reason, refusal.other_tgid) == (KernelReason.SENDER_NOT_BOUND, client.pid)
        assert (refusal.address, refusal.port) == ("127.9.8.7", 443)


def test_child_that_executes_another_program_may_not_send(lab: Lab) -> None:
    """A descriptor inherited over fork and exec is of no use to another program."""
    client, sock = connected(lab, bound=True)
    with sock:
        code = (
            "import subprocess\n"
            f"result = subprocess.run([{str(lab.other)!r}, '-I', '-S', '-c', 'import os,sys; os.write(int(sys.argv[1]), b\"stolen\")', "
            "str(s.fileno())], pass_fds=[s.fileno()], stderr=subprocess.DEVNULL).returncode"
        )
        assert client.run(code) != 0
        sock.settimeout(0.2)
        with pytest.raises((TimeoutError, ConnectionError)):
            assert sock.recv(16) != b"stolen"
            raise ConnectionError


def test_child_that_changes_its_uid_may_not_send(lab: Lab) -> None:
    """The verdict was for another uid."""
    client, sock = connected(lab, bound=True)
    with sock:
        code = "def drop():\n    os.setresuid(64001, 64001, 64001)\n    s.sendall(b'child')\nresult = in_child(drop)"
        assert client.run(code) in REFUSED


def test_owner_that_changes_its_uid_may_not_send(lab: Lab) -> None:
    """The connection was opened as another uid."""
    client, sock = connected(lab, bound=True)
    with sock:
        assert client.errno("os.setresuid(64001, 64001, 64001)\ns.sendall(b'x')") in REFUSED


def test_owner_that_is_traced_may_not_send(lab: Lab) -> None:
    """A tracer that came after connect() could put words into its mouth."""
    client, sock = connected(lab, bound=True)
    with sock:
        assert client.errno("import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\ns.sendall(b'x')") in REFUSED


@pytest.mark.parametrize("receiver", ["stranger", "bound to another", "bound to the same"])
def test_passed_descriptor(lab: Lab, receiver: str) -> None:
    """A descriptor sent by SCM_RIGHTS serves a process of the same identity, and nobody else."""
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None))
    client, other = lab.client(), lab.client(lab.other if receiver == "stranger" else lab.bound)
    assert client.connect("127.9.8.7", 443) == 0
    lab.bind(client.pid, identity=5)
    if receiver != "stranger":
        other.run("pass")
        lab.bind(other.pid, identity=5 if receiver == "bound to the same" else 6)
    path = str(lab.home / "passing")
    other.run(f"u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nu.bind({path!r})")
    client.run(f"u = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\nu.connect({path!r})\nsocket.send_fds(u, [b'x'], [s.fileno()])")
    (lab.home / "passing").unlink()
    send = "fds = socket.recv_fds(u, 1, 1)[1]\nos.write(fds[0], b'passed')"
    with lab.accept() as sock:
        sock.settimeout(3)
        if receiver == "bound to the same":
            other.run(send)
            assert sock.recv(16) == b"passed"
        else:
            assert other.errno(send) in REFUSED


def test_sender_check_survives_a_reconnect(lab: Lab) -> None:
    """After AF_UNSPEC and another connect() the socket is still checked."""
    client, first = connected(lab, bound=False)
    first.close()
    client.run("import ctypes\nassert ctypes.CDLL(None).connect(s.fileno(), b'\\0' * 16, 16) == 0\ns.connect(('127.9.8.6', 443))")
    with lab.accept() as sock:
        sock.settimeout(3)
        client.run("s.sendall(b'owner')")
        assert sock.recv(16) == b"owner"
        assert client.run("result = in_child(lambda: s.sendall(b'child'))") in REFUSED


def test_connections_that_are_not_redirected_are_not_checked(lab: Lab) -> None:
    """A stranger's forks share his connections as ever."""
    lab.rule_exe()
    client = lab.client(lab.other)
    client.run(FORK_AND_SEND)
    assert client.connect("127.0.0.1", lab.service) == 0
    sock = lab.straight4.accept()[0]
    with sock:
        assert client.run("result = in_child(lambda: s.sendall(b'child'))") == 0
        assert sock.recv(16) == b"child"
