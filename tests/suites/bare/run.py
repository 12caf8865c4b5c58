"""
Prove that a clone works on a machine that has nothing of ours: git and make, root, and the registries of Debian and Python.

In: this checkout's HEAD (or its work tree), the machine's own package sources.  Out: the commands' output with the seconds before each
line, build/suites/bare.{log,json}, exit 0 when every claim held; 70 when the bare machine could not be made.
The bare machine is a minimal Debian in a directory, fresh for each run, behind a mount namespace of its own.  It shares the kernel,
the pids and the network with this machine, so what a command leaves behind is looked for from here, outside.
"""

import argparse
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.e2e.lib import leftovers
from tests.e2e.lib.net import REPOSITORY, HarnessError, Kennel

HERE = Path(__file__).resolve().parent
CACHE = Path("/var/cache/credwire/bare")
SUITE = "bookworm"
PACKAGES = ("git", "make", "ca-certificates")
"""What a newcomer has, beside Debian's smallest system."""
CHECK_PACKAGES = ("python3", "python3-venv")
"""What ``make check`` asks of a machine where nobody is root."""
CHECKOUT = "credwire"
NEWCOMER = "newcomer"
COLD_WITHIN_S, WARM_WITHIN_S = 360.0, 60.0
STUCK_S = 1500.0
MACHINE_FAILED = 70
CTRL_C = b"\x03"
BUSY = ("bpf program", "bpf map", "bpf link", "bpf on cgroup", "cgroup", "link", "address", "namespace")
"""Kinds of things that others on a shared machine make and remove meanwhile."""
STARTED = re.compile(r"ok\s+credwired starts")
AGENT_KILLED = re.compile(r"ok\s+agent killed")
PIP_RUNS = re.compile(r"setup: installing the pinned Python packages")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_VARIABLES = (*_PROXIES, *(name.upper() for name in _PROXIES), "SSL_CERT_FILE", "SSL_CERT_DIR")
_ACQUIRE = re.compile(r"^Acquire::(https?|ftp|Retries|ForceIPv[46]|Check-(Date|Valid-Until))\b.*[^:]{1} \"[^\"]+\";$")


class MachineError(Exception):
    """The bare machine could not be made: says what, then what to try."""


def say(text: str) -> None:
    """Tell people, beside the commands' own output."""
    print(f"bare: {text}", flush=True)


# ---- the image ---------------------------------------------------------------------------------------------------------------------


def image() -> Path:
    """Give the directory of the minimal Debian; made once, in about a minute, and kept by the digest of its recipe."""
    sources = apt_sources()
    recipe = json.dumps([SUITE, PACKAGES, [path.read_text() for path in sources]])
    done = CACHE / f"root-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():  # renamed into place when it was whole
            return done
        for stale in CACHE.glob("root-*"):
            shutil.rmtree(stale)
        if shutil.which("mmdebstrap") is None:
            raise MachineError("mmdebstrap is not installed; apt-get install --no-install-recommends mmdebstrap")
        say(f"making the minimal Debian {SUITE} in {done}")
        work = done.with_suffix(".part")
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={','.join(PACKAGES)}"]
        command += [*(f"--aptopt={line}" for line in apt_settings()), SUITE, str(work), *map(str, sources)]
        if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            shutil.rmtree(work, ignore_errors=True)
            raise MachineError("mmdebstrap failed; the lines above say why")
        work.rename(done)
    return done


def apt_sources() -> list[Path]:
    """The machine's own package sources, when it is of the same release; else mmdebstrap's defaults."""
    release = Path("/etc/os-release").read_text()
    if f"VERSION_CODENAME={SUITE}" not in release:
        return []
    directory = Path("/etc/apt/sources.list.d")
    found = [Path("/etc/apt/sources.list"), *sorted(directory.glob("*.list")), *sorted(directory.glob("*.sources"))]
    return [path for path in found if path.is_file() and path.read_text().strip()]


def apt_settings() -> list[str]:
    """How the machine's apt reaches its sources: proxies and the like, as configuration lines."""
    told = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    return [line for line in told.splitlines() if _ACQUIRE.match(line)]


# ---- one machine -------------------------------------------------------------------------------------------------------------------


@dataclass
class Ran:
    """What a command did."""

    status: int
    seconds: float
    lines: list[str] = field(default_factory=list)

    def has(self, text: str) -> bool:
        """Whether some line holds ``text``."""
        return any(text in line for line in self.lines)


