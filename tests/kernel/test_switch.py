"""The off switch: with every process of ours dead or stopped, traffic goes direct; nothing but the switch turns it on again."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bpf import switch_io, sys_io
from bpf.abi import KernelFilter, KernelReason, MapNumber
from bpf.errors import KernelError
from bpf.kernel_io import Kernel
from bpf.record_io import read_answer
from tests.kernel.lab_io import REPL, ROOT, STALE_NS, Client, Lab, silence, start_agent, until
from tests.kernel.test_sender import FORK_AND_SEND, REFUSED

TOOL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bpf import switch_io
done = switch_io.turn_off(Path(sys.argv[2]), None) if sys.argv[3] == "off" else switch_io.turn_on(Path(sys.argv[2]))
assert done
assert "bcc" not in sys.modules
"""
"""What a command line does, in a process of its own."""


def throw(lab: Lab, where: str) -> None:
    """Turn the switch from another process that has nothing but the pins."""
    subprocess.run([sys.executable, "-c", TOOL, str(ROOT), str(lab.pins), where], check=True)


def direct(lab: Lab, client: Client, host: str = "127.0.0.1") -> bool:
    """Whether a connection reaches the server itself; False when it is refused or redirected."""
    if client.connect(host, lab.service):
        return False
    server = lab.straight6 if host == "::1" else lab.straight4
    if lab.nobody_came():
        server.accept()[0].close()
        return True
    lab.accept(six=host == "::1").close()
    return False


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_off_within_a_second_while_the_agent_is(lab: Lab, how: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """Closed because the agent is gone; off by a process of its own, and the next connect goes direct; on, and it is closed again."""
    lab.rule_exe()
    client, agent = lab.client(), start_agent(lab, STALE_NS)
    try:
        assert client.connect("127.0.0.1", lab.service) == 0
        lab.accept().close()
        silence(lab, agent, how)
        assert client.connect("127.0.0.1", lab.service) == errno.ECONNREFUSED
        off_and_on(lab, client, capsys)
    finally:
        agent.kill()
        agent.wait()


def off_and_on(lab: Lab, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    """Throw the switch both ways, and say how long the first took."""
    began = time.monotonic()
    throw(lab, "off")
    assert direct(lab, client)
    took = time.monotonic() - began
    assert direct(lab, client, "::1")
    assert switch_io.read(lab.pins) == (True, switch_io.FOREVER)
    began_on_store = time.monotonic()
    switch_io.turn_off(lab.pins, None)
    assert direct(lab, client)
    stored = time.monotonic() - began_on_store
    with capsys.disabled():
        print(f" [direct after {took * 1e3:.0f} ms with a new Python process, {stored * 1e3:.2f} ms without]", end="")
    assert took < (10 if "QEMU TCG" in Path("/proc/cpuinfo").read_text() else 1)
    throw(lab, "on")
    assert client.connect("127.0.0.1", lab.service) == errno.ECONNREFUSED


def test_off_refuses_nothing(lab: Lab) -> None:
    """Datagrams, another network namespace and a full table pass; when it is on, each is refused again."""
    lab.rule_exe()
    client, elsewhere = lab.client(), lab.client()
    elsewhere.run("import ctypes\nassert ctypes.CDLL(None).unshare(0x40000000) == 0")
    datagram = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 443))"
    before = lab.kernel.counters()["off"]

    def seen() -> list[int]:
        return [client.connect("127.0.0.1", 443, kind="SOCK_DGRAM"), client.errno(datagram), elsewhere.connect("127.0.0.1", 443)]

    lab.kernel.turn_off(None)
    lab.refusals()
    assert seen() == [0, 0, errno.ENETUNREACH]  # its loopback is down: its own network answers
    places = lab.fill_table()
    try:
        assert direct(lab, lab.client())
    finally:
        lab.empty_table(places)
    assert not lab.refusals()
    assert lab.kernel.counters()["off"] == before + 4
    lab.kernel.turn_on()
    assert seen() == [errno.ECONNREFUSED, errno.ECONNREFUSED, errno.EPERM]
    assert not direct(lab, client)


def test_off_keeps_the_listeners_port(lab: Lab) -> None:
    """Who takes the port while we are off would be sent connections when we are on."""
    lab.rule_exe()
    lab.kernel.turn_off(None)
    assert lab.client(lab.other).errno(f"s = socket.socket()\ns.setsockopt(1, 15, 1)\ns.bind(('127.0.0.1', {lab.port}))") == errno.EPERM


