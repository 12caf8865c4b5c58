"""A connection of a listed process arrives at the listener with the record of its owner; everybody else's goes straight on."""

import errno
import os
import socket
from pathlib import Path

import pytest

from bpf.abi import KernelFilter, KernelReason, ProcessState
from bpf.record_io import NoRecord, read_answer
from tests.kernel.lab_io import Lab


@pytest.mark.parametrize(
    ("host", "six", "shown"),
    [("127.9.8.7", False, "127.9.8.7"), ("2001:db8::7", True, "2001:db8::7"), ("::ffff:127.9.8.7", False, "127.9.8.7")],
    ids=["ipv4", "ipv6", "mapped"],
)
def test_listed_process_is_redirected_with_its_record(lab: Lab, host: str, six: bool, shown: str) -> None:
    """The listener learns process key, uid and original destination; the application sees the address it asked for."""
    lab.rule_exe()
    client = lab.client()
    assert client.connect(host, 443) == 0
    with lab.accept(six=six) as sock:
        answer = read_answer(sock)
        record = answer.record
        assert (record.tgid, record.address, record.port, record.uid) == (client.pid, shown, 443, 0)
        entry = lab.entry(client.pid)
        assert entry is not None
        assert (record.start_ns, record.exec_id) == (entry.start_ns, entry.exec_id)
        assert answer.state is ProcessState.PENDING
        assert answer.reason is KernelReason.GRANTED
        assert client.run("result = s.getpeername()[:2]") == [host, 443]
        client.run("s.sendall(b'hello')")
        assert sock.recv(16) == b"hello"


def test_start_time_is_the_one_that_proc_shows(lab: Lab) -> None:
    """The key's start time in clock ticks is field 22 of /proc/<pid>/stat."""
    lab.rule_exe()
    client = lab.client()
    assert client.connect("127.9.8.7", 443) == 0
    record = lab.answer().record
    ticks = int(Path(f"/proc/{client.pid}/stat").read_text().rpartition(")")[2].split()[19])
    assert record.start_ns // 10_000_000 == ticks


def test_unlisted_process_passes_straight(lab: Lab) -> None:
    """Another executable reaches the server itself, and has no entry in the table."""
    lab.rule_exe()
    client = lab.client(lab.other)
    for host, server in (("127.0.0.1", lab.straight4), ("::1", lab.straight6)):
        assert client.connect(host, lab.service) == 0
        server.accept()[0].close()
    assert lab.nobody_came()
    assert lab.entry(client.pid) is None


def test_port_without_interest_passes_straight(lab: Lab) -> None:
    """A listed process is left alone on ports that no binding names."""
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None), ports=(443,))
    client = lab.client()
    assert client.connect("127.0.0.1", lab.service) == 0
    lab.straight4.accept()[0].close()
    assert lab.nobody_came()


@pytest.mark.parametrize(
    ("host", "excluded"),
    [("127.0.0.1", "127.0.0.0/8"), ("::1", "::1/128"), ("::ffff:127.0.0.1", "127.0.0.0/8")],
    ids=["ipv4", "ipv6", "mapped"],
)
def test_excluded_network_passes_straight(lab: Lab, host: str, excluded: str) -> None:
    """An excluded network is reached directly, also when an IPv4 one is written as a mapped address; the rest is redirected."""
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None), excluded=(excluded,))
    client = lab.client()
    assert client.connect(host, lab.service) == 0
    (lab.straight6 if host == "::1" else lab.straight4).accept()[0].close()
    assert lab.nobody_came()
    assert client.connect("192.0.2.1", 443) == 0
    assert lab.answer().record.address == "192.0.2.1"


def test_nat64_address_is_excluded_by_the_address_inside(lab: Lab) -> None:
    """64:ff9b::192.0.2.1 is the excluded 192.0.2.1: not redirected; 64:ff9b::198.51.100.1 is."""
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None), excluded=("192.0.2.0/24",))
    client = lab.client()
    code = "s = socket.socket(socket.AF_INET6)\ns.settimeout(0.05)\ns.setsockopt(1, 25, b'lo')\ns.connect(('{}', 443))"
    assert client.errno(code.format("64:ff9b::c000:201")) != 0  # sent on as it is: bound to lo, it leads nowhere
    assert lab.nobody_came()
    assert client.errno(code.format("64:ff9b::c633:6401")) == 0
    assert lab.answer(six=True).record.address == "64:ff9b::c633:6401"


def test_daemon_cgroup_is_exempt(lab: Lab) -> None:
    """Our own connections are not redirected, whatever they are listed as."""
    lab.rule(KernelFilter(exe=None, uid=0, script=None))
    with socket.create_connection(("127.0.0.1", lab.service), 3) as sock:
        assert sock.getpeername() == ("127.0.0.1", lab.service)
        lab.straight4.accept()[0].close()
    assert lab.nobody_came()


