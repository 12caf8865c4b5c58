"""A process that is only observed: redirected and recorded while the daemon lives, refused nothing, and never a credential."""

import errno
import os
import signal

import pytest

from bpf.abi import Event, EventKind, KernelFilter, KernelReason, ProcessFlag, ProcessState
from bpf.record_io import read_answer
from tests.kernel.lab_io import STALE_NS, Client, Lab, silence, start_agent
from tests.kernel.test_sender import FORK_AND_SEND
from tests.kernel.test_switch import direct


def spared(lab: Lab) -> list[Event]:
    """Take what the kernel says it would have refused; asserts that it refused nothing."""
    events = lab.kernel.drain()
    assert not [e for e in events if e.kind is EventKind.REFUSED]
    return [e for e in events if e.kind is EventKind.SPARED]


def strict(lab: Lab) -> None:
    """The same rule, enforced."""
    lab.rule_exe()


def observe(lab: Lab) -> Client:
    """Put the usual rule into force as observing only, and start a client."""
    lab.rule_exe(observe=True)
    return lab.client()


@pytest.mark.parametrize("six", [False, True], ids=["ipv4", "ipv6"])
def test_observed_is_redirected_with_a_mark(lab: Lab, six: bool) -> None:
    """The record says so; attested or not, the connection never counts as bound."""
    client = observe(lab)
    assert client.connect("2001:db8::7" if six else "127.9.8.7", 443) == 0
    with lab.accept(six=six) as sock:
        answer = read_answer(sock)
        assert answer.observed
        assert answer.record.flags == ProcessFlag.OBSERVED
        assert answer.record.tgid == client.pid
        assert lab.bind(client.pid).flags & ProcessFlag.OBSERVED
        answer = read_answer(sock)
        assert (answer.reason, answer.state, answer.bound) == (KernelReason.GRANTED, ProcessState.BOUND, False)
        client.run("s.sendall(b'hello')")
        assert sock.recv(16) == b"hello"
    assert not spared(lab)


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_observed_goes_direct_while_the_agent_is(lab: Lab, how: signal.Signals) -> None:
    """Both families; the enforced one is refused in the same moment, so it is the mode that lets it pass."""
    client = observe(lab)
    agent = start_agent(lab, STALE_NS)
    try:
        assert not direct(lab, client)
        spared(lab)
        before = lab.kernel.counters()["observed"]
        silence(lab, agent, how)
        assert direct(lab, client)
        assert direct(lab, client, "::1")
        assert lab.kernel.counters()["observed"] == before + 2
        assert [(e.reason, e.tgid) for e in spared(lab)] == [(KernelReason.DAEMON_DOWN, client.pid)] * 2
        enforced = KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None)
        lab.kernel.swap_filters([enforced], ports=[lab.service], excluded=[], revision=2)
        assert client.connect("127.0.0.1", lab.service) == errno.ECONNREFUSED
    finally:
        agent.kill()
        agent.wait()


def test_observed_datagrams_pass(lab: Lab) -> None:
    """connect() and sendto() to a bound port, noted with the reason that would have been given."""
    client = observe(lab)
    client.run("pass")
    spared(lab)
    assert client.connect("127.0.0.1", 443, kind="SOCK_DGRAM") == 0
    assert client.errno("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 443))") == 0
    assert client.errno("socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ('::1', 443))") == 0
    assert [e.reason for e in spared(lab)] == [KernelReason.PROTOCOL_UNSUPPORTED] * 3


def test_observed_in_another_network_namespace_stays_there(lab: Lab) -> None:
    """It connects in its own network, to its own server."""
    client = observe(lab)
    client.run("import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.unshare(0x40000000) == 0")
    client.run(
        "import fcntl, struct\nc = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "fcntl.ioctl(c, 0x8914, struct.pack('16sH14x', b'lo', 1))\n"  # SIOCSIFFLAGS, IFF_UP
        "own = socket.socket()\nown.bind(('127.0.0.1', 443))\nown.listen()"
    )
    assert client.connect("127.0.0.1", 443) == 0
    assert client.run("own.settimeout(3)\nown.accept()[0].close()\nresult = s.getpeername()") == ["127.0.0.1", 443]
    assert [e.reason for e in spared(lab)] == [KernelReason.NETNS_UNSERVED]


def test_observed_passes_a_full_table_and_a_missing_listener(lab: Lab) -> None:
    """Where there is no room, and where there is no listener of the family."""
    lab.rule_exe(observe=True)
    places = lab.fill_table()
    try:
        assert direct(lab, lab.client())
    finally:
        lab.empty_table(places)
    assert KernelReason.TABLE_FULL in {e.reason for e in spared(lab)}
    lab.kernel.configure(port4=lab.port, port6=0, agent_tgid=os.getpid(), stale_ns=STALE_NS, enforce=True)
    client = lab.client()
    assert direct(lab, client, "::1")
    assert [e.reason for e in spared(lab)] == [KernelReason.DAEMON_DOWN]
    assert not direct(lab, client)


