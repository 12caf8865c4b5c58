"""Gathering facts of real processes: our own children, read as whoever runs the tests."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from control.errors import Refusal
from control.facts.gather_io import Namespaces, gather, show
from control.facts.model import Facts, FileId, PackageFact, ProcessKey
from control.facts.path_io import file_id
from control.facts.proc import parse_stat
from control.reason import Reason
from control.units import TICK_NS, ExecId, Gid, Pid, StartNs, Uid

HOME = Namespaces.own()
WAIT = "import sys; print('up', flush=True); sys.stdin.read()"
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program and wait until it says that it is up; all are ended afterwards."""
    running: list[subprocess.Popen[str]] = []

    def run(*argv: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        return child

    yield run
    for child in running:
        child.kill()
        child.communicate()


def key_of(pid: int, late: int = 0) -> ProcessKey:
    """The key as the kernel would give it: somewhere within the tick of field 22."""
    ticks = parse_stat(Path(f"/proc/{pid}/stat").read_bytes()).start_ticks + late
    return ProcessKey(Pid(pid), StartNs(ticks * TICK_NS + 3), ExecId(1))


def facts_of(
    key: ProcessKey,
    *,
    uid: int | None = None,
    script: str | None = None,
    digest: bool = False,
    home: Namespaces = HOME,
    packages: frozenset[str] = frozenset(),
    script_digest: bool = False,
) -> Facts | Refusal:
    """Gather with our own uid unless told otherwise."""
    mine = os.geteuid() if uid is None else uid
    return gather(
        key,
        uid=Uid(mine),
        gid=Gid(os.getegid()),
        script=script,
        want_digest=digest,
        home=home,
        want_packages=packages,
        want_script_digest=script_digest,
    )


def test_a_living_process_is_read(start: Start) -> None:
    """Executable, digest, script, uid; nothing foreign, no tracer."""
    child = start(sys.executable, "-c", WAIT)
    facts = facts_of(key_of(child.pid), script="/usr/bin/env", digest=True)
    assert isinstance(facts, Facts)
    real = Path(sys.executable).resolve()
    assert facts.exe.path == str(real)
    assert facts.exe.file == file_id(real.stat())
    assert facts.exe_sha256 == hashlib.sha256(real.read_bytes()).hexdigest()
    assert facts.script is not None
    assert facts.script.root_owned
    assert (facts.uid, facts.traced, facts.foreign_namespace) == (os.geteuid(), False, "")


def test_a_reused_pid_is_another_process(start: Start) -> None:
    """The same number with another start time is refused."""
    child = start(sys.executable, "-c", WAIT)
    refusal = facts_of(key_of(child.pid, late=1))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.PROCESS_GONE


def test_an_ended_process_is_gone_before_and_after_it_is_reaped(start: Start) -> None:
    """A zombie has a start time still, but runs nothing."""
    child = start(sys.executable, "-c", WAIT)
    key = key_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = facts_of(key)
    child.wait()
    reaped = facts_of(key)
    for refusal in (zombie, reaped, facts_of(ProcessKey(Pid(0), StartNs(0), ExecId(0)))):
        assert isinstance(refusal, Refusal)
        assert refusal.reason is Reason.PROCESS_GONE


def test_a_process_that_runs_under_another_uid_now_is_refused(start: Start) -> None:
    """The kernel's uid at connect and the threads' now must agree."""
    child = start(sys.executable, "-c", WAIT)
    refusal = facts_of(key_of(child.pid), uid=os.geteuid() + 1)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.PROCESS_CHANGED


def test_a_process_outlives_its_first_thread(start: Start) -> None:
    """The first thread's executable is gone, another thread's is read."""
    code = (
        "import ctypes, os, sys, threading\n"
        "def speak():\n"
        "    status = '/proc/self/task/%d/status' % os.getpid()\n"
        "    while 'zombie' not in open(status).read(): pass\n"
        "    print('up', flush=True)\n"
        "    sys.stdin.read()\n"
        "threading.Thread(target=speak).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    child = start(sys.executable, "-c", code)
    facts = facts_of(key_of(child.pid), digest=True)
    assert isinstance(facts, Facts)
    assert facts.exe.path == str(Path(sys.executable).resolve())


def test_a_replaced_executable_is_not_believed_by_its_path(start: Start, tmp_path: Path) -> None:
    """Deleted: the path is given without the kernel's mark, not trusted, with the reason.  The digest is still that of what runs."""
    tool = tmp_path / "cat"
    shutil.copy(shutil.which("cat") or "/bin/cat", tool)
    child = subprocess.Popen([tool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("up\n")
        child.stdin.flush()
        assert child.stdout.readline() == "up\n"
        digest = hashlib.sha256(tool.read_bytes()).hexdigest()
        tool.unlink()
        facts = facts_of(key_of(child.pid), digest=True)
        assert isinstance(facts, Facts)
        assert facts.exe.path == str(tool)
        assert not facts.exe.root_owned
        assert "replaced or removed" in facts.exe.fault
        assert facts.exe_sha256 == digest
        tool.write_text("another file")
        again = facts_of(key_of(child.pid))
        assert isinstance(again, Facts)
        assert not again.exe.root_owned
        assert again.exe.file is None
    finally:
        child.kill()
        child.communicate()


def test_a_file_whose_real_name_ends_like_the_kernels_mark_is_itself(start: Start, tmp_path: Path) -> None:
    """``x (deleted)`` that exists is read as that file, not as a removed ``x``."""
    tool = tmp_path / "python (deleted)"
    shutil.copy(Path(sys.executable).resolve(), tool)
    child = start(str(tool), "-c", WAIT)
    facts = facts_of(key_of(child.pid))
    assert isinstance(facts, Facts)
    assert facts.exe.path == str(tool)
    assert facts.exe.file == file_id(tool.stat())


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"\x1b[31mred"])
def test_a_path_of_hostile_bytes_is_escaped_and_never_trusted(start: Start, tmp_path: Path, name: bytes) -> None:
    """Facts go into audit lines and messages, whose encoders refuse lone surrogates."""
    tool = os.fsencode(tmp_path) + b"/" + name
    shutil.copy(Path(sys.executable).resolve(), tool)
    child = start(os.fsdecode(tool), "-c", WAIT)
    facts = facts_of(key_of(child.pid))
    assert isinstance(facts, Facts)
    assert facts.exe.path.isprintable()
    assert not facts.exe.root_owned
    assert msgspec.json.encode(facts)


def test_a_traced_process_says_so(start: Start) -> None:
    """Any thread's tracer counts; the child lets its parent trace it (PTRACE_TRACEME)."""
    code = "import ctypes; ctypes.CDLL(None).ptrace(0, 0, 0, 0); " + WAIT
    child = start(sys.executable, "-c", code)
    facts = facts_of(key_of(child.pid))
    assert isinstance(facts, Facts)
    assert facts.traced


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"user": FileId(1, 1)}, "user namespace"),
        ({"mount": FileId(1, 1)}, "mount namespace"),
        ({"root": FileId(1, 1)}, "root directory /"),
    ],
)
def test_a_process_of_another_namespace_is_named_so(start: Start, change: dict[str, FileId], name: str) -> None:
    """Seen from an agent that lives elsewhere, our child is foreign; from our own, it is not."""
    child = start(sys.executable, "-c", WAIT)
    foreign = facts_of(key_of(child.pid), home=HOME._replace(**change))
    assert isinstance(foreign, Facts)
    assert foreign.foreign_namespace == name


