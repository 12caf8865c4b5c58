"""
Ask dpkg's database on this machine; dpkg itself is not run.

In: the path of an executable and the packages that selectors name.  Out: PackageFacts; the executables of a package.
The database is believed where it is root's alone, like any path; what was read is kept until one of its files changes.
"""

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from control.facts.model import PackageFact, PathFact
from control.facts.package import MERGED, Contents, MalformedPackageError, architectures, contents, parse_diversions
from control.facts.path_io import look

DATABASE = Path("/var/lib/dpkg")
MAX_BYTES = 64 << 20
"""Of one file of the database; the largest real one, the status of ten thousand packages, has a fifth of it."""
MAX_KEPT = 256
"""Packages kept in memory; the oldest goes first and is simply read again."""
SETTLED_NS = 2_000_000_000
"""What changed less than this ago is read each time: a second write within the clock's grain would leave no trace."""

_Mark = tuple[tuple[int, int, int, int], ...]


class UnbelievableError(Exception):
    """The database cannot be read or believed; the text says why."""


class Executables(NamedTuple):
    """What a package can run."""

    paths: tuple[str, ...]
    """Executable regular files, where they lie."""
    fault: str = ""
    """Why there are none, for people."""


class _Kept(NamedTuple):
    mark: _Mark
    contents: Contents


class Packages:
    """The database with its memory; used by several threads."""

    def __init__(self, database: Path = DATABASE, root: Path = Path("/"), believe: Callable[[str], PathFact] = look) -> None:
        """``root`` is where merged directories are looked for; ``believe`` says whether a file of the database is root's alone."""
        self._database, self._root, self._believe = database, root, believe
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._listing: tuple[_Mark, dict[str, tuple[str, ...]]] = ((), {})
        self._known: tuple[_Mark, dict[str, frozenset[str]]] = ((), {})
        self.read = 0
        """Packages read since start."""

    def owners(self, path: str, wanted: frozenset[str]) -> tuple[PackageFact, ...]:
        """Give those of ``wanted`` (``name`` or ``name:architecture``) that own the file at ``path``, which has no links in it."""
        found = []
        for spec in sorted(wanted):
            try:
                instances = self._instances(spec)
            except UnbelievableError as error:
                found.append(PackageFact(spec, "", str(error)))
                continue
            for held in instances:
                name = held.named.get(path)
                if name is not None:
                    found.append(PackageFact(spec, held.md5.get(name, "")))
        return tuple(found)

    def executables(self, spec: str) -> Executables:
        """Give every file of a package that execve(2) might take; without those that no MD5 is known of, which are never believed."""
        try:
            instances = self._instances(spec)
        except UnbelievableError as error:
            return Executables((), str(error))
        if not instances:
            return Executables((), "it is not installed")
        named = ((place, name in held.md5) for held in instances for place, name in held.named.items())
        paths = dict.fromkeys(place for place, has_sum in named if has_sum and _executable(place))
        return Executables(tuple(paths), "" if paths else "it has no executables")

    def _instances(self, spec: str) -> list[Contents]:
        """Read the package, once for each architecture in which it is installed.  Raises UnbelievableError."""
        package, _, wanted = spec.partition(":")
        info = self._database / "info"
        try:
            if wanted:
                stems = [spec] if (info / f"{spec}.list").exists() else []
                if not stems and (info / f"{package}.list").exists() and wanted in self._architectures(package):
                    stems = [package]
            else:
                stems = list(self._stems().get(package, ()))
            return [self._contents(package, stem) for stem in stems]
        except (OSError, UnicodeDecodeError, MalformedPackageError) as error:
            why = (error.strerror or "cannot be read").lower() if isinstance(error, OSError) else str(error)
            raise UnbelievableError(f"dpkg's database cannot be read: {why}") from error

    def _stems(self) -> dict[str, tuple[str, ...]]:
        """Give each package's file names without suffix: ``libc6`` has ``libc6:amd64``, ``curl`` has ``curl``."""
        info = self._database / "info"
        mark = _mark(info)
        kept, stems = self._listing
        if kept == mark and time.time_ns() - mark[0][-1] > SETTLED_NS:
            return stems
        listed: dict[str, tuple[str, ...]] = {}
        for name in sorted(os.listdir(info)):  # noqa: PTH208  # a thousand Path objects less
            if name.endswith(".list"):
                stem = name.removesuffix(".list")
                package = stem.partition(":")[0]
                listed[package] = (*listed.get(package, ()), stem)
        self._listing = (mark, listed)
        return listed

    def _architectures(self, package: str) -> frozenset[str]:
        path = self._database / "status"
        self._check(path)
        mark = _mark(path)
        kept, known = self._known
        if kept != mark or time.time_ns() - mark[0][-1] <= SETTLED_NS:
            known = {}
        if package not in known:
            known = {**known, package: architectures(self._text(path), package)}
            self._known = (mark, known)
        return known[package]

    def _contents(self, package: str, stem: str) -> Contents:
        info = self._database / "info"
        files = (info / f"{stem}.list", info / f"{stem}.md5sums", self._database / "diversions")
        for path in files:
            self._check(path)
        mark = _mark(*files)
        with self._lock:
            kept = self._kept.get(stem)
            if kept is not None and kept.mark == mark:
                self._kept.move_to_end(stem)
                return kept.contents
        self.read += 1
        listed, sums, diverted = (self._text(path) for path in files)
        made = contents(package, listed, sums, parse_diversions(diverted), self._merged())
        if _mark(*files) == mark and all(time.time_ns() - changed > SETTLED_NS for *_, changed in mark):
            with self._lock:
                self._kept[stem] = _Kept(mark, made)
                while len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
        return made

    def _merged(self) -> frozenset[str]:
        """Say which directories of / are links into /usr."""
        found = set()
        for name in MERGED:
            path = self._root / name
            if path.is_symlink() and str(path.readlink()) in (f"usr/{name}", f"/usr/{name}"):
                found.add(name)
        return frozenset(found)

    def _check(self, path: Path) -> None:
        """
        Refuse a file that others than root may change, each time: a directory's mode leaves no mark on the files in it.

        One that is not there lies in or above the directory of the package's list, which is there and is refused itself.
        """
        fact = self._believe(str(path))
        if not fact.root_owned and path.exists():
            raise UnbelievableError(f"dpkg's database is not root's alone: {fact.fault}")

    def _text(self, path: Path) -> str:
        """Read a file; empty when there is none."""
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return ""
        if len(raw) > MAX_BYTES:
            raise UnbelievableError(f"{path} is larger than {MAX_BYTES} bytes")
        return raw.decode()


def _mark(*files: Path) -> _Mark:
    """Device, inode, size and change time of each file; zeros for one that is not there."""
    marks = []
    for path in files:
        try:
            found = path.stat()
            marks.append((found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns))
        except FileNotFoundError:
            marks.append((0, 0, 0, 0))
    return tuple(marks)


def _executable(path: str) -> bool:
    """Say whether the file is regular and somebody may execute it."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)