def test_observed_connection_may_be_shared(lab: Lab) -> None:
    """A forked child's, another user's and a traced owner's bytes arrive, counted; enforced they do not."""
    client = observe(lab)
    client.run(FORK_AND_SEND)
    before = lab.kernel.counters()
    assert client.connect("127.9.8.7", 443) == 0
    with lab.accept() as sock:
        sock.settimeout(3)
        spared(lab)
        assert client.run("result = in_child(lambda: (os.setresuid(64001, 64001, 64001), s.sendall(b'child')))") == 0
        assert sock.recv(16) == b"child"
        client.run("import ctypes\nctypes.CDLL(None).ptrace(0, 0, 0, 0)\ns.sendall(b'traced')")
        assert sock.recv(16) == b"traced"
        assert [e.reason for e in spared(lab)] == [KernelReason.SENDER_NOT_BOUND] * 2
    after = lab.kernel.counters()
    assert after["observed"] == before["observed"] + 2
    assert after["sender-not-bound"] == before["sender-not-bound"]


def test_observed_put_off_connect_and_multipath_have_their_record(lab: Lab) -> None:
    """What costs an enforced connection its record, and so its life, does not end an observed one."""
    client = observe(lab)
    code = "s = socket.socket()\ns.settimeout(3)\ns.setsockopt(6, 34, 1)\ns.setsockopt(6, 30, 1)\ns.connect(('127.9.8.7', 443))\n"
    # TCP_FASTOPEN_NO_COOKIE, TCP_FASTOPEN_CONNECT: it is the child's send that connects
    client.run(
        code
        + "child = os.fork()\nif not child:\n    s.sendall(b'child')\n    os._exit(0)\nresult = os.waitpid(child, 0)[1]\nassert result == 0"
    )
    with lab.accept() as sock:
        assert read_answer(sock).observed
        sock.settimeout(3)
        assert sock.recv(16) == b"child"
    failed = client.errno("s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\ns.settimeout(3)\ns.connect(('127.9.8.7', 443))")
    if failed in (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT):
        pytest.skip("the kernel has no MPTCP")
    assert failed == 0
    assert lab.answer().observed


def test_strict_filter_wins_over_observe(lab: Lab) -> None:
    """Two filters hit: observed only when both say so; direct and observe of different filters add up to neither."""
    exe = lab.exe(lab.bound)
    lenient = KernelFilter(exe=exe, uid=None, script=None, observe=True)
    for other, wanted in (
        (KernelFilter(exe=exe, uid=0, script=None, observe=True), 0),
        (KernelFilter(exe=exe, uid=0, script=None), errno.ECONNREFUSED),
        (KernelFilter(exe=exe, uid=0, script=None, direct_when_down=True), errno.ECONNREFUSED),
    ):
        lab.rule(lenient, other)
        client = lab.client()
        assert client.connect("127.9.8.7", 443) == 0
        assert lab.answer().observed is (wanted == 0)
        lab.kernel.configure(port4=lab.port, port6=lab.port, agent_tgid=os.getpid(), stale_ns=1, enforce=True)
        assert client.connect("127.0.0.1", lab.service) == wanted
        if not wanted:
            lab.straight4.accept()[0].close()


def test_enforcing_begins_with_the_next_connect(lab: Lab) -> None:
    """One word in the resources, one swap: the open connection stays without a credential for ever, the next is held."""
    client = observe(lab)
    assert client.connect("127.9.8.7", 443, name="old") == 0
    with lab.accept() as old:
        strict(lab)
        settled = lab.bind(client.pid)  # judged by the filters in force, although it has not connected since
        assert not settled.flags & ProcessFlag.OBSERVED
        assert (read_answer(old).current, read_answer(old).bound) == (True, False)
        assert client.connect("127.9.8.7", 443) == 0
        with lab.accept() as new:
            assert read_answer(new).bound
        lab.rule_exe(observe=True)
        assert lab.bind(client.pid).flags & ProcessFlag.OBSERVED


def test_observed_parent_has_observed_children(lab: Lab) -> None:
    """The child's entry, made by fork before anything was asked, has the mark; its own connection too."""
    client = observe(lab)
    client.run("pass")
    lab.bind(client.pid)
    child = client.run(
        "r, w = os.pipe()\nchild = os.fork()\nif not child:\n    os.read(r, 1)\n    c = socket.create_connection(('127.9.8.7', 443), 3)\n"
        "    os._exit(0)\nresult = child"
    )
    entry = lab.entry(child)
    assert entry is not None
    assert (entry.state, entry.flags) == (ProcessState.BOUND, ProcessFlag.OBSERVED)
    client.run("os.write(w, b'x')\nos.waitpid(child, 0)")
    answer = lab.answer()
    assert (answer.observed, answer.record.tgid) == (True, child)


def test_off_leaves_an_observed_connection_alone(lab: Lab) -> None:
    """It bears no credential before or after: nothing to end."""
    client = observe(lab)
    assert client.connect("127.9.8.7", 443) == 0
    lab.kernel.turn_off(None)
    with lab.accept() as sock:
        assert read_answer(sock).reason is KernelReason.GRANTED
        client.run("s.sendall(b'hello')")
        assert sock.recv(16) == b"hello"
    assert direct(lab, client)
