"""The harness leaves nothing, also when it is killed; and says so when something is left.  Needs root."""

import ctypes
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.lib import leftovers
from tests.e2e.lib.net import REPOSITORY, Kennel, cgroup2_root, free_subnet, launcher, write_hosts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="cgroups and namespaces need root")

_OURS = frozenset({"link", "address", "cgroup", "process"})
"""Kinds that no other program of this machine changes while a test runs; namespaces and BPF objects others may make."""


def _with(marker: str) -> Callable[[leftovers.Process], bool]:
    return lambda process: marker in process.command or marker in process.cgroup


def _mine(found: leftovers.Leftovers, *markers: str) -> list[str]:
    return [line for line in found.lines() if any(marker in line for marker in markers)]


_STORY = """
import sys, time
from pathlib import Path
from tests.e2e.lib.cloud import RunningCloud
from tests.e2e.lib.net import Kennel, Subnet, free_subnet
work, name = Path(sys.argv[1]), sys.argv[2]
with Kennel(name, remove=[work]) as kennel, RunningCloud(work / "cloud", {}, free_subnet()) as cloud:
    (kennel.cgroup / "below").mkdir()
    stubborn = "import signal, os; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; os.fork(); print(1, flush=True); signal.pause()"
    (work / "bpf").mkdir()
    child = kennel.start([sys.executable, "-c", stubborn, name], "--private-mounts", "--bpffs", str(work / "bpf"), stdout=-1)
    child.stdout.readline()
    print(cloud.process.pid, cloud._far.link, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_killed_story_takes_everything_with_it(tmp_path: Path, end: int | None) -> None:
    """
    Cloud, namespace, veth pair, cgroup, a child that ignores signals, its fork, private bpffs, work directory.

    All gone after kill -9, after TERM and after a proper end.
    """
    name = f"credwire-test-{os.getpid()}-{end or 0}"
    work = tmp_path / name
    work.mkdir()
    before = leftovers.take(paths=[work])
    story = subprocess.Popen([sys.executable, "-c", _STORY, str(work), name], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert story.stdin is not None
    assert story.stdout is not None
    _pid, link = story.stdout.readline().decode().split()
    during = _mine(leftovers.compare(before, leftovers.take(paths=[work])), name, link)
    assert {line.split(":")[0] for line in during} >= {"+ link", "+ address", "+ cgroup", "+ process"}
    if end is None:
        story.stdin.close()
    else:
        story.send_signal(end)
    story.wait(20)
    story.stdout.close()
    found = leftovers.wait_until_clean(before, kinds=_OURS, ours=_with(name), paths=[work])
    assert _mine(found, name, link) == []
    assert not (cgroup2_root() / name).exists()
    assert not work.exists()


def test_private_mounts_are_seen_inside_only(tmp_path: Path) -> None:
    """/etc/hosts and a bpffs of one's own; the rest of the machine reads its old hosts file and sees no new mount."""
    hosts = write_hosts(tmp_path / "hosts", ["far.cloud.test"], ["10.77.9.9", "fd77::9"])
    (tmp_path / "bpf").mkdir()
    outside = Path("/etc/hosts").read_bytes()
    before = leftovers.take()
    options = ["--private-mounts", "--hosts", str(hosts), "--bpffs", str(tmp_path / "bpf"), "--parent", str(os.getpid())]
    script = "import socket, sys; print(sorted({a[4][0] for a in socket.getaddrinfo('far.cloud.test', 443)}), open('/proc/self/mounts').read().count(' bpf '), flush=True); sys.stdin.read()"  # noqa: E501  # one line for python -c
    child = subprocess.Popen([*launcher(*options), sys.executable, "-c", script], cwd=REPOSITORY, stdin=-1, stdout=-1)
    assert child.stdin is not None
    assert child.stdout is not None
    told = child.stdout.readline().decode()
    here = Path("/proc/self/mounts").read_text().count(" bpf ")
    assert told.split("] ")[0] == "['10.77.9.9', 'fd77::9'"
    assert int(told.split("] ")[1]) == here + 1
    assert Path("/etc/hosts").read_bytes() == outside
    assert "mount" not in leftovers.compare(before, leftovers.take()).added
    child.stdin.close()
    assert child.wait(10) == 0
    child.stdout.close()


