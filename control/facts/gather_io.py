"""
Read the facts of one process.

In: the kernel's record of it (process key, uid, exec'd script).  Out: Facts, or a Refusal when it ended or is another one.
Everything is read through one descriptor of /proc/<pid>, which belongs to the process and not to its number; the start time is compared
first and last, and a pidfd says whether it lives on.  An exec in between cannot be seen here: who calls compares the exec id in the
kernel's table afterwards (I1, I2, I7, I8, I15).
"""

import os
import select
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

from control.errors import Refusal
from control.facts.digest_io import Digests
from control.facts.model import Facts, FileId, PackageFact, PathFact, ProcessKey, Shown
from control.facts.package_io import Packages
from control.facts.path_io import file_id, look
from control.facts.proc import MalformedProcError, Status, parse_stat, parse_status, printable
from control.reason import Reason
from control.units import Gid, Uid, start_ticks

MAX_THREADS = 4096
"""Threads looked at per process; one with more is refused rather than half read."""
MAX_ARGV = 4096
"""Bytes of argv that people are shown."""
_DELETED = " (deleted)"
_STATUS_BYTES = 65536

_digests = Digests()
_md5s = Digests(algorithm="md5")
_packages = Packages()


class Namespaces(NamedTuple):
    """Where a process lives: what must equal the agent's own."""

    user: FileId
    mount: FileId
    root: FileId
    root_path: str
    """As seen from us: a root directory bind-mounted elsewhere is the same file under another path."""

    @classmethod
    def own(cls) -> "Namespaces":
        """Read ours."""
        proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls.of(proc)
        finally:
            os.close(proc)

    @classmethod
    def of(cls, proc: int) -> "Namespaces":
        """Read those of the process or thread behind a /proc descriptor.  Raises OSError."""
        return cls(
            file_id(os.stat("ns/user", dir_fd=proc)),
            file_id(os.stat("ns/mnt", dir_fd=proc)),
            file_id(os.stat("root", dir_fd=proc)),
            os.readlink("root", dir_fd=proc),
        )

    def difference(self, other: "Namespaces") -> str:
        """Name what ``other`` has that is not ours; empty when nothing."""
        if self.user != other.user:
            return "user namespace"
        if self.mount != other.mount:
            return "mount namespace"
        if (self.root, self.root_path) != (other.root, other.root_path):
            return f"root directory {printable(other.root_path)}"
        return ""


def gather(
    key: ProcessKey,
    *,
    uid: Uid,
    gid: Gid,
    script: str | None,
    want_digest: bool,
    home: Namespaces,
    want_packages: frozenset[str] = frozenset(),
    want_script_digest: bool = False,
) -> Facts | Refusal:
    """
    Read the facts of process ``key``; blocking, 0.1 to 0.3 ms without a digest.

    ``uid`` and ``gid`` are the kernel's, taken in the task itself when it connected; every thread must still run under that uid.
    ``script`` is the ``#!`` file name that the kernel recorded at exec; ``want_packages`` are the packages that selectors name.
    """
    if key.tgid <= 0:
        return Refusal(Reason.PROCESS_GONE, f"pid {key.tgid} is no process of this pid namespace")
    try:
        with ExitStack() as opened:
            return _Look(key, uid, gid, script, want_digest, home, want_packages, want_script_digest).take(opened)
    except (FileNotFoundError, ProcessLookupError):
        return _gone(key)
    except PermissionError as error:
        return Refusal(Reason.NAMESPACE_FOREIGN, f"process {key.tgid} cannot be read: {str(error.strerror).lower()}")
    except MalformedProcError as error:
        return Refusal(Reason.PROCESS_GONE, f"process {key.tgid} cannot be read: {error}")


