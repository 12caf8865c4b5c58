"""
Start and stop the daemon as a service: through systemd where it runs, else by ourselves.

In: the configuration.  Out: a daemon that enforces, or the sentence that says why not; a daemon that has ended.
Where there is no systemd the supervisor is its own session with its log in a file; who it is stands in ``<run>/processes.json``, and that
is believed only of a process that runs the supervisor's module for the same run directory.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from control.daemon.config import Config
from control.daemon.start_io import configured, supervisor

START_S = 180.0
"""A cold start compiles the BPF programs: 3 s on real hardware, a minute under emulation."""
STOP_S = 15.0
_POLL_S = 0.05
_SYSTEMD = Path("/run/systemd/system")
_UNIT = Path("/etc/systemd/system/credwired.service")


class ServiceError(Exception):
    """What is wrong; the second argument says what to try."""


def service(config_path: Path, log: Path | None) -> int:
    """Start, with ``log`` as its file where there is no systemd, or stop when that is None; gives the exit code."""
    config = configured(config_path)
    if config is None:
        return 2
    try:
        if log is None:
            stop(config, say=_say)
        else:
            start(config, config_path, say=_say, log=log)
    except ServiceError as error:
        message, hint = error.args
        _say(f"error: {message}")
        _say(f"hint: {hint}")
        return 1
    return 0


def _say(text: str) -> None:
    print(f"credwired: {text}", file=sys.stderr, flush=True)


def by_systemd() -> bool:
    """Whether systemd runs here and has our unit."""
    return _SYSTEMD.is_dir() and _UNIT.is_file()


def start(config: Config, config_path: Path, *, say: Callable[[str], None], log: Path) -> None:
    """Start the daemon and wait until it enforces.  Raises ServiceError."""
    _check_root()
    run = Path(config.paths.run)
    if (pid := supervisor(run)) and _enforces(run):
        say(f"credwired runs already: pid {pid}")
        return
    began = time.monotonic()
    ended: Callable[[], bool]
    if by_systemd():
        done = subprocess.run(["systemctl", "start", "credwired"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceError(f"systemctl start credwired failed: {done.stderr.strip()}", "journalctl -u credwired")

        def ended() -> bool:
            return not supervisor(run) and time.monotonic() - began > 1.0

        where = "journalctl -u credwired"
    else:
        log.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        child = _own_session(config_path, log)

        def ended() -> bool:
            return child.poll() is not None

        where = f"tail {log}"
    while not _enforces(run):
        if ended():
            raise ServiceError(f"credwired ended while it started: {_last_error(log)}", where)
        if time.monotonic() - began > START_S:
            raise ServiceError(f"credwired does not enforce after {START_S:.0f} s", f"{where}; credwire status")
        time.sleep(_POLL_S)
    say(f"credwired enforces after {time.monotonic() - began:.1f} s: pid {supervisor(run)}")


def stop(config: Config, *, say: Callable[[str], None]) -> None:
    """Stop the daemon and wait until it has ended.  Raises ServiceError."""
    _check_root()
    run = Path(config.paths.run)
    if by_systemd():
        done = subprocess.run(["systemctl", "stop", "credwired"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceError(f"systemctl stop credwired failed: {done.stderr.strip()}", "journalctl -u credwired")
    pid = supervisor(run)
    if not pid:
        say("credwired does not run")
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    if supervisor(run) != pid:  # the number is another process's since
        os.close(pidfd)
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)  # one that was stopped would not hear it
        if not select.select([pidfd], [], [], STOP_S)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # its children die with it
            select.select([pidfd], [], [], STOP_S)
    finally:
        os.close(pidfd)
    say("credwired has stopped; bound programs are refused until it starts again (credwired detach lets them go)")


def _check_root() -> None:
    if os.geteuid() != 0:
        raise ServiceError("this needs root", "sudo, then the same words")


def _own_session(config_path: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Run ``credwired run`` in a session of its own, so that no terminal's end is its end."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "control.daemon.main", "run", "--config", str(config_path)],
            stdin=subprocess.DEVNULL, stdout=fd, stderr=fd, cwd="/", start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(fd)


def _enforces(run: Path) -> bool:
    """Ask the agent; before it listens the answer is no."""
    if not supervisor(run):
        return False
    from control.api.ask import AskError  # noqa: PLC0415  # grpc is slow to import: only once there is somebody to ask
    from control.api.client_io import Admin  # noqa: PLC0415

    try:
        with Admin(run / "admin.sock", answer_s=1.0) as admin:
            status = admin.status()
            return status.enforcing or status.off.everything  # switched off is how somebody wants it
    except AskError:
        return False


def _last_error(log: Path) -> str:
    """Give the last line of the log that says why, for people."""
    try:
        lines = log.read_text(errors="replace").splitlines()[-20:]
    except OSError:
        return "its log cannot be read"
    for line in reversed(lines):
        if "error" in line or "detail" in line or "why" in line:
            return line[:300]
    return lines[-1][:300] if lines else "it said nothing"