class Bare:
    """A fresh copy of the minimal Debian with a clone of ours in it."""

    def __init__(self, base: Path, kennel: Kennel, work: Path, name: str, log: IO[str]) -> None:
        self.kennel, self.log, self.name = kennel, log, name
        self.root = work / name
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM": "dumb", "LANG": "C.UTF-8"}
        self.readonly: list[Path] = []
        subprocess.run(["cp", "--archive", str(base), str(self.root)], check=True)
        self._pass_registries()

    def _pass_registries(self) -> None:
        """Let apt and pip reach the registries as they do outside: settings, certificates, and directories that those name."""
        (self.root / "etc/hosts").write_text(Path("/etc/hosts").read_text())
        (self.root / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
        (self.root / "etc/apt/apt.conf.d/90machine").write_text("".join(f"{line}\n" for line in apt_settings()))
        kept = [
            "/etc/apt/auth.conf",
            "/etc/apt/auth.conf.d",
            "/etc/apt/keyrings",
            "/etc/apt/trusted.gpg.d",
            "/etc/pip.conf",
            "/etc/xdg/pip",
        ]
        kept += ["/usr/local/share/ca-certificates", "/etc/ssl/certs/ca-certificates.crt"]
        for path in map(Path, kept):
            self._copy(path, path)
        for name in (".config/pip", ".pip"):
            self._copy(Path.home() / name, Path("/root") / name)
            self._copy(Path.home() / name, Path("/etc/skel") / name)
        passed = {name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith("PIP_")}
        self.environment |= passed
        texts = [path.read_text() for place in ("etc", "root") for path in (self.root / place).rglob("pip.conf")]
        self.readonly = directories_in([*texts, *passed.values()])

    def _copy(self, source: Path, target: Path) -> None:
        inside = self.root / str(target).lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, inside, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, inside)

    def run(
        self,
        *argv: str,
        user: str = "root",
        where: str = "",
        on_line: Callable[[str], bool] = lambda _: False,
        show: bool = True,
    ) -> Ran:
        """
        Run a command inside on a terminal of its own; what it prints is shown and kept with the seconds before each line.

        When ``on_line`` gives True for a line, ^C is typed, once.
        """
        home = "/root" if user == "root" else f"/home/{user}"
        directory = f"{home}/{where}".rstrip("/")
        inside = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", directory, *argv]
        if user != "root":
            inside = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--inh-caps=-all", "--no-new-privs", *inside]
        enter = ["unshare", "--mount", "--", "sh", str(HERE / "enter.sh"), str(self.root), ":".join(map(str, self.readonly))]
        began = time.monotonic()
        master, slave = pty.openpty()
        environment = {**self.environment, "HOME": home, "USER": user, "LOGNAME": user}
        process = self.kennel.start(["setsid", "--ctty", *enter, *inside], stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        ran = Ran(0, 0.0)
        typed = False
        try:
            for line in lines_of(master, began + STUCK_S):
                ran.lines.append(line)
                told = f"{self.name} {time.monotonic() - began:6.1f}  {line}"
                print(told, file=self.log, flush=True)
                if show:
                    print(told, flush=True)
                if not typed and on_line(line):
                    typed = True
                    say("typing ^C")
                    os.write(master, CTRL_C)
        finally:
            os.close(master)  # whoever still reads the terminal is hung up
            if process.poll() is None:
                process.send_signal(signal.SIGHUP)
        ran.status, ran.seconds = process.wait(), time.monotonic() - began
        return ran

    def must(self, *argv: str, user: str = "root", where: str = "") -> None:
        """Run a command of the preparation.  Raises MachineError."""
        ran = self.run(*argv, user=user, where=where, show=False)
        if ran.status != 0:
            raise MachineError(f"{' '.join(argv)} failed with status {ran.status}:\n" + "\n".join(ran.lines[-20:]))

    def take(self, checkout: "Checkout", *, user: str = "root") -> None:
        """Clone, or unpack, in the home directory of ``user``."""
        inside = self.root / "srv" / checkout.file.name
        shutil.copyfile(checkout.file, inside)
        if checkout.is_clone:
            self.must("git", "clone", "--quiet", f"/srv/{inside.name}", CHECKOUT, user=user)
            return
        self.must("mkdir", CHECKOUT, user=user)
        self.must("tar", "-xf", f"/srv/{inside.name}", "--no-same-owner", "-C", CHECKOUT, user=user)

    def lives_here(self, process: leftovers.Process) -> bool:
        """Whether a process has this copy as its root."""
        try:
            return os.path.samestat(os.stat(f"/proc/{process.pid}/root"), self.root.stat())  # noqa: PTH116  # Path.stat is the same
        except OSError:
            return False  # it ended


@dataclass(frozen=True)
class Checkout:
    """What every machine of a run gets: taken once, for work goes on here meanwhile."""

    file: Path
    is_clone: bool
    told: str


def checkout(work: Path, *, worktree: bool) -> Checkout:
    """Bundle HEAD, or pack what the work tree holds and git does not ignore."""
    if not worktree:
        bundle = work / "checkout.bundle"
        told = f"clone of {_git('rev-parse', '--short', 'HEAD')}"
        _git("bundle", "create", "--quiet", str(bundle), "HEAD")
        return Checkout(bundle, True, told)
    packed = work / "checkout.tar"
    told = f"work tree at {_git('describe', '--always', '--dirty')}"
    with tarfile.open(packed, "w") as archive:
        for name in _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
            if name and (REPOSITORY / name).exists():
                archive.add(REPOSITORY / name, name, filter=_nobodys)
    return Checkout(packed, False, told)


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MachineError(f"git {words[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def directories_in(texts: Sequence[str]) -> list[Path]:
    """
    Directories of this machine that pip's settings name, without those that lie in another of them.

    An index in a directory (.../simple) links to its neighbours: the directory above it counts.
    """
    named = {
        Path(word.removeprefix("file://")) for text in texts for word in re.split(r"[\s=,'\"]+", text) if re.match(r"(file://)?/", word)
    }
    named = {path.parent if path.name == "simple" else path for path in named if path.is_dir()}
    named = {path for path in named if not path.is_relative_to("/etc")}
    return sorted(path for path in named if not any(path != other and path.is_relative_to(other) for other in named))


def lines_of(terminal: int, deadline: float) -> Iterator[str]:
    """The lines that come out of a terminal until nobody holds its other end.  Raises TimeoutError."""
    rest = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([terminal], [], [], left)[0]:
            raise TimeoutError(f"no end after {STUCK_S:.0f} s")
        try:
            came = os.read(terminal, 65536)
        except OSError:  # EIO: the last one who had it open is gone
            came = b""
        *whole, rest = (rest + came).split(b"\n")
        if not came and rest:
            whole.append(rest)
        yield from (line.decode(errors="replace").strip("\r") for line in whole)
        if not came:
            return


# ---- what a command leaves -----------------------------------------------------------------------------------------------------------


class Outside:
    """The machine as it was, and what a bare machine's commands were seen to hold meanwhile."""

    def __init__(self, machine: Bare, *, shared: bool) -> None:
        self.machine, self.shared = machine, shared
        self.before = leftovers.take()
        self.seen: dict[str, set[str]] = {kind: set() for kind in BUSY}

    def look(self) -> None:
        """While a demo runs: note the cgroups of its processes, what hangs on those, and its links and namespaces."""
        now = leftovers.take()
        ours = [process for process in now.processes if self.machine.lives_here(process)]
        names = {process.cgroup.split("/")[1] for process in ours if process.cgroup.startswith("/credwire-demo-")}
        attached = {text for text in now.things["bpf on cgroup"] if any(f"/{name} " in text or f"/{name}/" in text for name in names)}
        programs = {text.rpartition(" ")[2] for text in attached}
        maps = {number for entry in _bpftool("prog", "show") if str(entry["id"]) in programs for number in entry.get("map_ids", ())}
        links = {entry["id"] for entry in _bpftool("link", "show") if str(entry.get("prog_id")) in programs}
        veths = {f"cw{name.rpartition('-')[2]}n" for name in names}
        spaces = {text for process in ours for text in _namespaces(process.pid)}
        mine = {
            "bpf program": {text for text in now.things["bpf program"] if text.split()[0] in programs},
            "bpf map": {text for text in now.things["bpf map"] if int(text.split()[0]) in maps},
            "bpf link": {text for text in now.things["bpf link"] if int(text.split()[0]) in links},
            "bpf on cgroup": attached,
            "cgroup": {text for text in now.things["cgroup"] if names.intersection(Path(text).parts)},
            "link": {text for text in now.things["link"] if text.startswith(tuple(veths))},
            "address": {text for text in now.things["address"] if text.split()[-1].startswith(tuple(veths))},
            "namespace": spaces - self.before.things["namespace"],
        }
        for kind, things in mine.items():
            self.seen.setdefault(kind, set()).update(things)

    def wait_for_stopped(self, number: int) -> None:
        """Wait until as many processes of the machine are held by SIGSTOP.  Raises MachineError."""
        deadline = time.monotonic() + 20
        while sum(_is_stopped(process.pid) for process in leftovers.processes() if self.machine.lives_here(process)) < number:
            if time.monotonic() > deadline:
                raise MachineError(f"waited 20 s for {number} stopped processes; has the demo changed its story?")
            time.sleep(0.02)

    def left(self) -> list[str]:
        """What is left, as lines; on a shared machine only what was seen to be ours, and what nobody else changes."""
        deadline = time.monotonic() + 20
        while True:
            found = leftovers.compare(self.before, leftovers.take(), ours=self.machine.lives_here)
            if self.shared:
                added = {kind: [text for text in things if text in self.seen.get(kind, things)] for kind, things in found.added.items()}
                found = leftovers.Leftovers({kind: things for kind, things in added.items() if things}, found.removed)
            if not found or time.monotonic() > deadline:
                return found.lines()
            time.sleep(0.2)  # the kernel takes namespaces back without telling anybody


def _bpftool(*words: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(subprocess.run(["bpftool", "-j", *words], capture_output=True, check=True).stdout or b"[]")
    return told


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    except OSError:
        return False  # it ended


def _namespaces(pid: int) -> set[str]:
    try:
        return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/ns").iterdir()}
    except OSError:
        return set()  # it ended


# ---- the claims ----------------------------------------------------------------------------------------------------------------------


class Claims:
    """What was claimed and whether it held; told as it becomes known."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, bool, str]] = []

    def claim(self, text: str, held: bool, seen: str = "") -> bool:
        """Note one."""
        self.rows.append((text, held, seen))
        say(f"{'ok    ' if held else 'FAILED'} {text}{': ' if seen else ''}{seen}")
        return held

    def clean(self, after: str, outside: Outside) -> None:
        """Claim that nothing is left."""
        left = outside.left()
        self.claim(f"nothing is left {after}", not left, "; ".join(left))

    @property
    def all_held(self) -> bool:
        """Whether every claim held."""
        return all(held for _, held, _ in self.rows)


def _looks(outside: Outside, *marks: re.Pattern[str]) -> Callable[[str], bool]:
    """Look at the machine at each of these lines."""
    waiting = list(marks)

    def at(line: str) -> bool:
        if waiting and waiting[0].search(line):
            waiting.pop(0)
            outside.look()
        return False

    return at


def _types(outside: Outside, mark: re.Pattern[str], stopped: int) -> Callable[[str], bool]:
    """At this line, and once so many processes are stopped, look and type ^C."""

    def at(line: str) -> bool:
        if not mark.search(line):
            return False
        outside.wait_for_stopped(stopped)
        outside.look()
        return True

    return at


def play_demo(machine: Bare, claims: Claims, taken: Checkout, *, shared: bool) -> None:
    """A newcomer, as root: clone, make demo, again, and ^C in the middle."""
    machine.take(taken)
    lacks = machine.run("sh", "-c", "for p in python3 pip gcc bpftool ip curl; do command -v $p; done; true", show=False)
    claims.claim(f"{taken.told}; the machine has git and make, and no python3, compiler or bpftool", not lacks.lines, " ".join(lacks.lines))
    outside = Outside(machine, shared=shared)
    cold = machine.run("make", "demo", where=CHECKOUT, on_line=_looks(outside, STARTED, AGENT_KILLED))
    claims.claim("make demo works cold", cold.status == 0, f"exit {cold.status}")
    claims.claim(f"make demo cold within {COLD_WITHIN_S:.0f} s", cold.seconds <= COLD_WITHIN_S, f"{cold.seconds:.1f} s")
    programs = len(outside.seen.get("bpf on cgroup", ()))
    claims.claim("while it ran, programs were seen on its cgroup from outside", programs > 0, f"{programs}")
    claims.clean("after make demo", outside)
    if cold.status != 0 and not shared:
        return
    outside = Outside(machine, shared=shared)
    warm = machine.run("make", "demo", where=CHECKOUT, on_line=_looks(outside, STARTED, AGENT_KILLED))
    claims.claim("make demo works warm", warm.status == 0, f"exit {warm.status}")
    claims.claim(f"make demo warm within {WARM_WITHIN_S:.0f} s", warm.seconds <= WARM_WITHIN_S, f"{warm.seconds:.1f} s")
    claims.clean("after a second make demo", outside)
    for where, mark, stopped in (("once the daemon runs", STARTED, 0), ("while agent and supervisor are stopped", AGENT_KILLED, 2)):
        outside = Outside(machine, shared=shared)
        ended = machine.run("make", "demo", where=CHECKOUT, on_line=_types(outside, mark, stopped))
        told = f"exit {ended.status} after {ended.seconds:.1f} s"
        claims.claim(f"^C {where} ends make demo", ended.status != 0 and ended.has("^C"), told)
        claims.claim(f"^C {where}: the demo says that the machine is clean", ended.has("the machine is as it was"))
        claims.clean(f"after ^C {where}", outside)


def play_test(machine: Bare, claims: Claims, *, shared: bool) -> None:
    """The same newcomer: make test."""
    outside = Outside(machine, shared=shared)
    ran = machine.run("make", "test", where=CHECKOUT)
    summary = next((line for line in reversed(ran.lines) if " passed, " in line), "")
    claims.claim("make test is green", ran.status == 0, f"{summary} (exit {ran.status}, {ran.seconds:.0f} s)")
    claims.clean("after make test", outside)


def play_check(machine: Bare, claims: Claims, taken: Checkout) -> None:
    """An ordinary user of a machine with Python, without bcc: a broken-off make check, then a whole one."""
    install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends"
    machine.must("sh", "-c", f"{install} {' '.join(CHECK_PACKAGES)}")
    machine.must("useradd", "--create-home", NEWCOMER)
    machine.take(taken, user=NEWCOMER)
    lacks = machine.run(
        "sh", "-c", "command -v gcc bpftool; python3 -c 'import bcc' 2>/dev/null && echo bcc; id -u", user=NEWCOMER, show=False
    )
    claims.claim(
        f"{taken.told}; an ordinary user, no compiler, no bcc", [line != "0" for line in lacks.lines] == [True], " ".join(lacks.lines)
    )
    broken = machine.run("make", "check", where=CHECKOUT, user=NEWCOMER, on_line=lambda line: bool(PIP_RUNS.search(line)))
    claims.claim("^C breaks off the first make check", broken.status != 0 and broken.has("^C"), f"exit {broken.status}")
    ran = machine.run("make", "check", where=CHECKOUT, user=NEWCOMER)
    summary = next((line for line in reversed(ran.lines) if " passed" in line), "")
    claims.claim("make check is green as an ordinary user", ran.status == 0, f"{summary} (exit {ran.status}, {ran.seconds:.0f} s)")


def main() -> int:
    """Make the machines, play, report."""
    parser = argparse.ArgumentParser(prog="bare", description="run make demo and make check on a machine without our packages")
    parser.add_argument("--only", choices=("demo", "check"), help="one of the two machines")
    parser.add_argument("--full", action="store_true", help="make test as well")
    parser.add_argument("--worktree", action="store_true", help="take the work tree instead of a clone of HEAD")
    parser.add_argument("--shared", action="store_true", help="others use BPF on this machine too: count only what was seen to be ours")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bare: error: a root directory and namespaces need root\nbare: hint: run it with sudo", file=sys.stderr)
        return MACHINE_FAILED
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    target = REPOSITORY / "build" / "suites"
    target.mkdir(parents=True, exist_ok=True)
    work = CACHE / f"run-{os.getpid()}"
    claims = Claims()
    taken, broke = None, ""
    try:
        base = image()
        for stale in CACHE.glob("run-*"):
            if not Path(f"/proc/{stale.name.partition('-')[2]}").exists():
                shutil.rmtree(stale)
        work.mkdir()
        taken = checkout(work, worktree=options.worktree)
        with (target / "bare.log").open("w") as log, Kennel(f"credwire-bare-{os.getpid()}", remove=[work]) as kennel:
            if options.only != "check":
                machine = Bare(base, kennel, work, "demo", log)
                play_demo(machine, claims, taken, shared=options.shared)
                if options.full:
                    play_test(machine, claims, shared=options.shared)
            if options.only != "demo":
                play_check(Bare(base, kennel, work, "check", log), claims, taken)
    except (MachineError, HarnessError, OSError, subprocess.CalledProcessError) as error:
        broke = f"{type(error).__name__}: {error}"
        say(f"error: {broke}")
    except TimeoutError as error:
        claims.claim("every command ends", False, str(error))
    report = {"suite": "bare", "took": taken.told if taken else "", "broke": broke, "claims": claims.rows}
    (target / "bare.json").write_text(json.dumps(report, indent=2) + "\n")
    say("")
    for text, held, seen in claims.rows:
        say(f"{'ok    ' if held else 'FAILED'} {text}{': ' if seen else ''}{seen}")
    if broke:
        return MACHINE_FAILED
    return 0 if claims.all_held else 1


if __name__ == "__main__":
    sys.exit(main())
