"""
List what a machine holds, and what is there that was not before.

In: nothing, or a Snapshot taken earlier.  Out: a Snapshot; the difference as lines for people.
What the kernel takes back late (namespaces, dead cgroups) is waited for, up to a deadline.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from tests.e2e.lib.net import HarnessError, cgroup2_root

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_POLL_S = 0.05
_OWNED = frozenset({"bpf program", "bpf link", "bpf map", "bpf on cgroup", "bpf pin", "cgroup", "namespace", "link", "address", "mount"})
"""Kinds that belong to some process and rightly go with it: timers, containers and sessions end while we look."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process; pid and start time tell it from a later one with the same pid."""

    pid: int
    start_ticks: int
    uid: int
    command: str
    cgroup: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a run may leave behind, by kind, as text."""

    things: dict[str, frozenset[str]]
    processes: frozenset[Process]


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What came (``added``) and what went (``removed``)."""

    added: dict[str, list[str]] = field(default_factory=dict)
    removed: dict[str, list[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)

    def lines(self) -> list[str]:
        """One line per thing: ``+ kind: what`` or ``- kind: what``."""
        told = [f"+ {kind}: {what}" for kind, things in sorted(self.added.items()) for what in things]
        return told + [f"- {kind}: {what}" for kind, things in sorted(self.removed.items()) for what in things]


def take(*, paths: Sequence[Path] = (Path("/etc/hosts"), Path("/etc/ssl/certs/ca-certificates.crt"))) -> Snapshot:
    """
    Look at the machine.  Raises HarnessError when a part of it cannot be seen.

    ``paths`` are watched for coming, going and content (directories: for coming and going only).
    """
    programs = {entry["id"]: f"{entry['id']} {entry.get('type')} {entry.get('name', '')}" for entry in _bpftool("prog", "show")}
    things = {
        "bpf program": frozenset(programs.values()),
        "bpf link": _bpf("link", "show", name=lambda entry: f"{entry['id']} {entry.get('type')} {programs.get(entry.get('prog_id'), '')}"),
        "bpf map": _bpf("map", "show", name=lambda entry: f"{entry['id']} {entry.get('type')} {entry.get('name', '')}"),
        "bpf on cgroup": _attached(),
        "bpf pin": _pins(),
        "mount": frozenset(line.split(" ", 2)[2] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "namespace": _namespaces(),
        "cgroup": frozenset(directory for directory, _, _ in os.walk(cgroup2_root())),
        "user": frozenset(line.split(":")[0] for line in Path("/etc/passwd").read_text().splitlines()),
        "group": frozenset(line.split(":")[0] for line in Path("/etc/group").read_text().splitlines()),
        "path": frozenset(filter(None, (_print(path) for path in paths))),
        **_network(),
    }
    return Snapshot(things, frozenset(processes()))


def everybody(_process: Process) -> bool:
    """Every new process counts: right on a machine where nobody else works."""
    return True


def everything(_kind: str, _what: str) -> bool:
    """Every new thing counts: right on a machine where nobody else works."""
    return True


def compare(
    before: Snapshot,
    after: Snapshot,
    *,
    ours: Callable[[Process], bool] = everybody,
    counts: Callable[[str, str], bool] = everything,
) -> Leftovers:
    """
    Say what differs.

    Of new processes only those that ``ours`` knows count, of other new things those of which ``counts`` (kind, what) says so.
    Processes and what belongs to processes may go.
    """
    added, removed = {}, {}
    for kind, now in after.things.items():
        former = before.things.get(kind, frozenset())
        if came := sorted(what for what in now - former if counts(kind, what)):
            added[kind] = came
        if kind not in _OWNED and (went := sorted(former - now)):
            removed[kind] = went
    known = {(process.pid, process.start_ticks) for process in before.processes}
    fresh = [process for process in after.processes if (process.pid, process.start_ticks) not in known and ours(process)]
    if fresh:
        added["process"] = [f"{process.pid} uid {process.uid} {process.command}" for process in sorted(fresh, key=lambda p: p.pid)]
    return Leftovers(added, removed)


def wait_until_clean(
    before: Snapshot,
    *,
    within_s: float = 10.0,
    kinds: frozenset[str] | None = None,
    ours: Callable[[Process], bool] = everybody,
    counts: Callable[[str, str], bool] = everything,
    paths: Sequence[Path] = (Path("/etc/hosts"), Path("/etc/ssl/certs/ca-certificates.crt")),
) -> Leftovers:
    """
    Compare until nothing differs or time is up; gives the last difference, empty when clean.

    ``kinds``, ``ours`` and ``counts`` narrow it, for machines where others work too; ``paths`` must be those of ``before``.
    """
    deadline = time.monotonic() + within_s
    while True:
        found = compare(before, take(paths=paths), ours=ours, counts=counts)
        if kinds is not None:
            found = Leftovers(
                {kind: things for kind, things in found.added.items() if kind in kinds},
                {kind: things for kind, things in found.removed.items() if kind in kinds},
            )
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(_POLL_S)  # namespaces are taken back by a kernel worker that tells nobody


# -- the kinds


def _bpftool(*words: str) -> list[dict[str, Any]]:
    """Ask bpftool; what could not be looked at must not pass for clean.  Raises HarnessError."""
    if shutil.which("bpftool") is None:
        raise HarnessError("bpftool is not installed: nobody can say which BPF objects are left (apt-get install bpftool)")
    done = subprocess.run(["bpftool", "-j", *words], capture_output=True, check=False)
    try:
        told = json.loads(done.stdout or b"[]")
    except ValueError as error:
        raise HarnessError(f"bpftool {' '.join(words)} prints no JSON: {done.stdout[:200]!r}") from error
    if not isinstance(told, list):
        raise HarnessError(f"bpftool {' '.join(words)}: {told}")
    return told


def _bpf(*words: str, name: Callable[[dict[str, Any]], str]) -> frozenset[str]:
    return frozenset(name(entry) for entry in _bpftool(*words))


def _attached() -> frozenset[str]:
    return frozenset(
        f"{entry['cgroup']} {program.get('attach_type')} {program.get('id')}"
        for entry in _bpftool("cgroup", "tree", str(cgroup2_root()))
        for program in entry.get("programs", [])
    )


def _pins() -> frozenset[str]:
    mounts = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    roots = [fields[4] for fields in mounts if fields[fields.index("-") + 1] == "bpf"]
    return frozenset(str(Path(directory) / name) for root in roots for directory, _, names in os.walk(root) for name in names)


def _namespaces() -> frozenset[str]:
    found = set()
    for pid in _pids():
        for kind in _NAMESPACES:
            try:
                found.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
            except OSError:
                continue  # it ended, or is a zombie
    return frozenset(found)


def _network() -> dict[str, frozenset[str]]:
    with IPRoute() as route:
        links = {message["index"]: message.get_attr("IFLA_IFNAME") for message in route.get_links()}
        addresses = {f"{message.get_attr('IFA_ADDRESS')} {links.get(message['index'])}" for message in route.get_addr()}
        rules = {f"{message['family']} {message.get_attr('FRA_PRIORITY')}" for message in route.get_rules()}
    return {"link": frozenset(links.values()), "address": frozenset(addresses), "rule": frozenset(rules)}


def _print(path: Path) -> str:
    if path.is_dir():
        return f"{path}/"
    if not path.exists():
        return ""
    return f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def processes() -> list[Process]:
    """Everybody but kernel threads."""
    found = []
    for pid in _pids():
        base = Path(f"/proc/{pid}")
        try:
            command = (base / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            stat = (base / "stat").read_text()
            cgroup = next((line[3:] for line in (base / "cgroup").read_text().splitlines() if line.startswith("0::")), "")
            uid = base.stat().st_uid
        except OSError:
            continue  # it ended while we looked
        if command:  # a kernel thread has none
            found.append(Process(pid, int(stat.rpartition(")")[2].split()[19]), uid, command, cgroup))
    return found