def test_direct_connect_to_the_listener_has_no_record(lab: Lab) -> None:
    """Whoever connects to the listener himself, listed or not, is nobody's."""
    lab.rule_exe()
    for exe in (lab.bound, lab.other):
        client = lab.client(exe)
        for host, six in (("127.0.0.1", False), ("127.1.2.3", False), ("::1", True)):
            assert client.connect(host, lab.port) == 0
            with lab.accept(six=six) as sock, pytest.raises(NoRecord):
                read_answer(sock)


def test_reconnect_of_a_redirected_socket_leaves_no_stale_record(lab: Lab) -> None:
    """After AF_UNSPEC the socket is free; connected straight to the listener it has no record, and getpeername tells the truth."""
    lab.rule_exe()
    client = lab.client()
    client.run(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def disconnect(sock):\n    assert libc.connect(sock.fileno(), b'\\0' * 16, 16) == 0"
    )
    assert client.connect("127.9.8.7", 443) == 0
    lab.answer()
    assert client.errno(f"disconnect(s)\ns.connect(('127.1.2.3', {lab.port}))") == 0
    with lab.accept() as sock, pytest.raises(NoRecord):
        read_answer(sock)
    assert client.run("result = s.getpeername()") == ["127.1.2.3", lab.port]
    assert client.errno("disconnect(s)\ns.connect(('127.9.8.6', 443))") == 0
    assert lab.answer().record.address == "127.9.8.6"


def test_second_connect_of_the_owner_is_told_how_the_first_went(lab: Lab) -> None:
    """A non-blocking connect() asked again says connected; the record stays the first one's."""
    lab.rule_exe()
    client = lab.client()
    client.run("s = socket.socket()\ns.setblocking(False)\nresult = s.connect_ex(('127.9.8.7', 443))")
    with lab.accept() as sock:
        assert client.run("result = s.connect_ex(('127.9.8.7', 443))") in (0, errno.EISCONN)
        assert client.run("result = s.connect_ex(('127.9.8.6', 443))") == errno.EISCONN
        assert read_answer(sock).record.address == "127.9.8.7"


def test_one_source_port_reaches_two_destinations(lab: Lab) -> None:
    """Both connections collapse on one listener, and still have different tuples."""
    lab.rule_exe()
    client = lab.client()
    shared = "= socket.socket()\n{0}.setsockopt(1, 2, 1)\n{0}.setsockopt(1, 15, 1)"  # SO_REUSEADDR, SO_REUSEPORT
    client.run(f"a {shared.format('a')}\na.bind(('127.0.0.1', 0))\na.connect(('127.9.8.7', 443))")
    client.run(f"b {shared.format('b')}\nb.bind(a.getsockname())\nb.connect(('127.9.8.6', 443))")
    assert {lab.answer().record.address, lab.answer().record.address} == {"127.9.8.7", "127.9.8.6"}


def test_device_bound_socket_is_redirected(lab: Lab) -> None:
    """SO_BINDTODEVICE does not send the redirected SYN out of that device; the record says which one it was."""
    lab.rule_exe()
    client = lab.client()
    names = {name: index for index, name in socket.if_nameindex() if name != "lo"}
    if not names:
        pytest.skip("no second network device")
    name, index = next(iter(names.items()))
    client.run(f"s = socket.socket()\ns.settimeout(3)\ns.setsockopt(1, 25, {name!r}.encode())\ns.connect(('127.9.8.7', 443))")
    assert lab.answer().record.ifindex == index


def test_mark_of_the_socket_is_in_the_record(lab: Lab) -> None:
    """SO_MARK of the client travels along, for the upstream connection."""
    lab.rule_exe()
    client = lab.client()
    client.run("s = socket.socket()\ns.setsockopt(1, 36, 77)\ns.connect(('127.9.8.7', 443))")
    assert lab.answer().record.mark == 77


