"""
The daemon as a service without systemd: started, found running, stopped; in the way and gone.  Needs root.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.lib.net import REPOSITORY, launcher
from tests.e2e.lib.stage import CREDWIRED, Stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A stage without a daemon."""
    if os.geteuid() != 0:
        pytest.skip("BPF and namespaces need root")
    with Stage("service") as made:
        yield made


def _credwired(stage: Stage, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [*launcher(*stage.kennel.options(), *stage.options()), *CREDWIRED, *words, "--config", str(stage.config)]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=90, check=False)


def test_start_waits_until_it_enforces_and_stop_until_it_has_ended(stage: Stage) -> None:
    """Start says the pid once status would say that it enforces; a second one changes nothing; stop leaves no process of it."""
    log = str(stage.directory / "service.log")
    try:
        started = _credwired(stage, "start", "--log", log)
        assert started.returncode == 0, started.stderr
        assert "enforces after" in started.stderr
        pids = {row["pid"] for row in stage.processes()}
        again = _credwired(stage, "start", "--log", log)
        assert again.returncode == 0
        assert "runs already" in again.stderr
        assert {row["pid"] for row in stage.processes()} == pids
    finally:
        stopped = _credwired(stage, "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert "has stopped" in stopped.stderr
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")]  # noqa: PTH110  # a pid that another user reused has none for us
    once_more = _credwired(stage, "stop")
    assert (once_more.returncode, "does not run" in once_more.stderr) == (0, True)
    assert "links/connect4" in _credwired(stage, "detach").stdout


def test_a_daemon_in_a_new_cgroup_takes_its_port_over(stage: Stage) -> None:
    """A service manager makes a cgroup for each start; the guard of the port, which outlives the daemon, is told of the new one."""
    log = str(stage.directory / "service.log")
    own = stage.kennel.cgroup / "daemon"
    try:
        for _ in range(2):
            assert _credwired(stage, "start", "--log", log).returncode == 0
            assert _credwired(stage, "stop").returncode == 0
            own.rmdir()
            own.mkdir()
        again = _credwired(stage, "start", "--log", log)
        assert again.returncode == 0, again.stderr
    finally:
        _credwired(stage, "stop")
        _credwired(stage, "detach")


def test_another_layouts_guard_is_taken_off(stage: Stage) -> None:
    """Where the maps cannot be read any more, the guard of a daemon that has ended goes, and comes back with the new programs."""
    log = str(stage.directory / "service.log")
    try:
        assert _credwired(stage, "start", "--log", log).returncode == 0
        assert _credwired(stage, "stop").returncode == 0
        (stage.kennel.cgroup / "daemon").rmdir()
        argv = [*launcher(*stage.options()), sys.executable, "-c", "import os; os.unlink('/sys/fs/bpf/credwire/maps/about')"]
        subprocess.run(argv, cwd=REPOSITORY, check=True)
        again = _credwired(stage, "start", "--log", log)
        assert again.returncode == 0, again.stderr
    finally:
        _credwired(stage, "stop")
        _credwired(stage, "detach")


def test_a_start_that_fails_says_why(stage: Stage) -> None:
    """A configuration that is wrong is said with its place, before anything starts."""
    text = stage.config.read_text()
    stage.config.write_text(text.replace(f"listenPort: {stage.listen_port}", "listenPort: 1024\nstaleAfter: 99s"))
    try:
        done = _credwired(stage, "start", "--log", str(stage.directory / "service.log"))
    finally:
        stage.config.write_text(text)
    assert done.returncode == 2
    assert "staleAfter" in done.stderr


def test_systemd_is_told_when_it_enforces(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """READY=1 comes once, from the process that systemd started, and not before the agent answers for the kernel."""
    path = stage.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(30)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        try:
            stage.start_daemon()
            said, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(12))
            assert b"READY=1" in said.split(b"\n")
            (pid,) = (int.from_bytes(data[:4], "little") for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS)
            assert pid == stage.pid("credwired")
            sock.settimeout(0.5)
            with pytest.raises(TimeoutError):
                sock.recv(4096)
        finally:
            stage.stop_daemon()
