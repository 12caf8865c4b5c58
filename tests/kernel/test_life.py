"""Start, adoption, death and removal: closed when the daemon is gone, direct for everybody else, and nothing left behind."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bpf import cache_io, sys_io
from bpf.abi import KernelFilter, KernelReason, MapNumber, ProcessState
from bpf.kernel_io import Kernel
from bpf.record_io import read_answer
from bpf.remove_io import remove
from tests.kernel.lab_io import ROOT, STALE_NS, Lab, start_agent, until


def refused(lab: Lab, errno_wanted: int = errno.ECONNREFUSED) -> None:
    """A listed process is refused, a stranger passes, and the counter says why."""
    before = lab.kernel.counters()["daemon-down"]
    lab.refusals()
    client, stranger = lab.client(), lab.client(lab.other)
    assert client.connect("127.0.0.1", lab.service) == errno_wanted
    assert client.connect("::1", lab.service) == errno_wanted
    assert [e.reason for e in lab.refusals()] == [KernelReason.DAEMON_DOWN] * 2
    assert lab.kernel.counters()["daemon-down"] == before + 2
    assert stranger.connect("127.0.0.1", lab.service) == 0
    lab.straight4.accept()[0].close()


def test_killed_agent_refuses_its_clients_and_nobody_else(lab: Lab, agent: subprocess.Popen[bytes]) -> None:
    """kill -9 zeroes the heartbeat before the parent can even wait for it; a new agent mends it."""
    assert lab.client().connect("127.9.8.7", 443) == 0
    lab.answer()
    agent.kill()
    agent.wait()
    assert lab.kernel.config().heartbeat_ns == 0
    refused(lab)
    again = start_agent(lab)
    try:
        assert lab.client().connect("127.9.8.7", 443) == 0
        assert lab.answer().reason is KernelReason.GRANTED
    finally:
        again.kill()
        again.wait()


def test_stopped_agent_refuses_within_the_limit(lab: Lab, agent: subprocess.Popen[bytes]) -> None:
    """SIGSTOP leaves the process there; its silence is enough, and SIGCONT mends it."""
    client = lab.client()
    assert client.connect("127.9.8.7", 443) == 0
    with lab.accept() as sock:
        assert read_answer(sock).reason is KernelReason.GRANTED
        agent.send_signal(signal.SIGSTOP)
        until(lambda: read_answer(sock).reason is KernelReason.DAEMON_DOWN, seconds=2)
        refused(lab)
        agent.send_signal(signal.SIGCONT)
        until(lambda: read_answer(sock).reason is KernelReason.GRANTED, seconds=2)
    assert client.connect("127.9.8.7", 443) == 0
    lab.accept().close()


def test_direct_when_down_passes_without_record(lab: Lab) -> None:
    """A filter that says direct lets its processes go straight on when the daemon is down, and only then."""
    lab.rule_exe(direct_when_down=True)
    client = lab.client()
    assert client.connect("127.0.0.1", lab.service) == 0
    lab.answer()
    lab.kernel.configure(port4=lab.port, port6=lab.port, agent_tgid=os.getpid(), stale_ns=1, enforce=True)
    assert client.connect("127.0.0.1", lab.service) == 0
    lab.straight4.accept()[0].close()
    assert lab.nobody_came()
    assert lab.kernel.counters()["direct"] >= 1


def test_strict_filter_wins_over_direct(lab: Lab) -> None:
    """A process that two filters hit is refused when one of them says refuse."""
    lab.rule(
        KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None, direct_when_down=True),
        KernelFilter(exe=lab.exe(lab.bound), uid=0, script=None),
    )
    lab.kernel.configure(port4=lab.port, port6=lab.port, agent_tgid=os.getpid(), stale_ns=1, enforce=True)
    assert lab.client().connect("127.0.0.1", lab.service) == errno.ECONNREFUSED


def test_missing_listener_refuses(lab: Lab) -> None:
    """Port 0 means that nobody listens for this family: refused, not sent to port 0."""
    lab.rule_exe()
    lab.kernel.configure(port4=lab.port, port6=0, agent_tgid=os.getpid(), stale_ns=STALE_NS, enforce=True)
    client = lab.client()
    assert client.connect("2001:db8::7", 443) == errno.ECONNREFUSED
    assert client.connect("127.9.8.7", 443) == 0
    lab.answer()


def test_adoption_keeps_the_process_table(lab: Lab) -> None:
    """A second load of the same build loads nothing, keeps verdicts, filters and script numbers, and connections keep their records."""
    tool = lab.script("tool")
    lab.rule(KernelFilter(exe=lab.exe(lab.bound), uid=None, script=None), KernelFilter(exe=None, uid=None, script=str(tool)))
    client = lab.client()
    assert client.connect("127.9.8.7", 443) == 0
    with lab.accept() as sock:
        lab.bind(client.pid, identity=3)
        began = time.monotonic()
        again = lab.load()
        took = time.monotonic() - began
        try:
            assert again.adopted
            assert not again.loaded
            entry = again.process(client.pid)
            assert entry is not None
            assert (entry.state, entry.identity) == (ProcessState.BOUND, 3)
            assert again.script_text(1) is not None
            assert again.settle(entry.tgid, entry.start_ns, entry.exec_id, ProcessState.BOUND, 4)
            assert read_answer(sock).identity == 4
        finally:
            again.close()
    assert took < 2


def test_changed_build_swaps_programs_under_live_connections(lab: Lab) -> None:
    """Same maps, another build: programs are swapped by their links, the table and a connection's record stay."""
    lab.rule_exe()
    client = lab.client()
    assert client.connect("127.9.8.7", 443) == 0
    with lab.accept() as sock:
        lab.bind(client.pid, identity=3)
        before = _links(lab)
        about = lab.kernel.map_fd(MapNumber.ABOUT)
        raw = sys_io.lookup(about, b"\0" * 4, 64)
        assert raw is not None
        sys_io.update(about, b"\0" * 4, raw[:32] + b"x" * 32)
        again = lab.load()
        again.close()
        assert again.loaded
        assert again.adopted
        after = _links(lab)
        assert {k: v["prog_id"] for k, v in after.items()} != {k: v["prog_id"] for k, v in before.items()}
        assert all(after[name]["id"] == before[name]["id"] for name in after if after[name]["type"] == "cgroup")
        assert read_answer(sock).identity == 3
    assert client.connect("127.9.8.7", 443) == 0
    assert lab.answer().bound