class _Look(NamedTuple):
    """What was asked of ``gather``."""

    key: ProcessKey
    uid: Uid
    gid: Gid
    script: str | None
    want_digest: bool
    home: Namespaces
    want_packages: frozenset[str]
    want_script_digest: bool

    def take(self, opened: ExitStack) -> Facts | Refusal:
        """Look once; ``opened`` closes what is opened on the way."""
        key, uid = self.key, self.uid
        proc = os.open(f"/proc/{key.tgid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened.callback(os.close, proc)
        pidfd = os.pidfd_open(key.tgid)
        opened.callback(os.close, pidfd)
        if _start_of(proc) != start_ticks(key.start_ns):
            return _gone(key)
        traced, one_gid = False, True
        for status in _threads(proc):
            if status is None:
                return Refusal(Reason.QUOTA_EXCEEDED, f"process {key.tgid} has more than {MAX_THREADS} threads")
            traced = traced or status.tracer_pid != 0
            one_gid = one_gid and status.gids[1] == self.gid
            if status.uids[1] != uid:
                detail = f"a thread of process {key.tgid} runs under uid {status.uids[1]}, the connection's uid is {uid}"
                return Refusal(Reason.PROCESS_CHANGED, detail)
        exe, foreign = self._of_a_thread(proc)
        script = look(self.script) if self.script else None
        script_digest = _script_digest(script) if script is not None and self.want_script_digest else None
        if _start_of(proc) != start_ticks(key.start_ns) or _ended(pidfd):
            return _gone(key)
        return Facts(
            key=key,
            uid=uid,
            gid=self.gid,
            exe=exe.path,
            exe_sha256=exe.sha256,
            script=script,
            traced=traced,
            foreign_namespace=foreign,
            one_gid=one_gid,
            exe_md5=exe.md5,
            packages=exe.packages,
            script_sha256=script_digest,
        )

    def _of_a_thread(self, proc: int) -> "tuple[_Executable, str]":
        """
        Give executable and foreign namespace as one living thread has them; the first thread may have ended before the others.

        All threads share executable and user namespace; another mount namespace or root for one thread alone takes root to make.
        """
        for tid in sorted(_tids(proc), key=int):
            try:
                thread = os.open(f"task/{tid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
            except (FileNotFoundError, ProcessLookupError):
                continue
            try:
                return self._executable(thread), self.home.difference(Namespaces.of(thread))
            except (FileNotFoundError, ProcessLookupError):
                continue
            finally:
                os.close(thread)
        raise FileNotFoundError("no thread lives")

    def _executable(self, thread: int) -> "_Executable":
        """Read which file runs.  The link's text is believed only where the walk of that text ends at the very file that is open."""
        text = os.readlink("exe", dir_fd=thread)
        reads = self.want_digest or self.want_packages
        fd = os.open("exe", (os.O_RDONLY if reads else os.O_PATH) | os.O_CLOEXEC, dir_fd=thread)
        try:
            path = _believe(text, file_id(os.fstat(fd)))
            packages = _packages.owners(path.path, self.want_packages) if self.want_packages else ()
            digest = _digests.of(fd) if self.want_digest else None
            return _Executable(path, digest, _md5s.of(fd) if packages else None, packages)
        finally:
            os.close(fd)


class _Executable(NamedTuple):
    """What is known of the file that runs."""

    path: PathFact
    sha256: str | None
    md5: str | None
    packages: tuple[PackageFact, ...]


def _script_digest(script: PathFact) -> str | None:
    """Read the script as it lies there now: only where nobody but root could have changed it since exec."""
    if not script.root_owned:
        return None
    try:
        fd = os.open(script.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _digests.of(fd) if file_id(os.fstat(fd)) == script.file else None
    finally:
        os.close(fd)


def _gone(key: ProcessKey) -> Refusal:
    return Refusal(Reason.PROCESS_GONE, f"process {key} has ended")


def _start_of(proc: int) -> int:
    return parse_stat(_read("stat", proc)).start_ticks


def _ended(pidfd: int) -> bool:
    """A pidfd becomes readable when the whole process has ended, zombie or reaped (pidfd_open(2))."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _threads(proc: int) -> Iterator[Status | None]:
    """Read the status of every thread: tracers and uids are per thread.  None stands for too many.  A thread that ends is skipped."""
    tids = _tids(proc)
    if len(tids) > MAX_THREADS:
        yield None
        return
    for tid in tids:
        try:
            yield parse_status(_read(f"task/{tid}/status", proc))
        except (FileNotFoundError, ProcessLookupError):
            continue


def _tids(proc: int) -> list[str]:
    task = os.open("task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return os.listdir(task)  # noqa: PTH208  # by descriptor, which pathlib cannot
    finally:
        os.close(task)


def _read(name: str, proc: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        return os.read(fd, _STATUS_BYTES)
    finally:
        os.close(fd)


def _believe(text: str, running: FileId) -> PathFact:
    if not text.isprintable():
        return PathFact(printable(text), None, False, "the path holds characters that cannot be shown")
    found = look(text)
    if found.file == running:
        return found
    if found.file is None and text.endswith(_DELETED):
        path = text.removesuffix(_DELETED)
        return PathFact(path, None, False, f"{path} was replaced or removed since the program started")
    if found.file is None:
        return found
    return PathFact(text, None, False, f"{text} names another file than the one that runs")


def show(pid: int) -> Shown:
    """
    Read what a process says of itself: comm and argv, for people's eyes only.

    Raises FileNotFoundError or ProcessLookupError when it has ended.
    """
    proc = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        comm = parse_stat(_read("stat", proc)).comm
        argv = _read("cmdline", proc)[:MAX_ARGV]
    finally:
        os.close(proc)
    words = argv.rstrip(b"\0").split(b"\0") if argv else []
    return Shown(_words(comm), tuple(_words(word) for word in words))


def _words(raw: bytes) -> str:
    return printable(raw.decode("utf-8", "replace"))
