"""
Keep the daemon's processes alive and hold what must survive them.

In: one JSON argument made by control.daemon.main from the configuration (paths, uids, ports, worker count).
Out: running children; ``<run>/processes.json`` with their pids, starts and restarts, for status; exit 0 after SIGTERM.
Holds the listeners and the sockets' listening ends, so that a restarted agent, keys or proxy finds the same ones and clients only wait.
Never reads a byte that another process wrote, except the beats: one byte each, thrown away unread.
Single-threaded and small on purpose: nothing here may crash, because its children die with it (PR_SET_PDEATHSIG).
"""

import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdnotify import SystemdNotifier

from bpf.listener_io import open_listeners
from control.daemon.socket_io import listen, listen_stream

FIRST_BEAT_S = 150.0
"""A child may take this long before its first beat: a cold start compiles the BPF programs, which takes a minute under emulation."""
HANG_S = 1.0
"""Longest silence of a child that has beaten before; five missed beats of 0.2 s."""
STABLE_S = 10.0
"""A child that lived this long starts its backoff anew."""
BACKOFF_S = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Waits before the first, second, … restart in a row; the last one repeats."""
RESOLVER_S = 1.0
"""How often the resolver's files are looked at; three calls of stat(2)."""
RESOLVER = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
DESCRIPTORS = 65536
"""Open files of one process: 4096 connections of a worker take two each, and the agent holds one for each that is being looked at."""
STOP_S = 3.0
"""Grace between SIGTERM and SIGKILL at the end."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Program:
    """How one child is started."""

    role: str
    worker: int
    module: str
    argument: dict[str, Any]
    """Told as JSON; ``fds`` in it are descriptor numbers, kept the same over exec."""
    fds: tuple[int, ...]

    @property
    def name(self) -> str:
        """``proxy-1``; plain role where there is one only."""
        return f"{self.role}-{self.worker}" if self.role == "proxy" else self.role


@dataclass(slots=True)
class Child:
    """One running or waiting child."""

    program: Program
    pid: int = 0
    pidfd: int = -1
    beat_fd: int = -1
    started_at: float = 0.0
    last_beat: float | None = None
    due_at: float = 0.0
    failures: int = 0
    restarts: int = 0
    last_end: str = ""
    wall_started: float = field(default=0.0)


def log(event: str, **fields: object) -> None:
    """Write one event as a JSON line on stderr, where journald or the terminal picks it up."""
    line = json.dumps({"at": round(time.time(), 3), "event": event, "speaker": "credwired", **fields})
    with suppress(OSError):
        os.write(2, line.encode() + b"\n")


class Supervisor:
    """Starts, watches, restarts and stops the children of one daemon."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self.setup = setup
        self.run = Path(setup["run"])
        self.stopping = False
        self.told_ready = False
        self.children: list[Child] = []
        self.poll = select.poll()
        self.signal_fd = _signals()
        self._resolver = self._resolver_seen = _inodes()
        self._resolver_due = 0.0
        self.poll.register(self.signal_fd, select.POLLIN)

    # -- what outlives the children

    def prepare(self) -> None:
        """Make directories, sockets and listeners; then the table of children."""
        uids = self.setup["uids"]
        self.run.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.run.chmod(0o711)
        state = Path(self.setup["state"])
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        state.chmod(0o711)  # the CA bundles below are for everybody, the rest has modes of its own
        keys_dir = state / "keys"
        keys_dir.mkdir(mode=0o700, exist_ok=True)
        os.chown(keys_dir, uids["keys"], uids["keys"])
        _join_cgroup(Path(self.setup["daemon_cgroup"]))
        _raise_descriptor_limit()
        callers = (uids["proxy"], uids["exchange"])
        agent_sock, agent_closed = listen(self.run / "agent.sock", callers=callers)
        keys_sock, keys_closed = listen(self.run / "keys.sock", callers=callers)
        if not (agent_closed and keys_closed):
            log("not-here", what=f"access lists on {self.run}: any user may keep our sockets' queues full")
        groups = self.setup["groups"]
        admin_sock = listen_stream(self.run / "admin.sock", groups["admin"]["gid"])
        view_sock = listen_stream(self.run / "view.sock", groups["view"]["gid"])
        port: int = self.setup["listen_port"]
        four, six = open_listeners(port)
        self._held = (agent_sock, keys_sock, admin_sock, view_sock, four, six)
        for sock in self._held:
            if sock is not None:
                os.set_inheritable(sock.fileno(), True)
        seal_fd, secrets_fd = self.setup["keys_seal_fd"], self.setup["secrets_fd"]
        common = {k: self.setup[k] for k in ("run", "state", "uids", "trust_domain", "issuer_url", "stale_s", "config")}
        listeners = [s.fileno() for s in (four, six) if s is not None]
        programs = [
            Program(
                "keys",
                0,
                "control.daemon.keys_io",
                {**common, "keys_listener": keys_sock.fileno(), "keys_dir": str(keys_dir), "seal_fd": seal_fd},
                _given(keys_sock.fileno(), seal_fd),
            ),
            Program(
                "agent",
                0,
                "control.daemon.agent_io",
                {
                    **common,
                    "agent_listener": agent_sock.fileno(),
                    "admin_listener": admin_sock.fileno(),
                    "view_listener": view_sock.fileno(),
                    "secrets_fd": secrets_fd,
                    "seal": self.setup["seal"],
                    "groups": groups,
                    "credentials": self.setup["credentials"],
                    "pins": self.setup["pins"],
                    "cache": self.setup["cache"],
                    "scope": self.setup["scope"],
                    "daemon_cgroup": self.setup["daemon_cgroup"],
                    "resources": self.setup["resources"],
                    "listen_port": port,
                    "excluded": self.setup["excluded"],
                    "connections_per_process": self.setup["connections_per_process"],
                },
                _given(agent_sock.fileno(), admin_sock.fileno(), view_sock.fileno(), secrets_fd),
            ),
            Program("exchange", 0, "control.daemon.exchange_io", dict(common), ()),
        ]
        programs += [
            Program("proxy", n, "control.daemon.proxy_io", {**common, "worker": n, "listeners": listeners}, tuple(listeners))
            for n in range(self.setup["workers"])
        ]
        if self.setup.get("public"):
            programs.append(Program("public", 0, "control.daemon.public_io", {**common, "public": self.setup["public"]}, ()))
        self.children = [Child(program) for program in programs]

    # -- one child

    def start(self, child: Child) -> None:
        """Fork and exec one child with only its own descriptors."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        argument = json.dumps({**child.program.argument, "beat_fd": write_end, "worker": child.program.worker})
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no memory or too many tasks for now: the children that live must not die of it
            os.close(read_end)
            os.close(write_end)
            child.due_at = time.monotonic() + BACKOFF_S[-1]
            log("process-not-started", process=child.program.name, why=error.strerror)
            return
        if pid == 0:
            _become(child.program, argument, write_end, parent)
        os.close(write_end)
        child.pid, child.beat_fd = pid, read_end
        child.pidfd = os.pidfd_open(pid)
        child.started_at, child.last_beat, child.wall_started = time.monotonic(), None, time.time()
        self.poll.register(child.pidfd, select.POLLIN)
        self.poll.register(child.beat_fd, select.POLLIN)
        log("process-started", process=child.program.name, child_pid=pid, restarts=child.restarts)
        self.publish()

    def ended(self, child: Child) -> None:
        """Reap one child and say when it may start again."""
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        child.last_end = child.last_end or (f"signal {-code}" if code < 0 else f"exit {code}")
        now = time.monotonic()
        if now - child.started_at > STABLE_S:
            child.failures = 0
        wait = BACKOFF_S[min(child.failures, len(BACKOFF_S) - 1)]
        log("process-ended", process=child.program.name, child_pid=child.pid, how=child.last_end, restart_in_s=wait)
        for fd in (child.pidfd, child.beat_fd):
            if fd >= 0:
                self.poll.unregister(fd)
                os.close(fd)
        child.pid, child.pidfd, child.beat_fd = 0, -1, -1
        child.failures += 1
        child.restarts += 1
        child.due_at = now + wait
        child.last_end = ""
        self.publish()

    def watch(self, child: Child, now: float) -> None:
        """Kill a child that has fallen silent; its end arrives by its pidfd."""
        silent = now - (child.started_at if child.last_beat is None else child.last_beat)
        limit = FIRST_BEAT_S if child.last_beat is None else HANG_S
        if silent > limit and not child.last_end:
            child.last_end = f"silent for {silent:.1f} s"
            log("process-hung", process=child.program.name, child_pid=child.pid, silent_s=round(silent, 2))
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def look_at_resolver(self, now: float) -> None:
        """
        Start exchange anew when a file that its resolver reads is another one now.

        Its Landlock rules name files by inode: of one that was replaced it could read nothing any more.  Two looks must agree, so that
        who replaces several files costs one restart.
        """
        if now < self._resolver_due:
            return
        self._resolver_due = now + RESOLVER_S
        found = _inodes()
        settled = found == self._resolver_seen
        self._resolver_seen = found
        if not settled or found == self._resolver:
            return
        self._resolver = found
        for child in self.children:
            if child.program.role == "exchange" and child.pid and not child.last_end:
                child.last_end = "the resolver's files were replaced"
                log("process-outdated", process=child.program.name, child_pid=child.pid)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def publish(self) -> None:
        """Write the table of processes for status."""
        rows = [
            {
                "role": child.program.role,
                "name": child.program.name,
                "worker": child.program.worker,
                "pid": child.pid,
                "since": child.wall_started,
                "restarts": child.restarts,
            }
            for child in self.children
        ]
        rows.insert(0, {"role": "credwired", "name": "credwired", "pid": os.getpid(), "since": self.setup["since"], "restarts": 0})
        target = self.run / "processes.json"
        fresh = target.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(rows))
            fresh.chmod(0o644)
            fresh.rename(target)
        except OSError as error:  # a full disk makes status wrong, no more
            log("table-not-written", why=error.strerror)

    # -- the loop

    def serve(self) -> int:
        """Run until SIGTERM or SIGINT."""
        self.prepare()
        for child in self.children:
            self.start(child)
        wake = time.monotonic()
        while True:
            ready = self.poll.poll(100)
            now = time.monotonic()
            stood_still = now - wake > HANG_S  # we were stopped ourselves: their beats are in the pipes, read them before judging
            wake = now
            for fd, _ in ready:
                if fd == self.signal_fd:
                    self._signalled()
                    continue
                self._child_ready(fd, now)
            if self.stopping:
                return self.stop()
            self.look_at_resolver(now)
            for child in self.children:
                if child.pid and not stood_still:
                    self.watch(child, now)
                elif not child.pid and now >= child.due_at:
                    self.start(child)

    def _child_ready(self, fd: int, now: float) -> None:
        for child in self.children:
            if fd == child.beat_fd:
                with suppress(BlockingIOError):
                    if os.read(fd, 4096):
                        self._tell_ready(child)
                        child.last_beat = now
                    else:  # the write end is gone: the child is going or gone, its pidfd tells
                        self.poll.unregister(fd)
                        os.close(fd)
                        child.beat_fd = -1
                return
            if fd == child.pidfd:
                self.ended(child)
                return

    def _tell_ready(self, child: Child) -> None:
        """Tell systemd, when it is our parent, that we enforce: the agent's first beat is after its programs are attached."""
        if child.program.role == "agent" and not self.told_ready:
            self.told_ready = True
            SystemdNotifier().notify("READY=1\nSTATUS=enforcing")

    def _signalled(self) -> None:
        for number in os.read(self.signal_fd, 64):
            if number in (signal.SIGTERM, signal.SIGINT):
                self.stopping = True
            elif number == signal.SIGHUP:
                for child in self.children:
                    if child.program.role == "agent" and child.pid:
                        with suppress(ProcessLookupError):
                            signal.pidfd_send_signal(child.pidfd, signal.SIGHUP)

    def stop(self) -> int:
        """Stop all children, the agent last: until then it refuses on purpose rather than by its absence."""
        order = sorted((c for c in self.children if c.pid), key=lambda c: c.program.role == "agent")
        for child in order:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
                signal.pidfd_send_signal(child.pidfd, signal.SIGCONT)
        deadline = time.monotonic() + STOP_S
        for child in order:
            if not select.select([child.pidfd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
        for name in ("agent.sock", "keys.sock", "admin.sock", "view.sock", "processes.json"):
            (self.run / name).unlink(missing_ok=True)
        log("daemon-stopped")
        return 0


def _become(program: Program, argument: str, beat_fd: int, parent: int) -> None:
    """Turn the forked child into its program.  Never returns."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for fd in (*program.fds, beat_fd):
            os.set_inheritable(fd, True)
        keep = {0, 1, 2, beat_fd, *program.fds}
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # descriptor numbers, not paths
            if int(name) not in keep:
                with suppress(OSError):
                    os.close(int(name))
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "RES_OPTIONS": "no-reload",
        }  # see confine_io.scrub_environment
        os.execve(sys.executable, [sys.executable, "-P", "-m", program.module, argument], environment)  # noqa: S606
    finally:
        os._exit(127)


def _signals() -> int:
    """Give a descriptor that carries one byte per signal (signal.set_wakeup_fd)."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return read_end


def _join_cgroup(path: Path) -> None:
    """Move ourselves, and so all children, into the daemon's cgroup: the hooks know our processes by it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.procs").write_text(str(os.getpid()))


def _raise_descriptor_limit() -> None:
    """Let ourselves and every child have more descriptors than the usual 1024: one bound process may hold as many connections, two each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _given(*fds: int) -> tuple[int, ...]:
    """Descriptors that are there: -1 stands for one that is not."""
    return tuple(fd for fd in fds if fd >= 0)


def _inodes() -> tuple[tuple[int, int], ...]:
    """Which files the resolver's names lead to now."""
    found = []
    for name in RESOLVER:
        try:
            at = os.stat(name)  # noqa: PTH116  # each second, for ever
            found.append((at.st_dev, at.st_ino))
        except OSError:
            found.append((0, 0))
    return tuple(found)


def main() -> int:
    """Entry of the supervisor process: argv[1] is the setup."""
    setup = json.loads(sys.argv[1])
    setup["since"] = time.time()
    return Supervisor(setup).serve()


if __name__ == "__main__":
    sys.exit(main())