def test_unshare_is_foreign(start: Start) -> None:
    """The genuine executable in namespaces of its own (I15); says so where this machine does not allow it."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Urm", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody make user namespaces")
    child = start(unshare, "-Urm", sys.executable, "-c", WAIT)
    facts = facts_of(key_of(child.pid))
    if isinstance(facts, Refusal):  # an ordinary user may not look into it at all
        assert facts.reason is Reason.NAMESPACE_FOREIGN
    else:
        assert facts.foreign_namespace == "user namespace"


def test_a_process_says_which_of_the_wanted_packages_owns_it(start: Start) -> None:
    """The machine's cat: of coreutils, with its MD5; not of others; nothing is read when nobody asks."""
    cat = str(Path(shutil.which("cat") or "/bin/cat").resolve())
    if not Path("/var/lib/dpkg/info/coreutils.list").exists():
        pytest.skip("no dpkg on this machine")
    child = subprocess.Popen([cat], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("up\n")
        child.stdin.flush()
        assert child.stdout.readline() == "up\n"
        facts = facts_of(key_of(child.pid), packages=frozenset({"coreutils", "bash"}))
        assert isinstance(facts, Facts)
        md5 = hashlib.md5(Path(cat).read_bytes(), usedforsecurity=False).hexdigest()
        assert (facts.exe_md5, facts.exe_sha256) == (md5, None)
        assert facts.packages == (PackageFact("coreutils", md5),)
        for wanted in (frozenset({"bash"}), frozenset[str]()):
            without = facts_of(key_of(child.pid), packages=wanted)
            assert isinstance(without, Facts)
            assert (without.exe_md5, without.packages) == (None, ())
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="a file that is root's alone needs root")
def test_a_script_is_digested_only_where_root_alone_could_change_it(start: Start, tmp_path: Path) -> None:
    """In /run it is; below the sticky /tmp, which others may write, there is no digest."""
    child = start(sys.executable, "-c", WAIT)
    loose = tmp_path / "script"
    loose.write_text("#!/bin/sh\n")
    with tempfile.TemporaryDirectory(dir="/run") as directory:
        Path(directory).chmod(0o755)
        good = Path(directory) / "script"
        good.write_text("#!/bin/sh\n")
        good.chmod(0o755)
        for path, expected in ((good, hashlib.sha256(b"#!/bin/sh\n").hexdigest()), (loose, None), (good.with_name("none"), None)):
            facts = facts_of(key_of(child.pid), script=str(path), script_digest=True)
            assert isinstance(facts, Facts)
            assert facts.script_sha256 == expected
        unasked = facts_of(key_of(child.pid), script=str(good))
        assert isinstance(unasked, Facts)
        assert unasked.script_sha256 is None


