"""
A throw-away cgroup with the programs on it, and clients that do what a test says.

In: root, bcc.  Out: Lab, Client.  The hooks hang on a child cgroup only; the test's own process plays the daemon (its cgroup is exempt and
may ask for records), clients are moved into the watched cgroup before they run anything.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bpf import place_io, sys_io
from bpf.abi import Event, EventKind, KernelFilter, MapNumber, Process, ProcessFlag, ProcessState, pack_key
from bpf.filters import kernel_dev
from bpf.kernel_io import Kernel
from bpf.listener_io import open_listeners
from bpf.record_io import Answer, read_answer
from bpf.remove_io import remove

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path("/usr/bin/python3").resolve()
STALE_NS = 60_000_000_000
"""So long that only tests about staleness meet it."""

REPL = r"""
import json, os, socket, sys
scope = {"os": os, "socket": socket, "sys": sys, "s": None}
for line in sys.stdin:
    scope["result"] = None
    try:
        exec(json.loads(line), scope)
        reply = {"result": scope["result"]}
    except TimeoutError:
        reply = {"errno": 110}
    except OSError as error:
        reply = {"errno": error.errno}
    except Exception as error:
        reply = {"error": repr(error)}
    print(json.dumps(reply), flush=True)
"""
"""What a client runs: one piece of Python a line, one JSON answer a line."""

AGENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from bpf.kernel_io import Kernel
pins, cache, scope, daemon = map(Path, sys.argv[2:6])
kernel = Kernel.load(pins=pins, cache=cache, scope=scope, daemon_cgroup=daemon)
kernel.configure(port4=int(sys.argv[6]), port6=int(sys.argv[6]), agent_tgid=os.getpid(), stale_ns=int(sys.argv[7]), enforce=True)
while True:
    kernel.beat()
    time.sleep(0.05)
"""
"""What plays the agent where a test stops or kills it: it adopts the pins and beats."""

WATCHDOG = r"""
import select, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
ready, _, _ = select.select([sys.stdin], [], [], float(sys.argv[3]))
if not ready or sys.stdin.readline() != "done\n":
    from bpf.remove_io import remove
    remove(Path(sys.argv[2]))
"""
"""Takes the programs off when the tests hang or die."""


