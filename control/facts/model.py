"""
What the kernel says of a process.

In: nothing.  Out: the types every later stage decides from.  Nothing in here comes from the process's own mouth: comm and argv are
shown to people (``Shown``) and never matched.  Pure.
"""

import msgspec

from control.units import ExecId, Gid, Pid, StartNs, Uid


class ProcessKey(msgspec.Struct, frozen=True):
    """One program in one process: the pid, when it started, and how many programs it has run since."""

    tgid: Pid
    start_ns: StartNs
    exec_id: ExecId

    def __str__(self) -> str:
        return f"{self.tgid}/{self.start_ns}/{self.exec_id}"


class FileId(msgspec.Struct, frozen=True):
    """A file as stat(2) names it: ``dev`` in the kernel's encoding (major << 20 | minor), and the inode number."""

    dev: int
    ino: int


class PathFact(msgspec.Struct, frozen=True):
    """A path the kernel reported, the file it names now, and whether only root could have put it there."""

    path: str
    file: FileId | None
    root_owned: bool
    """Every component is owned by root and not writable by group or others."""
    fault: str = ""
    """Which component breaks the rule, for people: ``/opt/oci is owned by uid 1000``."""
    real: str = ""
    """Where the path's symbolic links lead; equal to ``path`` when it has none."""


class PackageFact(msgspec.Struct, frozen=True):
    """A Debian package that owns the running executable's path, by dpkg's own database."""

    name: str
    """As the selector writes it: ``curl`` or ``curl:amd64``."""
    md5: str
    """What the package says of the file's content; empty when it says nothing."""
    fault: str = ""
    """Why dpkg's database says nothing that could be believed, for people."""


class Facts(msgspec.Struct, frozen=True):
    """Everything a selector may look at."""

    key: ProcessKey
    uid: Uid
    """Effective uid, from the kernel's credentials."""
    gid: Gid
    exe: PathFact
    exe_sha256: str | None
    """Hex digest of the opened /proc/<tid>/exe; None when no selector asked for it."""
    script: PathFact | None
    """The ``#!`` file name given to execve, as the kernel recorded it at exec; None for a plain executable or an unknown one."""
    traced: bool
    foreign_namespace: str = ""
    """Which namespace or root differs from the agent's, for people; empty when none does."""
    one_gid: bool = True
    """Whether every thread runs under ``gid``."""
    exe_md5: str | None = None
    """Hex MD5 of the opened /proc/<tid>/exe; None when no package that a selector names owns its path."""
    packages: tuple[PackageFact, ...] = ()
    """Of the packages that selectors name: those that own the executable's path."""
    script_sha256: str | None = None
    """Hex digest of the script as it lies there now; None when no selector asked, or when others than root may change it."""


class Shown(msgspec.Struct, frozen=True):
    """What a process says of itself: for people's eyes, never matched."""

    comm: str
    argv: tuple[str, ...]
