"""
A bare machine: a minimal Debian in a directory, and what commands in it do and leave.

In: the machine's own package sources, a checkout.  Out: Bare, whose ``run`` shows and keeps what a command prints; Outside, which looks for
what was left from outside; Claims.  It shares the kernel, the pids and the network with this machine.
"""

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
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.e2e.lib import leftovers
from tests.e2e.lib.net import REPOSITORY, Kennel

HERE = Path(__file__).resolve().parent
CACHE = Path("/var/cache/credwire/bare")
SUITE = "bookworm"
PACKAGES = ("git", "make", "ca-certificates")
"""What a newcomer has, beside Debian's smallest system."""
CHECKOUT = "credwire"
STUCK_S = 1500.0
MACHINE_FAILED = 70
CTRL_C = b"\x03"
BUSY = ("bpf program", "bpf map", "bpf link", "bpf on cgroup", "cgroup", "link", "address", "namespace")
"""Kinds of things that others on a shared machine make and remove meanwhile."""
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
        alone: bool = False,
    ) -> Ran:
        """
        Run a command inside on a terminal of its own; what it prints is shown and kept with the seconds before each line.

        When ``on_line`` gives True for a line, ^C is typed, once.  ``alone``: with a cgroup root and a bpffs of its own, so that a daemon
        with the configuration of every new installation hooks this machine's processes only.
        """
        home = "/root" if user == "root" else f"/home/{user}"
        directory = f"{home}/{where}".rstrip("/")
        inside = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", directory, *argv]
        if user != "root":
            inside = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--inh-caps=-all", "--no-new-privs", *inside]
        spaces = ["--mount", "--cgroup"] if alone else ["--mount"]
        enter = ["unshare", *spaces, "--", "sh", str(HERE / "enter.sh"), str(self.root), ":".join(map(str, self.readonly))]
        began = time.monotonic()
        master, slave = pty.openpty()
        environment = {**self.environment, "HOME": home, "USER": user, "LOGNAME": user, "CREDWIRE_ALONE": "1" if alone else ""}
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