@pytest.mark.parametrize("host", ["127.9.8.7", "2001:db8::7"])
def test_udp_of_a_listed_process_is_refused(lab: Lab, host: str) -> None:
    """QUIC is refused at connect and at sendto on ports of interest; other ports and other processes are left alone."""
    lab.rule_exe()
    client, stranger = lab.client(), lab.client(lab.other)
    family = "AF_INET6" if ":" in host else "AF_INET"
    lab.refusals()
    assert client.connect(host, 443, kind="SOCK_DGRAM") == errno.ECONNREFUSED
    assert client.errno(f"s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\ns.sendto(b'x', ({host!r}, 443))") == errno.ECONNREFUSED
    assert {(e.reason, e.tgid, e.address, e.port) for e in lab.refusals()} == {(KernelReason.PROTOCOL_UNSUPPORTED, client.pid, host, 443)}
    loopback = "::1" if ":" in host else "127.0.0.1"
    assert client.connect(loopback, 53, kind="SOCK_DGRAM") == 0
    assert stranger.connect(loopback, 443, kind="SOCK_DGRAM") == 0
    assert stranger.errno(f"s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\ns.sendto(b'x', ({loopback!r}, 443))") == 0


def test_listeners_port_is_kept_for_the_daemon(lab: Lab) -> None:
    """Nobody else binds the listener's port, by either family; other ports are free."""
    lab.rule_exe()
    stranger = lab.client(lab.other)
    before = lab.kernel.counters()["port-guarded"]
    for family, host in (("AF_INET", "127.0.0.1"), ("AF_INET", ""), ("AF_INET6", "::1"), ("AF_INET6", "")):
        code = f"s = socket.socket(socket.{family})\ns.setsockopt(1, 15, 1)\ns.bind(({host!r}, {{}}))"
        assert stranger.errno(code.format(lab.port)) == errno.EPERM
        assert stranger.errno(code.format(0)) == 0
    assert lab.kernel.counters()["port-guarded"] == before + 4


def test_other_network_namespace_is_refused(lab: Lab) -> None:
    """A socket of a namespace without listener is refused with its reason, not sent to somebody else's loopback."""
    lab.rule_exe()
    client = lab.client()
    client.run("import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nassert libc.unshare(0x40000000) == 0")
    lab.refusals()
    assert client.connect("127.9.8.7", 443) == errno.EPERM
    assert [e.reason for e in lab.refusals()] == [KernelReason.NETNS_UNSERVED]


def test_enforcement_off_lets_everything_pass(lab: Lab) -> None:
    """With the switch off a listed process connects directly."""
    lab.rule_exe()
    client = lab.client()
    lab.kernel.configure(port4=lab.port, port6=lab.port, agent_tgid=os.getpid(), stale_ns=1, enforce=False)
    assert client.connect("127.0.0.1", lab.service) == 0
    lab.straight4.accept()[0].close()
    assert lab.nobody_came()


@pytest.mark.parametrize("host", ["127.9.8.7", "2001:db8::7"])
def test_fast_open_is_redirected(lab: Lab, host: str) -> None:
    """sendto(MSG_FASTOPEN) connects too: redirected, with its owner, and the bytes arrive."""
    lab.rule_exe()
    client = lab.client()
    family = "AF_INET6" if ":" in host else "AF_INET"
    client.run(f"s = socket.socket(socket.{family})\ns.sendto(b'early', 0x20000000, ({host!r}, 443))")
    with lab.accept(six=":" in host) as sock:
        sock.settimeout(3)
        assert sock.recv(16) == b"early"
        record = read_answer(sock).record
        assert (record.tgid, record.address) == (client.pid, host)


def test_put_off_connect_belongs_to_who_asked_for_it(lab: Lab) -> None:
    """With TCP_FASTOPEN_CONNECT the first send connects: the owner's has its record, a forked child's has none."""
    lab.rule_exe()
    client = lab.client()
    code = "s = socket.socket()\ns.settimeout(3)\ns.setsockopt(6, 34, 1)\ns.setsockopt(6, 30, 1)\ns.connect(('127.9.8.7', 443))\n"
    client.run(code + "s.sendall(b'owner')")  # 34: TCP_FASTOPEN_NO_COOKIE, so that it is put off without having been there before
    with lab.accept() as sock:
        assert read_answer(sock).record.tgid == client.pid
    client.run(
        code
        + "child = os.fork()\nif not child:\n    try: s.sendall(b'child')\n    except OSError: pass\n    os._exit(0)\nos.waitpid(child, 0)"
    )
    with lab.accept() as sock, pytest.raises(NoRecord):
        read_answer(sock)


def test_mptcp_is_redirected_or_closed(lab: Lab) -> None:
    """A multipath socket is never let through: it comes to the listener, and without a sender check it has no record."""
    lab.rule_exe()
    client = lab.client()
    failed = client.errno("s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\ns.settimeout(3)\ns.connect(('127.9.8.7', 443))")
    if failed in (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT):
        pytest.skip("the kernel has no MPTCP")
    assert failed == 0
    with lab.accept() as sock:
        try:
            assert read_answer(sock).record.tgid == client.pid
        except NoRecord:
            assert lab.kernel.counters()["sender-unchecked"] >= 1