def _links(lab: Lab) -> dict[str, dict[str, object]]:
    found = {}
    for path in sorted((lab.pins / "links").iterdir()):
        shown = subprocess.run(["bpftool", "-j", "link", "show", "pinned", str(path)], capture_output=True, text=True, check=True).stdout
        found[path.name] = json.loads(shown)
    return found


def test_remove_leaves_nothing(lab: Lab, second: tuple[Path, Path]) -> None:
    """Programs, links, maps, pins and the mount are as before, also while the loader's descriptors are still open."""
    cgroup, pins = second
    before, mounts = _tree(cgroup), Path("/proc/self/mounts").read_text()
    kernel = Kernel.load(pins=pins, cache=lab.cache, scope=cgroup, daemon_cgroup=cgroup)
    assert "cw_connect4" in _tree(cgroup)
    made = _made(pins)
    assert made <= _ids()
    removed = remove(pins)
    assert {"links/connect4", "links/exec_tracker", "maps/procs", "programs/sender"} <= set(removed)
    assert _tree(cgroup) == before
    until(lambda: not made & _ids())
    kernel.close()
    assert Path("/proc/self/mounts").read_text() == mounts
    assert not pins.exists()
    assert remove(pins) == []


def _tree(cgroup: Path) -> str:
    """What hangs on a cgroup and below."""
    return subprocess.run(["bpftool", "cgroup", "tree", str(cgroup)], capture_output=True, text=True, check=True).stdout