def test_an_ordinary_user_is_one_for_good() -> None:
    """All ids are the user's, no supplementary groups, no capabilities."""
    done = subprocess.run(
        [*launcher("--uid", "61001"), "/bin/cat", "/proc/self/status"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    fields = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["61001"] * 4
    assert fields["Groups"].strip() == ""
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0


def test_what_is_left_is_named(tmp_path: Path) -> None:
    """A cgroup, a file, a process that stay are listed by kind; taken away again, the list is empty."""
    name = f"credwire-test-{os.getpid()}-left"
    before = leftovers.take(paths=[tmp_path / name])
    cgroup = cgroup2_root() / name
    cgroup.mkdir()
    (tmp_path / name).touch()
    child = subprocess.Popen(
        [*launcher("--cgroup", str(cgroup)), sys.executable, "-c", "print(1, flush=True); input()"], cwd=REPOSITORY, stdin=-1, stdout=-1
    )
    try:
        assert child.stdout is not None
        child.stdout.readline()
        found = leftovers.compare(before, leftovers.take(paths=[tmp_path / name]), ours=_with(name))
        assert {line.split(":")[0] for line in _mine(found, name)} == {"+ cgroup", "+ path"}
        assert [line for line in found.added["process"] if str(child.pid) in line]
    finally:
        child.kill()
        child.communicate()
    assert _mine(leftovers.wait_until_clean(before, within_s=0, paths=[tmp_path / name]), name)
    cgroup.rmdir()
    (tmp_path / name).unlink()
    assert not leftovers.wait_until_clean(before, kinds=frozenset({"cgroup", "path"}), paths=[tmp_path / name]).added.get("path")


def _attach_pass_all(cgroup: Path) -> None:
    """Attach ``return 1`` to the egress of ``cgroup``, by bpf(2); it stays there without any process until the cgroup goes."""
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = ctypes.create_string_buffer(bytes.fromhex("b7000000010000009500000000000000"))  # r0 = 1; exit
    licence = ctypes.create_string_buffer(b"GPL")

    def bpf(command: int, attributes: bytes) -> int:
        result: int = libc.syscall(
            {"x86_64": 321, "aarch64": 280}[os.uname().machine], command, ctypes.create_string_buffer(attributes, 128), 128
        )
        assert result >= 0, os.strerror(ctypes.get_errno())
        return result

    program = bpf(5, struct.pack("IIQQ", 8, 2, ctypes.addressof(instructions), ctypes.addressof(licence)))  # BPF_PROG_LOAD, CGROUP_SKB
    directory = os.open(cgroup, os.O_RDONLY)
    try:
        bpf(8, struct.pack("IIII", directory, program, 1, 0))  # BPF_PROG_ATTACH, INET_EGRESS
    finally:
        os.close(directory)
        os.close(program)


def test_a_bpf_program_that_stays_on_a_cgroup_is_named() -> None:
    """No process holds it: only the cgroup does.  It is listed while it is there, and gone with the cgroup."""
    name = f"credwire-test-{os.getpid()}-bpf"
    before = leftovers.take()
    cgroup = cgroup2_root() / name
    cgroup.mkdir()
    try:
        _attach_pass_all(cgroup)
        added = leftovers.compare(before, leftovers.take()).added
        (line,) = (line for line in added["bpf on cgroup"] if name in line)
        assert any(entry.split()[0] == line.split()[-1] for entry in added["bpf program"])
    finally:
        cgroup.rmdir()
    assert not any(name in entry for entry in leftovers.take().things["bpf on cgroup"])


def test_a_kennel_outlives_nothing(tmp_path: Path) -> None:
    """After a proper end the cgroup is gone; two kennels of one name are an error, not a surprise."""
    name = f"credwire-test-{os.getpid()}-kennel"
    with Kennel(name) as kennel:
        child = kennel.start(["/bin/sleep", "600"])
        assert kennel.cgroup.is_dir()
        with pytest.raises(FileExistsError), Kennel(name):
            pass
    assert not kennel.cgroup.exists()
    assert child.wait(5) == -signal.SIGKILL


def test_subnets_do_not_collide() -> None:
    """The subnet that is free is on no interface."""
    addresses = {line.split()[0] for line in leftovers.take().things["address"]}
    assert free_subnet().here4 not in addresses