def until(condition: Callable[[], Any], *, seconds: float = 10.0) -> Any:
    """Wait for a condition to hold; gives what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        select.select([], [], [], 0.005)
    return value


def join_cgroup(path: Path) -> None:
    """Move this process."""
    (path / "cgroup.procs").write_text("0")


class Client:
    """A process in the watched cgroup that runs what it is told."""

    def __init__(self, cgroup: Path, argv: list[str], *, uid: int = 0, pass_fds: tuple[int, ...] = ()) -> None:
        def become() -> None:
            join_cgroup(cgroup)
            if uid:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)

        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=become,  # noqa: PLW1509  # the cgroup must be joined before the program is executed, and before the uid changes
            pass_fds=pass_fds,
            cwd="/",
        )
        self.pid = self.process.pid

    def ask(self, code: str) -> dict[str, Any]:
        """Run code; gives ``result`` or ``errno``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client ended"
        reply: dict[str, Any] = json.loads(line)
        assert "error" not in reply, reply["error"]
        return reply

    def run(self, code: str) -> Any:
        """Run code that works; gives ``result``."""
        reply = self.ask(code)
        assert "errno" not in reply, os.strerror(reply["errno"])
        return reply["result"]

    def connect(self, host: str, port: int, *, name: str = "s", kind: str = "SOCK_STREAM", seconds: float = 3.0) -> int:
        """Connect a new socket, which the client calls ``name``; gives the errno, 0 when it worked."""
        family = "AF_INET6" if ":" in host else "AF_INET"
        return int(
            self.ask(
                f"{name} = socket.socket(socket.{family}, socket.{kind})\n{name}.settimeout({seconds})\n{name}.connect(({host!r}, {port}))"
            ).get("errno", 0)
        )

    def become(self, exe: Path) -> None:
        """Execute another program in the same process; it takes the same questions."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        ready = f"print('ready', flush=True)\n{REPL}"
        self.process.stdin.write(json.dumps(f"os.execv({str(exe)!r}, {[str(exe), '-I', '-S', '-c', ready]!r})") + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ready\n"

    def errno(self, code: str) -> int:
        """Run code; gives the errno, 0 when it worked."""
        return int(self.ask(code).get("errno", 0))

    def close(self) -> None:
        """End it."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Lab:
    """The programs on a cgroup of their own."""

    def __init__(self) -> None:
        self._clients: list[Client] = []
        self._watchdog: subprocess.Popen[str] | None = None
        self._came_from = place_io.cgroup2_root() / self._own_cgroup().lstrip("/")
        self.home = Path(tempfile.mkdtemp(prefix="cw-kernel-"))
        self.home.chmod(0o755)
        self.pins = self.home / "pins"
        self.cgroup = place_io.cgroup2_root() / self.home.name
        self.clients, self.daemon = self.cgroup / "clients", self.cgroup / "daemon"
        for path in (self.cgroup, self.clients, self.daemon):
            path.mkdir()
        self.cache = self.home / "cache"
        self._watchdog = subprocess.Popen(
            [sys.executable, "-c", WATCHDOG, str(ROOT), str(self.pins), "900"], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self.bound = self._copy_python("bound")
        self.other = self._copy_python("other")
        join_cgroup(self.daemon)
        self.kernel = self.load()
        self.four, six = open_listeners(0)
        assert six is not None
        self.six = six
        self.port = int(self.four.getsockname()[1])
        self.straight4 = self._server(socket.AF_INET, "127.0.0.1")
        self.straight6 = self._server(socket.AF_INET6, "::1", int(self.straight4.getsockname()[1]))
        self.service = int(self.straight4.getsockname()[1])
        """A port of interest with a real server behind it, on 127.0.0.1 and ::1."""
        for listener in (self.four, self.six, self.straight4, self.straight6):
            listener.settimeout(5)

    @staticmethod
    def _own_cgroup() -> str:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return line[3:]
        raise AssertionError("no cgroup v2")

    @staticmethod
    def _server(family: socket.AddressFamily, host: str, port: int = 0) -> socket.socket:
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(64)
        return sock

    def _copy_python(self, name: str) -> Path:
        """Make an executable of its own inode, so that no other Python of the machine is listed."""
        target = self.home / name
        shutil.copy(PYTHON, target)
        target.chmod(0o755)
        return target

    def load(self) -> Kernel:
        """Load, or adopt what is pinned."""
        return Kernel.load(pins=self.pins, cache=self.cache, scope=self.cgroup, daemon_cgroup=self.daemon)

    @staticmethod
    def exe(path: Path) -> tuple[int, int]:
        """Name a file as filters do."""
        seen = path.stat()
        return kernel_dev(seen.st_dev), seen.st_ino

    def rule(self, *filters: KernelFilter, excluded: tuple[str, ...] = (), ports: tuple[int, ...] = (), revision: int = 1) -> None:
        """Put filters into force, with a live daemon."""
        self.kernel.swap_filters(filters, ports=ports or (self.service, 443), excluded=excluded, revision=revision)
        self.kernel.configure(port4=self.port, port6=self.port, agent_tgid=os.getpid(), stale_ns=STALE_NS, enforce=True)
        self.kernel.beat()

    def rule_exe(self, **changes: Any) -> None:
        """The usual rule: whoever runs the ``bound`` executable."""
        self.rule(KernelFilter(exe=self.exe(self.bound), uid=None, script=None, **changes))

    def client(self, exe: Path | None = None, *, uid: int = 0) -> Client:
        """Start a client; ``exe`` defaults to the listed executable."""
        return self.start([str(exe or self.bound), "-I", "-S", "-c", REPL], uid=uid)

    def start(self, argv: list[str], *, uid: int = 0) -> Client:
        """Start any program that runs REPL."""
        client = Client(self.clients, argv, uid=uid)
        self._clients.append(client)
        return client

    def script(self, name: str, interpreter: Path | None = None) -> Path:
        """Write a ``#!`` script that runs REPL."""
        path = self.home / name
        path.write_text(f"#!{interpreter or self.bound} -I\n{REPL}")
        path.chmod(0o755)
        return path

    def accept(self, *, six: bool = False) -> socket.socket:
        """Take the next connection from the listener."""
        sock, _ = (self.six if six else self.four).accept()
        return sock

    def answer(self, *, six: bool = False) -> Answer:
        """Take the next connection and ask the kernel whose it is."""
        with self.accept(six=six) as sock:
            return read_answer(sock)

    def nobody_came(self) -> bool:
        """Whether no connection waits at the listener."""
        return not select.select([self.four, self.six], [], [], 0)[0]

    def entry(self, pid: int) -> Process | None:
        """What the table holds of a pid."""
        return self.kernel.process(pid)

    def bind(self, pid: int, identity: int = 7) -> Process:
        """Attest a process, as the agent would."""
        process = self.entry(pid)
        assert process is not None
        assert self.kernel.settle(process.tgid, process.start_ns, process.exec_id, ProcessState.BOUND, identity)
        settled = self.entry(pid)
        assert settled is not None
        return settled

    def fill_table(self) -> list[bytes]:
        """Take every place of the process table; gives the keys for empty_table()."""
        fd = self.kernel.map_fd(MapNumber.PROCS)
        keys = []
        entry = Process(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ProcessFlag(0), ProcessState.PENDING)
        with contextlib.suppress(OSError):  # E2BIG: full
            for number in range(1 << 20):
                key = pack_key(0xFFFFFFFF, number, 0)
                sys_io.update(fd, key, entry.pack())
                keys.append(key)
        return keys

    def empty_table(self, keys: list[bytes]) -> None:
        """Give the places back."""
        for key in keys:
            sys_io.delete(self.kernel.map_fd(MapNumber.PROCS), key)

    def alive(self) -> bool:
        """Whether the agent's heartbeat is fresh, as the programs see it."""
        config = self.kernel.config()
        return config.heartbeat_ns > 0 and time.monotonic_ns() - config.heartbeat_ns < config.stale_ns

    def refusals(self) -> list[Event]:
        """Take the refusals among the events so far."""
        return [e for e in self.kernel.drain() if e.kind is EventKind.REFUSED]

    def calm(self) -> None:
        """Back to nothing: no clients, no rule, nobody waiting."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        self.kernel.turn_on()
        self.kernel.swap_filters([], ports=[], excluded=[], revision=0)
        self.kernel.configure(port4=self.port, port6=self.port, agent_tgid=os.getpid(), stale_ns=STALE_NS, enforce=False)
        for listener in (self.four, self.six, self.straight4, self.straight6):
            while select.select([listener], [], [], 0)[0]:
                listener.accept()[0].close()
        self.kernel.drain()

    def close(self) -> None:
        """Leave nothing behind."""
        for client in self._clients:
            client.close()
        with contextlib.suppress(AttributeError):  # a load that failed
            self.kernel.close()
        remove(self.pins)
        join_cgroup(self._came_from)
        for path in (self.clients, self.daemon, self.cgroup):
            until(lambda path=path: not path.exists() or _rmdir(path))
        for name in ("four", "six", "straight4", "straight6"):
            if (sock := getattr(self, name, None)) is not None:
                sock.close()
        if self._watchdog is not None:
            self._watchdog.communicate("done\n")
        shutil.rmtree(self.home)


def _rmdir(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False  # a process that ended is still leaving it
    return True


def start_agent(lab: Lab, stale_ns: int = 300_000_000) -> subprocess.Popen[bytes]:
    """Start it, and wait for its first beat."""
    paths = [str(p) for p in (ROOT, lab.pins, lab.cache, lab.cgroup, lab.daemon)]
    process = subprocess.Popen([sys.executable, "-c", AGENT, *paths, str(lab.port), str(stale_ns)])
    until(lambda: lab.kernel.config().agent_tgid == process.pid and lab.kernel.config().heartbeat_ns, seconds=60)
    return process


def silence(lab: Lab, agent: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Stop or kill what plays the agent, and wait until the programs take it for hung or dead; before, no load of the machine does."""
    agent.send_signal(how)
    if how is signal.SIGSTOP:
        lab.kernel.configure(port4=lab.port, port6=lab.port, agent_tgid=agent.pid, stale_ns=300_000_000, enforce=True)
        until(lambda: not lab.alive())
    else:
        agent.wait()
        assert lab.kernel.config().heartbeat_ns == 0


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Make a Lab and take it apart again, whatever happens."""
    made = Lab.__new__(Lab)
    try:
        made.__init__()  # type: ignore[misc]  # so that close() also cleans up after half an __init__
        yield made
    finally:
        made.close()