def _made(pins: Path) -> set[tuple[str, int]]:
    """Links pinned here, and the programs behind them."""
    found = set()
    for path in (pins / "links").iterdir():
        shown = subprocess.run(["bpftool", "-j", "link", "show", "pinned", str(path)], capture_output=True, text=True, check=True).stdout
        link = json.loads(shown)
        found |= {("link", link["id"]), ("prog", link["prog_id"])}
    return found


def _ids() -> set[tuple[str, int]]:
    """Every program and link in the kernel."""
    found = set()
    for kind in ("prog", "link"):
        shown = json.loads(subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, check=True).stdout or "[]")
        found |= {(kind, int(row["id"])) for row in shown}
    return found


def _held() -> list[str]:
    """Descriptors of this process that keep something of BPF alive."""
    return sorted(target for fd in Path("/proc/self/fd").iterdir() if "bpf" in (target := _target(fd)))


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except FileNotFoundError:
        return ""  # the one that lists the directory


def test_remove_as_a_program_prints_what_it_took(lab: Lab, second: tuple[Path, Path]) -> None:
    """``python -m bpf.remove_io PINS`` works from outside, with the loader dead."""
    cgroup, pins = second
    Kernel.load(pins=pins, cache=lab.cache, scope=cgroup, daemon_cgroup=cgroup).close()
    done = subprocess.run([sys.executable, "-m", "bpf.remove_io", str(pins)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "links/connect4" in done.stdout.splitlines()
    assert not pins.exists()


def test_failed_load_leaves_nothing(lab: Lab, second: tuple[Path, Path], tmp_path: Path) -> None:
    """A cgroup that does not exist: an error, and no program, pin or mount of ours."""
    cgroup, pins = second
    held, mounts = _held(), Path("/proc/self/mounts").read_text()
    with pytest.raises(OSError, match="No such file"):
        Kernel.load(pins=pins, cache=lab.cache, scope=cgroup / "missing", daemon_cgroup=cgroup)
    assert _held() == held  # what is neither pinned nor held is gone
    assert not pins.exists()
    assert Path("/proc/self/mounts").read_text() == mounts


def test_cold_and_cached_load(lab: Lab, second: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first load compiles in a child, later ones take the cache; neither brings LLVM into this process."""
    cgroup, pins = second
    cache = tmp_path / "cache"
    times = []
    for _ in range(2):
        began = time.monotonic()
        Kernel.load(pins=pins, cache=cache, scope=cgroup, daemon_cgroup=cgroup).close()
        times.append(time.monotonic() - began)
        remove(pins)
    with capsys.disabled():
        print(f" [cold {times[0]:.2f} s, cached {times[1]:.3f} s]", end="")
    assert times[1] < times[0]
    if "QEMU TCG" not in Path("/proc/cpuinfo").read_text():  # an emulated CPU verifies at a tenth of the speed
        assert times[1] < 2
    assert "libbcc" not in Path("/proc/self/maps").read_text()


def test_broken_or_foreign_cache_is_compiled_again(tmp_path: Path, lab: Lab) -> None:
    """A truncated file, and one that others may write to, are not loaded."""
    cache = tmp_path / "cache"
    _, programs = cache_io.programs(cache)
    (path,) = cache.glob("*.json")
    path.write_bytes(path.read_bytes()[:-100])
    assert cache_io.programs(cache)[1] == programs
    path.chmod(0o666)
    inode = path.stat().st_ino
    assert cache_io.programs(cache)[1] == programs
    assert path.stat().st_ino != inode


def test_pins_are_for_root_only(lab: Lab) -> None:
    """The directory has mode 0700; another user sees nothing of it."""
    assert lab.pins.stat().st_mode & 0o777 == 0o700
    client = lab.client(lab.other, uid=64001)
    assert client.errno(f"os.listdir({str(lab.pins)!r})") == errno.EACCES