def test_time_turns_it_on(lab: Lab) -> None:
    """``for_s`` over, bound processes are held again and nobody had to do anything."""
    lab.rule_exe()
    client = lab.client()
    client.run("pass")
    assert switch_io.turn_off(lab.pins, 2)
    seen = switch_io.read(lab.pins)
    assert seen is not None
    assert seen.off
    assert 0 < seen.until_ns - time.monotonic_ns() <= 2_000_000_000
    assert direct(lab, client)
    until(lambda: not direct(lab, client))
    assert time.monotonic_ns() >= seen.until_ns
    assert switch_io.read(lab.pins) == (False, 0)


def test_agent_does_not_turn_it_on(lab: Lab) -> None:
    """Beats, configuration, new filters and the start of another agent leave it where somebody put it; so do swapped programs."""
    lab.rule_exe()
    client = lab.client()
    lab.kernel.turn_off(None)
    lab.rule_exe()
    again = start_agent(lab)
    try:
        assert direct(lab, client)
    finally:
        again.kill()
        again.wait()
    about = lab.kernel.map_fd(MapNumber.ABOUT)
    raw = sys_io.lookup(about, b"\0" * 4, 64)
    assert raw is not None
    sys_io.update(about, b"\0" * 4, raw[:32] + b"x" * 32)
    swapped = lab.load()
    try:
        assert swapped.loaded
        assert swapped.switch() == (True, switch_io.FOREVER)
    finally:
        swapped.close()
    lab.rule_exe()
    assert direct(lab, client)
    lab.kernel.turn_on()
    assert not direct(lab, client)


def test_another_layout_takes_it_over(lab: Lab, second: tuple[Path, Path]) -> None:
    """New maps, new links: the switch alone is the old one, and a handle from before still moves it."""
    cgroup, pins = second
    places = {"pins": pins, "cache": lab.cache, "scope": cgroup, "daemon_cgroup": lab.daemon}
    assert (switch_io.read(pins), switch_io.turn_off(pins, None), switch_io.turn_on(pins)) == (None, False, False)
    old = Kernel.load(**places)
    assert switch_io.read(pins) == (False, 0)
    assert switch_io.turn_off(pins, None)
    about = old.map_fd(MapNumber.ABOUT)
    sys_io.update(about, b"\0" * 4, b"x" * 64)
    new = Kernel.load(**places)
    client = Client(cgroup, [str(lab.bound), "-I", "-S", "-c", REPL])
    try:
        assert not new.adopted
        assert new.switch() == (True, switch_io.FOREVER)
        new.swap_filters([KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None)], ports=[lab.service], excluded=[], revision=1)
        new.configure(port4=lab.port, port6=lab.port, agent_tgid=os.getpid(), stale_ns=STALE_NS, enforce=True)
        new.beat()
        assert direct(lab, client)
        old.turn_on()
        assert new.switch() == (False, 0)
        assert not direct(lab, client)
    finally:
        client.close()
        new.close()
        old.close()


def test_programs_without_a_switch_are_said(lab: Lab, second: tuple[Path, Path]) -> None:
    """What an older version left attached cannot be turned off: an error that says what can be done, not a false comfort."""
    cgroup, pins = second
    Kernel.load(pins=pins, cache=lab.cache, scope=cgroup, daemon_cgroup=lab.daemon).close()
    (pins / "maps" / "switch").unlink()
    for act in (lambda: switch_io.read(pins), lambda: switch_io.turn_off(pins, None), lambda: switch_io.turn_on(pins)):
        with pytest.raises(KernelError, match="without an off switch") as caught:
            act()
        assert str(pins) in caught.value.hint


def test_connection_from_before_gets_nothing_any_more(lab: Lab) -> None:
    """While off anybody may write on it; so neither then nor after is it served, and a new one is."""
    lab.rule_exe()
    client = lab.client()
    client.run(FORK_AND_SEND)
    assert client.connect("127.9.8.7", 443) == 0
    lab.bind(client.pid, identity=5)
    child_sends = "result = in_child(lambda: (os.setresuid(64001, 64001, 64001), s.sendall(b'child')))"
    with lab.accept() as sock:
        sock.settimeout(3)
        assert read_answer(sock).bound
        lab.kernel.turn_off(None)
        assert read_answer(sock).reason is KernelReason.OFF_MEANWHILE
        assert client.run(child_sends) == 0
        assert sock.recv(16) == b"child"
        lab.kernel.turn_on()
        assert read_answer(sock).reason is KernelReason.OFF_MEANWHILE
        assert not read_answer(sock).bound
    assert client.connect("127.9.8.7", 443) == 0
    with lab.accept() as sock:
        assert read_answer(sock).bound
        assert client.run(child_sends) in REFUSED


def test_turning_on_what_is_on_disturbs_nothing(lab: Lab) -> None:
    """A connection that is open stays served."""
    lab.rule_exe()
    client = lab.client()
    assert client.connect("127.9.8.7", 443) == 0
    lab.bind(client.pid)
    with lab.accept() as sock:
        assert switch_io.turn_on(lab.pins)
        assert read_answer(sock).bound
