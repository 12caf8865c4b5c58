"""
Say which file a path names and whether only root could have put it there.

In: an absolute path that the kernel reported.  Out: a PathFact.
Each component is opened by itself without following links, and links are followed by hand, so that every directory on the way is looked
at: one that others may write lets them replace everything below it.  A sticky directory does not help: others may add to it, and in
``/tmp`` a path that is absent today is theirs tomorrow.
"""

import ctypes
import os
import stat
from functools import cache

from control.facts.model import FileId, PathFact
from control.facts.proc import printable

MAX_LINKS = 40
"""Symbolic links followed in one path, as the kernel does (path_resolution(7))."""
MAX_PATH = 4096
"""PATH_MAX."""

_SERVED = {
    0x65735546: "FUSE",
    0x6969: "NFS",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x01021997: "9P",
    0x5346414F: "AFS",
    0x00C36400: "Ceph",
    0x73757245: "Coda",
}
"""statfs(2) f_type of file systems whose bytes, owners and modes come from a program or another machine, which may show us others than it
shows to execve(2)."""


class _Statfs(ctypes.Structure):
    """``struct statfs`` of 64-bit Linux up to what we read; the rest is room."""

    _fields_ = (("f_type", ctypes.c_long), ("room", ctypes.c_char * 248))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def served_by(fd: int) -> str:
    """Name the sort of file system when its content comes from a program or another machine; empty for local ones."""
    answer = _Statfs()
    if _libc().fstatfs(fd, ctypes.byref(answer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return _SERVED.get(answer.f_type & 0xFFFFFFFF, "")


def file_id(found: os.stat_result) -> FileId:
    """Give the file's id with ``dev`` in the kernel's encoding."""
    return FileId(os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino)


def look(path: str, *, owner: int = 0, sticky_ok: bool = False) -> PathFact:
    """
    Walk ``path`` and give what it names now.

    ``owner`` may own components besides root (checks of an ordinary user's own files); ``sticky_ok`` accepts a sticky directory, for files
    that exist already and are read once: others cannot rename what is root's in there.
    Never raises for what it finds on the disk: the fault says it.
    """
    walker = _Walker(path, owner, sticky_ok)
    try:
        return walker.walk()
    finally:
        walker.close()


class _Walker:
    def __init__(self, path: str, owner: int, sticky_ok: bool) -> None:
        self.path, self.owners, self.sticky_ok = path, (0, owner), sticky_ok
        self.fault = ""
        self.links = 0
        self.real = ""
        self.stack: list[tuple[str, int, int]] = []
        """(path, descriptor, device) of every directory from the root down to where we are."""

    def close(self) -> None:
        for _, fd, _ in self.stack:
            os.close(fd)
        self.stack.clear()

    def walk(self) -> PathFact:
        if not self.path.startswith("/") or len(self.path) > MAX_PATH or "\0" in self.path:
            return PathFact(self.path, None, False, "it is not an absolute path")
        todo = self.path.split("/")[:0:-1]
        if any(part in ("", ".", "..") for part in todo):
            return PathFact(self.path, None, False, "it has empty, . or .. components")
        try:
            self._enter("/", os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), -1)
            found = self._descend(todo)
        except OSError as error:
            where = self.stack[-1][0] if self.stack else "/"
            return PathFact(
                self.path, None, False, self.fault or f"below {printable(where)}: {(error.strerror or 'cannot be read').lower()}"
            )
        return PathFact(self.path, found, found is not None and not self.fault, self.fault, self.real)

    def _descend(self, todo: list[str]) -> FileId | None:
        """Open one component after the other; ``todo`` is reversed, so that links push theirs."""
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(self.stack) > 1:
                    os.close(self.stack.pop()[1])
                continue
            parent, parent_fd, device = self.stack[-1]
            where = parent.rstrip("/") + "/" + name
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
            mode = os.fstat(fd).st_mode
            if stat.S_ISLNK(mode):
                try:
                    self._follow(where, fd, todo)
                finally:
                    os.close(fd)
            elif stat.S_ISDIR(mode):
                self._enter(where, fd, device)
            else:
                try:
                    return self._arrive(where, fd, device, todo)
                finally:
                    os.close(fd)
        self.fault = self.fault or f"{self.stack[-1][0]} is a directory"
        return None

    def _enter(self, where: str, fd: int, device: int) -> None:
        found = os.fstat(fd)
        self.stack.append((where, fd, found.st_dev))
        self._judge(where, fd, found, device)

    def _follow(self, where: str, fd: int, todo: list[str]) -> None:
        self.links += 1
        if self.links > MAX_LINKS:
            self.fault = f"{where} is one symbolic link too many"
            raise OSError(self.fault)
        if os.fstat(fd).st_uid not in self.owners:
            self._blame(f"{where} is owned by uid {os.fstat(fd).st_uid}")
        target = os.readlink("", dir_fd=fd)
        if target.startswith("/"):
            while len(self.stack) > 1:
                os.close(self.stack.pop()[1])
        todo += target.split("/")[::-1]

    def _arrive(self, where: str, fd: int, device: int, todo: list[str]) -> FileId | None:
        found = os.fstat(fd)
        self._judge(where, fd, found, device)
        if not stat.S_ISREG(found.st_mode):
            self._blame(f"{where} is not a regular file")
            return None
        if any(part not in ("", ".") for part in todo):
            self._blame(f"{where} is not a directory")
            return None
        self.real = printable(where)
        return file_id(found)

    def _judge(self, where: str, fd: int, found: os.stat_result, device: int) -> None:
        if found.st_uid not in self.owners:
            self._blame(f"{where} is owned by uid {found.st_uid}")
        elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (
            self.sticky_ok and stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        ):
            self._blame(f"{where} is writable by group or others (mode {stat.S_IMODE(found.st_mode):04o})")
        if found.st_dev != device and (kind := served_by(fd)):
            self._blame(f"{where} lies on a file system that a program or another machine serves ({kind})")

    def _blame(self, fault: str) -> None:
        self.fault = self.fault or printable(fault)