@pytest.mark.skipif(os.geteuid() != 0, reason="changing one thread's gid needs root")
def test_threads_of_several_gids_have_no_gid_in_common(start: Start) -> None:
    """setresgid(2) is per thread below libc: the kernel's gid at connect is not that of the others."""
    code = (
        "import ctypes, sys, threading\n"
        "def change():\n"
        "    assert ctypes.CDLL(None).syscall(119, 7, 7, 7) == 0\n"
        "    print('up', flush=True)\n"
        "    sys.stdin.read()\n"
        "threading.Thread(target=change).start()\n"
    )
    if os.uname().machine != "x86_64":
        pytest.skip("the number of setresgid(2) is that of x86-64")
    child = start(sys.executable, "-c", code)
    mixed, plain = facts_of(key_of(child.pid)), facts_of(key_of(start(sys.executable, "-c", WAIT).pid))
    assert isinstance(mixed, Facts)
    assert isinstance(plain, Facts)
    assert (mixed.one_gid, plain.one_gid) == (False, True)


def test_many_looks_at_once_leave_no_descriptor(start: Start) -> None:
    """Threads share the digests; every descriptor is closed, refused or not."""
    child = start(sys.executable, "-c", WAIT)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    threads = [threading.Thread(target=lambda n=n: facts_of(key_of(child.pid, late=n % 2), digest=True)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_people_are_shown_printable_words(start: Start) -> None:
    """What a process says of itself cannot write to a terminal."""
    child = start(sys.executable, "-c", WAIT, "\x1b[31mred", "a\nb", "ü")
    shown = show(child.pid)
    assert shown.argv[-3:] == ("\\x1b[31mred", "a\\nb", "ü")
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        show(2**22 + 1)
